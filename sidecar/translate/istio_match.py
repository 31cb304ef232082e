"""A match of Istio's HTTPMatchRequest → a match of a route.

None where a condition cannot be said: the match is left out then, since a wider one would take other requests.
"""

from __future__ import annotations

import re

from sidecar.translate.draft import Draft, Keys
from sidecar.translate.source import Item

_KINDS = ("exact", "prefix", "regex")


def translate(match: Item, draft: Draft) -> Keys | None:
    """https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPMatchRequest"""
    found: Keys = {}
    match.get("name"), match.get("statPrefix")
    is_sound = (
        _path(match, found, draft)
        and _method(match, found, draft)
        and _authority(match, found, draft)
        and _values(match, "headers", "headers", found, draft)
        and _values(match, "queryParams", "query", found, draft)
        and _without(match, found, draft)
    )
    port = match.get("port")
    if port is not None:
        found["port"] = port.whole()
    gateways = match.get("gateways")
    if gateways is not None and "mesh" not in [one.text() for one in gateways.items()]:
        draft.lose(gateways, "there are no gateways here: this match is left out", reach=True)
        is_sound = False
    for left in match.unread():
        draft.lose(left, "this match is left out: the condition is not known here", reach=True)
        is_sound = False
    return found if is_sound else None


def kind_of(value: Item) -> tuple[str, Item] | None:
    """Which kind of comparison a StringMatch is, and with what."""
    for kind in _KINDS:
        found = value.get(kind)
        if found is not None:
            return kind, found
    return None


def _path(match: Item, found: Keys, draft: Draft) -> bool:
    uri, case = match.get("uri"), match.get("ignoreUriCase")
    if uri is None:
        return True
    said = kind_of(uri)
    if said is None:
        draft.lose(uri, "this match is left out: no such comparison of a path", reach=True)
        return False
    kind, value = said
    text = value.text()
    if case is not None and case.flag() and kind != "regex":
        found["path"] = {"regex": f"(?i){re.escape(text)}{'.*' if kind == 'prefix' else ''}"}
    elif kind == "prefix":
        if text != "/":
            found["path"] = {"prefix": text}
            differs = f"{text.rstrip('/')} is taken too" if text.endswith("/") else f"{text}x is not taken"
            draft.lose(value, f"prefix {text} holds whole segments here: {differs}", reach=True)
    else:
        found["path"] = {kind: text}
    return True


def _method(match: Item, found: Keys, draft: Draft) -> bool:
    item = match.get("method")
    if item is None:
        return True
    said = kind_of(item)
    if said is None or said[0] == "prefix":
        draft.lose(item, "this match is left out: a method is compared as a whole", reach=True)
        return False
    kind, value = said
    words = value.text().split("|") if kind == "regex" else [value.text()]
    if not all(re.fullmatch(r"[A-Z-]+", word) for word in words):
        draft.lose(item, "this match is left out: methods are compared as words", reach=True)
        return False
    found["methods"] = words
    return True


def _authority(match: Item, found: Keys, draft: Draft) -> bool:
    item = match.get("authority")
    if item is None:
        return True
    said = kind_of(item)
    if said is None or said[0] != "exact":
        draft.lose(item, "this match is left out: a host is compared as a whole, or as *.suffix", reach=True)
        return False
    found["hosts"] = [said[1].text()]
    return True


def _values(match: Item, key: str, ours: str, found: Keys, draft: Draft) -> bool:
    item = match.get(key)
    for name, value in item.pairs() if item is not None else []:
        said = None if value.is_null else kind_of(value)
        if said is None:
            found.setdefault(ours, {})[_named(name, ours)] = {"present": True}
        elif name.startswith(":"):
            draft.lose(value, "this match is left out: say it by `methods`, `hosts` or `path`", reach=True)
            return False
        else:
            kind, text = said
            one = text.text() if kind == "exact" else {kind: text.text()}
            found.setdefault(ours, {})[_named(name, ours)] = one
    return True


def _without(match: Item, found: Keys, draft: Draft) -> bool:
    item = match.get("withoutHeaders")
    for name, value in item.pairs() if item is not None else []:
        said = None if value.is_null else kind_of(value)
        if said is not None or name.lower() in found.get("headers", {}):
            draft.lose(
                value, "this match is left out: of what is not to be there, no value is compared", reach=True
            )
            return False
        found.setdefault("headers", {})[name.lower()] = {"present": False}
    return True


def _named(name: str, ours: str) -> str:
    return name.lower() if ours == "headers" else name
