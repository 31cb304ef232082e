"""A draft as a file: written, and read again, until what `sidecar check` would refuse is taken out and told."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from sidecar.config.load import ConfigError, load_text
from sidecar.translate.draft import Draft, DraftRoute, DraftUpstream, Loss
from sidecar.translate.source import SourceError

HEAD = "# Made by `sidecar import`. Look through it, most of all at what a comment says of what was not carried.\n"
_PLAIN = re.compile(r"[A-Za-z/_*][A-Za-z0-9/_.*-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_AS_WORDS = {"off", "on"}
"""Words of ours that need no quotes: the sidecar's files know YAML 1.2's booleans alone."""
_DURATION = re.compile(r"[0-9.]+(ms|s|m|h|%|B|KiB|MiB|GiB)")


def rendered(draft: Draft) -> str:
    """The file. It is a good one: what cannot stand in one is a loss of the draft's.

    Raises:
        SourceError: all of it together is more than one file may have.
    """
    while True:
        text, owners = _written(draft)
        try:
            load_text(text, "result")
        except ConfigError as error:
            bad: dict[int, tuple[DraftRoute | DraftUpstream, str]] = {}
            for problem in error.problems:
                owner = owners[problem.line - 1]
                if owner is None:
                    why = f"what this comes to cannot be one configuration: {problem.message}"
                    raise SourceError(f"{why}; import fewer of the rules at a time") from None
                bad[id(owner)] = owner, problem.message
            _take_out(draft, bad.values())
            continue
        return text


def _take_out(draft: Draft, bad: Collection[tuple[DraftRoute | DraftUpstream, str]]) -> None:
    gone = {one.name for one, _ in bad if isinstance(one, DraftUpstream)}
    for name in gone:
        del draft.upstreams[name]
    draft.drop(one for one, _ in bad if isinstance(one, DraftRoute))
    draft.drop(route for route in draft.routes if gone & _used(route))
    for one, message in bad:
        place, _, path = one.origin.partition(" ")
        draft.losses.append(Loss(place, path, f"left out, for the result would be refused: {message}", True))


def _used(route: DraftRoute) -> set[str]:
    mirror = route.keys.get("mirror", {})
    return {route.keys.get("upstream", ""), *route.keys.get("weights", {}), mirror.get("upstream", "")}


def _written(draft: Draft) -> tuple[str, list[DraftRoute | DraftUpstream | None]]:
    """The text, and for each of its lines what it belongs to."""
    lines: list[tuple[str, DraftRoute | DraftUpstream | None]] = [
        (HEAD.rstrip("\n"), None),
        ("version: 1", None),
    ]
    used = set().union(*map(_used, draft.routes)) if draft.routes else set()
    upstreams = [one for one in draft.upstreams.values() if one.name in used]
    if upstreams:
        lines.append(("upstreams:", None))
    for upstream in upstreams:
        lines += ((line, upstream) for line in _comments(upstream, "  "))
        lines.append((f"  {flow(upstream.name)}:", upstream))
        lines += ((f"    {key}: {flow(value)}", upstream) for key, value in upstream.keys.items())
    lines.append(("routes:" if draft.routes else "routes: []", None))
    for route in draft.routes:
        lines += ((line, route) for line in _comments(route, ""))
        lines.append((f"- name: {flow(route.name)}", route))
        lines += ((line, route) for key, value in route.keys.items() for line in _key(key, value))
    return "".join(f"{line}\n" for line, _ in lines), [owner for _, owner in lines]


def _comments(one: DraftRoute | DraftUpstream, indent: str) -> Iterator[str]:
    yield f"{indent}# {printable(one.origin)}"
    yield from (f"{indent}# not carried: {printable(str(loss))}" for loss in one.losses)


def printable(text: str) -> str:
    """`text` on one line."""
    return "".join(character if character.isprintable() else " " for character in text)


def _key(key: str, value: Any) -> Iterator[str]:
    if key == "match" and isinstance(value, list):
        yield "  match:"
        yield from (f"  - {flow(match)}" for match in value)
    else:
        yield f"  {key}: {flow(value)}"


def flow(value: Any) -> str:
    """YAML on one line. `${` in a text is written so that it stays one; a `Variable` is not."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    is_plain = _PLAIN.fullmatch(value) and (value.lower() not in _WORDS or value in _AS_WORDS)
    if (is_plain and value != "*" and not value.startswith("*")) or _DURATION.fullmatch(value):
        return value
    text = value if isinstance(value, Variable) else value.replace("${", "$${")
    return "".join(map(_escaped, json.dumps(text, ensure_ascii=False)))


def _escaped(character: str) -> str:
    """In quotes: what is no text, or turns and hides what stands behind it (U+202E)."""
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"


class Variable(str):
    """A text in which `${…}` are variables of requests."""

    __slots__ = ()
