"""Request targets, hosts and queries: how they are split, and that two readings never lead to two routes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from sidecar.config.schema.regex import Regex
from sidecar.core import secrets
from sidecar.core.conditions import Entry
from sidecar.core.explain import explain
from sidecar.core.path import has_dot_segment, has_one_reading, other_reading, unescape
from sidecar.core.question import parse_query
from sidecar.core.routing import RoutingTable
from sidecar.core.snapshot import Match, PathKind, PathMatch, Route, ValueMatch
from sidecar.http1.parse import Refused, split_target
from tests.bench.fuzz import memories
from tests.bench.fuzz.seeds import request_seeds
from tests.bench.fuzz.targets import Target, same
from tests.bench.fuzz.words import PATH_WORDS


def _route(name: str, *matches: Match) -> tuple[Route, str]:
    return Route(name, "outbound", matches, (("up", 1),)), name


def _path(kind: PathKind, value: str) -> PathMatch:
    return PathMatch(kind, value, Regex(value) if kind is PathKind.REGEX else None)


TABLE: Final = RoutingTable([
    _route("admin", Match(path=_path(PathKind.PREFIX, "/admin"))),
    _route("public", Match(path=_path(PathKind.PREFIX, "/public"))),
    _route("deep", Match(path=_path(PathKind.PREFIX, "/a/b"))),
    _route("exact", Match(path=_path(PathKind.EXACT, "/exact"))),
    _route("odd", Match(path=_path(PathKind.EXACT, "/a%2Fb"))),
    _route("regex", Match(path=_path(PathKind.REGEX, "/r[0-9]+"))),
    _route("host", Match(hosts=("payments",), query=(ValueMatch("a", "1"),))),
    _route("wild", Match(hosts=("*.internal",))),
])  # fmt: skip


_STRAY: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def targets(data: bytes) -> None:
    """Request target, a line end, host: as a client sends them."""
    memories.forget()
    target, _, host = data.partition(b"\n")
    for method, version in ((b"GET", "1.1"), (b"OPTIONS", "1.0"), (b"CONNECT", "1.1")):
        try:
            authority, origin = split_target(method, target, host, version)
        except Refused:
            continue
        assert origin[:1] == b"/" or origin == b"*"
        assert authority or version == "1.0"
        _is_routed(authority, origin, method)
        same(
            "a target that is split again",
            (authority, origin),
            split_target(method, origin, authority, version),
        )


def _is_routed(authority: bytes, origin: bytes, method: bytes) -> None:
    path, _, query = origin.partition(b"?")
    found: Entry[str] | None = TABLE.find_entry(authority, path, method, {}, query)
    chosen = [one for one in explain(TABLE, authority, path, method, {}, query) if one.is_chosen]
    same(
        "a route, explained",
        [(found.target, True)] if found else [],
        [(one.route, one.is_match) for one in chosen],
    )
    plain = unescape(path)
    if not _STRAY.search(path):  # `%%341` is a stray `%` and an escaped `4`: `%41` that is no escape
        same("a path that is unescaped again", plain, unescape(plain))
    other = other_reading(plain)
    if has_one_reading(path):
        assert plain == path
        assert other is None or other is plain
    if other is not None and other is not plain:
        assert other[:1] == b"/" or origin == b"*"
        assert not has_dot_segment(other)
    parse_query(query)
    _is_redacted(path, query)


def _is_redacted(path: bytes, query: bytes) -> None:
    once = secrets.redacted_query(query)
    same("a query that is redacted again", once, secrets.redacted_query(once))
    once = secrets.redacted_path(path)
    same("a path that is redacted again", once, secrets.redacted_path(once))


def _seeds() -> Iterator[bytes]:
    yield from (
        b"/public/..%2Fadmin\npayments",
        b"/a;b/c?a=1&b=2\npayments:80",
        b"http://a.internal/x\n[::1]:1",
    )
    yield from (b"/r12\na.b.internal", b"*\nx", b"http://x?q\ny", b"/a/b/../c\nx", b"/a%2fb\\c\nx", b"/.\nx")
    for data in request_seeds():
        parts = data.partition(b"\r\n")[0].split(b" ")
        if len(parts) > 1:
            yield parts[1] + b"\napp"


TARGETS: Final = [Target("targets", targets, _seeds, PATH_WORDS, max_bytes=512)]
