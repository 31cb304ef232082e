"""What a rule of a VirtualService does with a request: redirects, answers, rewrites, header changes, CORS."""

from __future__ import annotations

import base64
import binascii

from sidecar.core.hosts import pattern_port
from sidecar.translate.draft import Draft, Keys
from sidecar.translate.durations import duration
from sidecar.translate.gateway_filters import cors_leave, may_change
from sidecar.translate.istio_match import kind_of
from sidecar.translate.render import Variable
from sidecar.translate.source import Item

_VARIABLES = {
    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%": "${client.address}",
    "%DOWNSTREAM_REMOTE_PORT%": "${client.port}",
    "%PROTOCOL%": None,
    "%REQ(:METHOD)%": "${request.method}",
    "%REQ(:PATH)%": "${request.path}",
    "%REQ(:AUTHORITY)%": "${request.host}",
    "%REQ(X-REQUEST-ID)%": "${request.id}",
    "%TRACE_ID%": "${trace.id}",
}
"""Envoy's words for what a field may hold."""


def answered(rule: Item, draft: Draft) -> Keys | None:
    """A redirect or a fixed answer; None if the rule sends its requests on."""
    redirect, direct = rule.get("redirect"), rule.get("directResponse")
    if redirect is not None:
        return {"redirect": _redirect(redirect, draft)}
    if direct is not None:
        return {"respond": _respond(direct, draft)}
    return None


def _redirect(item: Item, draft: Draft) -> Keys:
    """Istio's own status is 301. `derivePort` says what ours does where no port is given."""
    found: Keys = {}
    status, uri, authority = item.get("redirectCode"), item.get("uri"), item.get("authority")
    scheme, port, derived = item.get("scheme"), item.get("port"), item.get("derivePort")
    found["status"] = status.whole() if status is not None else 301
    if scheme is not None:
        found["scheme"] = scheme.text()
    if authority is not None:
        found["host"], own_port = pattern_port(authority.text())
        if own_port is not None:
            found["port"] = own_port
    if uri is not None:
        if "%" in uri.text() or "?" in uri.text():
            draft.lose(uri, "a path that is put together, or has a query, is not carried", reach=True)
        else:
            found["path"] = uri.text()
    if port is not None:
        found["port"] = port.whole()
    if derived is not None and derived.text() == "FROM_PROTOCOL_DEFAULT" and "port" not in found:
        found["port"] = 443 if found.get("scheme") == "https" else 80
    return found


def _respond(item: Item, draft: Draft) -> Keys:
    status, body = item.get("status"), item.get("body")
    found: Keys = {"status": status.whole() if status is not None else 200}
    text, data = (body.get("string"), body.get("bytes")) if body is not None else (None, None)
    if text is not None:
        found["body"] = text.text()
    elif data is not None:
        try:
            found["body"] = base64.b64decode(data.text(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            draft.lose(
                data, "a body that is no text: put it into a file, and name that as `body_file`", reach=True
            )
    return found


def rewrites(item: Item | None, matches: list[Keys], draft: Draft) -> list[tuple[list[Keys], Keys]]:
    """The matches in groups, each with its `rewrite`: of a prefix the prefix is replaced, else the whole path."""
    if item is None:
        return [(matches, {})]
    uri, authority = item.get("uri"), item.get("authority")
    for left in item.unread():
        draft.lose(left, "a rewrite by a regular expression is not carried", reach=True)
    host = {} if authority is None else {"host": authority.text()}
    if uri is None:
        return [(matches, host)]
    prefixes = [one for one in matches if "prefix" in one.get("path", {"prefix": "/"})]
    others = [one for one in matches if one not in prefixes]
    for one in prefixes:
        one.setdefault("path", {"prefix": "/"})
    groups = [(prefixes, host | {"prefix": uri.text() or "/"}), (others, host | {"path": uri.text() or "/"})]
    return [(group, changed) for group, changed in groups if group]


def header_changes(item: Item, draft: Draft) -> tuple[Keys, str | None]:
    """`headers` of a rule or a destination; and the host that a change of `Host` says."""
    found: Keys = {}
    host = None
    for key, ours in (("request", "request_headers"), ("response", "response_headers")):
        part = item.get(key)
        if part is None:
            continue
        for word in ("set", "add"):
            fields = part.get(word)
            for name, value in fields.pairs() if fields is not None else []:
                spelt = name.lower()
                if spelt in ("host", ":authority") and key == "request":
                    host = value.text()
                elif spelt.startswith(":") or not may_change(spelt, is_request=key == "request"):
                    draft.lose(value, "the field is the proxy's own here", reach=False)
                elif (text := _value(value, draft)) is not None:
                    found.setdefault(ours, {}).setdefault(word, {})[spelt] = text
        removed = part.get("remove")
        for one in removed.items() if removed is not None else []:
            found.setdefault(ours, {}).setdefault("remove", []).append(one.text().lower())
    return found, host


def _value(item: Item, draft: Draft) -> str | None:
    text = item.text()
    if "%" not in text:
        return text.strip()
    shown = text.replace("${", "$${")
    for theirs, ours in _VARIABLES.items():
        if ours is not None:
            shown = shown.replace(theirs, ours)
    if "%" in shown.replace("%%", ""):
        draft.lose(item, f"{text}: not one of the variables that there are here", reach=False)
        return None
    return Variable(shown.replace("%%", "%").strip())


def cors(item: Item, draft: Draft) -> Keys:
    """Empty where no origin is left that could be allowed."""
    origins: list[str] = []
    listed, plain = item.get("allowOrigins"), item.get("allowOrigin")
    for one in listed.items() if listed is not None else []:
        said = kind_of(one)
        if said is None or said[0] != "exact":
            draft.lose(one, "an origin is compared as a whole, or as https://*.example", reach=True)
        else:
            origins.append(said[1].text())
    origins += [one.text() for one in plain.items()] if plain is not None else []
    found = cors_leave(item)
    age = item.get("maxAge")
    if age is not None:
        found["max_age"] = duration(age).replace("off", "0s")
    if not origins:
        draft.lose(
            item, "CORS that allows no origin is left out: the upstream answers for itself", reach=True
        )
        return {}
    return {"cors": {"allow_origins": origins} | found}
