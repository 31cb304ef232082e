"""What a match asks for beyond host and path: method, header fields, query parameters, and who the client is.

An `Entry` is one match of one route, compiled to bytes once, when a configuration is loaded. Pure; knows
nothing of hosts and tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from sidecar.core.client_tls import is_client
from sidecar.core.dataclass import dataclass
from sidecar.core.grpc_status import is_grpc
from sidecar.core.question import Question
from sidecar.core.secrets import HIDDEN, is_hidden
from sidecar.core.snapshot import Match, Pattern, Route, ValueMatch

T = TypeVar("T")
_CONTENT_TYPE = b"content-type"


@dataclass(frozen=True, slots=True)
class Condition:
    """One `ValueMatch`, ready for bytes."""

    name: bytes
    exact: bytes | None
    regex: Pattern | None
    present: bool | None
    is_hidden: bool = False
    """The value may be a secret: it is not told."""
    prefix: bytes | None = None
    suffix: bytes | None = None

    def holds(self, values: Mapping[bytes, bytes], question: Question) -> bool:
        """Raises: TooMuchWork."""
        value = values.get(self.name)
        if self.present is not None:
            return (value is not None) is self.present
        if value is None:
            return False
        if self.exact is not None:
            return value == self.exact
        if self.regex is not None:
            return question.holds(self.regex, value)
        if self.prefix is not None:
            return value.startswith(self.prefix)
        return self.suffix is not None and value.endswith(self.suffix)

    def __str__(self) -> str:
        if self.present is not None:
            return f"{text(self.name)} is {'present' if self.present else 'absent'}"
        if self.regex is not None:
            return f"{text(self.name)} matches {HIDDEN if self.is_hidden else self.regex.pattern}"
        for verb, part in (("begins with", self.prefix), ("ends with", self.suffix)):
            if part is not None:
                return f"{text(self.name)} {verb} {HIDDEN if self.is_hidden else repr(text(part))}"
        return f"{text(self.name)} is {HIDDEN if self.is_hidden else repr(text(self.exact or b''))}"


@dataclass(frozen=True, slots=True, eq=False)
class Entry(Generic[T]):
    """One match of one route; `target` is whatever the routing table was built with for that route."""

    target: T
    route: Route
    match: Match
    order: int
    """Of the route in the file, from 0."""
    match_index: int
    """Of the match in its route, from 0."""
    methods: frozenset[bytes]
    """Empty = any."""
    headers: tuple[Condition, ...]
    query: tuple[Condition, ...]
    is_grpc: bool
    """It asks for a gRPC call."""
    is_open: bool
    """True when it asks for nothing beyond host and path."""
    clients: tuple[str, ...] = ()
    """Identities, any of which must be the client's; empty = everybody."""
    prefix: bytes = b""
    """What matched of the unescaped path, without a slash at its end; empty unless a prefix matched."""
    port: int | None = None
    """That the client must ask for; None: any."""

    @property
    def is_for_bytes(self) -> bool:
        """It asks for nothing that only a request has."""
        return not (self.methods or self.headers or self.query or self.is_grpc or self.clients)

    def at_port(self, port: int | None) -> Entry[T]:
        """The same under a host that has a port, or has none."""
        if port is None or port == self.port:
            return self
        return replace(self, port=port, is_open=False)

    @property
    def prefix_length(self) -> int:
        """Bytes of the matched prefix, unescaped; `prefix_end` is the one to cut a real path with."""
        return len(self.prefix)

    def prefix_end(self, path: bytes) -> int:
        """Return where in `path`, as the client sent it, the matched prefix ends; 0 unless a prefix matched.

        Undoing escapes moves bytes but neither makes nor removes a slash, so segments are counted.
        """
        if 37 not in path:  # %
            return len(self.prefix)
        end = 0
        for _ in range(self.prefix.count(b"/")):
            end = path.find(b"/", end + 1)
            if end < 0:
                return len(path)
        return end

    def failure(self, question: Question) -> str | None:
        """Say which condition is the first that does not hold, for people. Raises: TooMuchWork."""
        if self.port is not None and question.port != self.port:
            return f"port {question.port} is not {self.port}"
        if self.methods and question.method not in self.methods:
            return f"method {text(question.method)} is none of {', '.join(sorted(self.match.methods))}"
        if self.is_grpc and not is_grpc(question.fields.get(_CONTENT_TYPE, b"")):
            return "not a gRPC call: its content-type is not application/grpc"
        if self.clients and not is_client(self.clients, question.client):
            who = question.client or "(none: it has shown no certificate)"
            return f"client {who} is none of {', '.join(self.clients)}"
        values = (("header", self.headers, question.fields), ("query", self.query, question.parameters))
        for kind, conditions, given in values:
            for condition in conditions:
                if not condition.holds(given, question):
                    return f"{kind} condition does not hold: {condition}"
        return None


def compile_entry(target: T, route: Route, order: int, match_index: int) -> Entry[T]:
    """Make the entry of one match of `route`, which is the `order`-th in the file."""
    match = route.matches[match_index]
    methods = frozenset(method.encode() for method in match.methods)
    headers = tuple(_condition(value, route.hidden) for value in match.headers)
    query = tuple(_condition(value, route.hidden) for value in match.query)
    asks_for_grpc = match.grpc is not None
    is_open = not (methods or headers or query or asks_for_grpc or match.clients) and match.port is None
    return Entry(
        target,
        route,
        match,
        order,
        match_index,
        methods,
        headers,
        query,
        asks_for_grpc,
        is_open,
        match.clients,
        port=match.port,
    )


def by_precedence(entries: Iterable[Entry[T]]) -> tuple[Entry[T], ...]:
    """Sort entries of one host and path, and drop what stands behind one that takes everything."""
    kept: list[Entry[T]] = []
    for entry in sorted(entries, key=rank):
        kept.append(entry)
        if entry.is_open:
            break
    return tuple(kept)


def rank(entry: Entry[T]) -> tuple[bool, bool, bool, int, int, bool, int, int]:
    """Return a key that sorts entries of the same host and path, most specific first."""
    return (
        entry.port is None, not entry.is_grpc, not entry.methods, -len(entry.headers), -len(entry.query),
        not entry.clients, entry.order, entry.match_index,
    )  # fmt: skip


def first(entries: Sequence[Entry[T]], question: Question) -> Entry[T] | None:
    """Return the first entry whose conditions hold. Raises: TooMuchWork."""
    for entry in entries:
        if entry.is_open:
            return entry
        if entry.port is not None and question.port != entry.port:
            continue
        if entry.methods and question.method not in entry.methods:
            continue
        if entry.is_grpc and not is_grpc(question.fields.get(_CONTENT_TYPE, b"")):
            continue
        if entry.clients and not is_client(entry.clients, question.client):
            continue
        if entry.headers and not _all_hold(entry.headers, question.fields, question):
            continue
        if entry.query and not _all_hold(entry.query, question.parameters, question):
            continue
        return entry
    return None


def text(value: bytes) -> str:
    """Bytes for people: UTF-8, with what is none kept apart."""
    return value.decode("utf-8", "surrogateescape")


def _all_hold(conditions: tuple[Condition, ...], values: Mapping[bytes, bytes], question: Question) -> bool:
    for condition in conditions:  # noqa: SIM110  (a generator would cost 0.3 µs more)
        if not condition.holds(values, question):
            return False
    return True


def _condition(value: ValueMatch, hidden: frozenset[str]) -> Condition:
    exact = None if value.exact is None else value.exact.encode()
    pattern = None if value.regex is None else value.regex.pattern
    written = value.exact or pattern or value.prefix or value.suffix or ""
    is_secret = is_hidden(value.name, written, hidden)
    prefix, suffix = (None if one is None else one.encode() for one in (value.prefix, value.suffix))
    return Condition(value.name.encode(), exact, value.regex, value.present, is_secret, prefix, suffix)
