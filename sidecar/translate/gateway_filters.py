"""Filters of Gateway API's rules and backends → keys of a route."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.config.schema.names import OWNED_BY_PROXY
from sidecar.config.schema.policies import Policies
from sidecar.config.schema.section import keys_of
from sidecar.config.schema.units import digits
from sidecar.translate.draft import Draft, Keys
from sidecar.translate.source import Item

REFUSED = "refused"
"""In place of keys: some filter is not known. It may be what lets people in, so it is not just left out (Gateway API:
"the filter MUST NOT be skipped")."""
OF_A_BACKEND = frozenset({"RequestHeaderModifier", "ResponseHeaderModifier"})
_ALL = OF_A_BACKEND | {"RequestRedirect", "URLRewrite", "RequestMirror", "CORS"}
_FIELDS = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
    "RequestMirror": "requestMirror",
    "CORS": "cors",
}


def translate(
    listed: Sequence[Item], draft: Draft, namespace: str, allowed: frozenset[str] = frozenset(_ALL)
) -> Keys:
    """The keys that say what the filters do; what they say otherwise is lost."""
    keys: Keys = {}
    for item in listed:
        kind = item.get("type")
        word = kind.text() if kind is not None else ""
        body = item.get(_FIELDS.get(word, "-"))
        if word not in allowed or body is None:
            what = "the rule answers 500" if allowed == _ALL else "this backend is left out"
            draft.lose(item, f"filter {word or '(none)'} is not known here: {what}", reach=True)
            keys[REFUSED] = True
            continue
        if word in OF_A_BACKEND:
            key = "request_headers" if word == "RequestHeaderModifier" else "response_headers"
            ops, host = header_ops(body, draft, is_request=key == "request_headers")
            keys |= {key: ops} if ops else {}
            if host is not None and allowed == _ALL:
                keys.setdefault("rewrite", {})["host"] = host
        elif word == "RequestRedirect":
            keys["redirect"] = _redirect(body, draft)
        elif word == "URLRewrite":
            keys["rewrite"] = keys.get("rewrite", {}) | _rewrite(body, draft)
        elif word == "RequestMirror":
            _mirror(body, draft, namespace, keys)
        else:
            keys["cors"] = cors(body)
    return keys


def header_ops(body: Item, draft: Draft, *, is_request: bool) -> tuple[Keys, str | None]:
    """Changes to fields, and the host where a change of the request's `Host` says one."""
    found: Keys = {}
    host = None
    for key in ("set", "add"):
        listed = body.get(key)
        for one in listed.items() if listed is not None else []:
            name, value = one.get("name"), one.get("value")
            spelt = name.text().lower() if name is not None else ""
            if spelt == "host" and is_request and key == "set" and value is not None:
                host = value.text()
            elif not spelt or value is None or not may_change(spelt, is_request=is_request):
                draft.lose(one, f"field {spelt or '(none)'} is the proxy's own here", reach=False)
            else:
                found.setdefault(key, {})[spelt] = value.text().strip()
    listed = body.get("remove")
    for one in listed.items() if listed is not None else []:
        if may_change(one.text().lower(), is_request=is_request):
            found.setdefault("remove", []).append(one.text().lower())
        else:
            draft.lose(one, f"field {one.text()} is the proxy's own here", reach=False)
    return found, host


def may_change(name: str, *, is_request: bool) -> bool:
    """Whether a route may set, add or remove this field."""
    return name not in OWNED_BY_PROXY and not (is_request and name == "host")


def _redirect(body: Item, draft: Draft) -> Keys:
    found: Keys = {}
    for key, ours in (("scheme", "scheme"), ("hostname", "host")):
        item = body.get(key)
        if item is not None:
            found[ours] = item.text()
    port, status = body.get("port"), body.get("statusCode")
    if port is not None:
        found["port"] = port.whole()
    if status is not None and status.text() != "302":
        found["status"] = status.whole()
    found |= _path(body, draft)
    return found


def _rewrite(body: Item, draft: Draft) -> Keys:
    host = body.get("hostname")
    return ({} if host is None else {"host": host.text()}) | _path(body, draft)


def _path(body: Item, draft: Draft) -> Keys:
    item = body.get("path")
    if item is None:
        return {}
    kind, full, prefix = item.get("type"), item.get("replaceFullPath"), item.get("replacePrefixMatch")
    word = kind.text() if kind is not None else ""
    if word == "ReplaceFullPath" and full is not None:
        return {"path": full.text()}
    if word == "ReplacePrefixMatch":
        return {"prefix": (prefix.text() if prefix is not None else "") or "/"}
    draft.lose(item, f"a path of type {word} is not known here", reach=True)
    return {}


def _mirror(body: Item, draft: Draft, namespace: str, keys: Keys) -> None:
    ref, percent = body.get("backendRef"), body.get("percent")
    body_share = body.get("fraction")
    name = ref.get("name") if ref is not None else None
    port = ref.get("port") if ref is not None else None
    if ref is None or name is None or port is None:
        draft.lose(body, "a mirror without a Service and port", reach=False)
        return
    space = ref.get("namespace")
    where = space.text() if space is not None else namespace
    share = "100%" if percent is None else f"{digits(percent.number())}%"
    if body_share is not None:
        over, under = body_share.get("numerator"), body_share.get("denominator")
        parts = over.number() if over is not None else 0.0
        of = under.number() if under is not None else 100.0
        if of <= 0:
            draft.lose(body_share, "a mirror of a fraction whose denominator is not above 0", reach=False)
            return
        share = f"{digits(parts / of * 100)}%"
    upstream = draft.upstream(name.text(), where, port.whole(), f"{ref.place} mirror")
    mirror(keys, draft, ref, upstream.name, share)


def mirror(keys: Keys, draft: Draft, item: Item, upstream: str, share: str) -> None:
    """A copy of the requests, where this version of the sidecar makes any."""
    if "mirror" in keys_of(Policies):
        keys["mirror"] = {"upstream": upstream, "share": share}
    else:
        draft.lose(item, "requests are not mirrored here", reach=False)


def cors(body: Item) -> Keys:
    """HTTPCORSFilter; its names are ours but for the case."""
    found: Keys = {}
    origins, age = body.get("allowOrigins"), body.get("maxAge")
    if origins is not None and origins.items():
        found["allow_origins"] = [one.text() for one in origins.items()]
    found |= cors_leave(body)
    if age is not None:
        found["max_age"] = f"{digits(age.number())}s" if age.number() else "0s"
    return found


def cors_leave(body: Item) -> Keys:
    """What pages of the allowed origins may do, which Gateway API and Istio write alike."""
    found: Keys = {}
    for key, ours in (
        ("allowMethods", "allow_methods"),
        ("allowHeaders", "allow_headers"),
        ("exposeHeaders", "expose_headers"),
    ):
        listed = body.get(key)
        if listed is not None and listed.items():
            found[ours] = [one.text() for one in listed.items()]
    credentials = body.get("allowCredentials")
    if credentials is not None and credentials.flag():
        found["allow_credentials"] = True
    return found
