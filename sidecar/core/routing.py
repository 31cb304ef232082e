"""Which route takes a request: the most specific one, found without looking at the others.

The routes of one listener become nested tables when a configuration is loaded: by host, then by path, then a
short list in order of precedence. A look-up walks from the most specific host to the least, in each from the
most specific path to the least, and takes the first entry whose other conditions hold. So its cost depends on
how deep the configured hosts and paths are, not on the number of routes, nor on the length of a client's own.

Precedence (Gateway API, HTTPRoute): exact host, longest wildcard, no host; exact path, longest prefix, regex,
no path; with a port before without; gRPC calls alone before all requests; with methods before without; more header
conditions; more query conditions; with clients before without; order in the file. The prefix `/` holds for every
path, so it ranks as no path: else a catch-all would hide every regex.

Paths are compared with percent-escapes undone, in the configuration too, and a path with two readings (see
`core/path.py`) is taken only when both lead to one route. A table without path conditions looks at no path.

Of a table that looks at nothing but hosts and paths, paths that come often are remembered with their entry: 2,400
instructions for a look-up instead of 7,100. Clients choose what is in there. So it is bounded, holds no long paths,
and takes in one of eight that were looked up: a path that comes once, as one with an id in it, costs 1,200 more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Final, Generic, TypeVar

from sidecar.core.ambiguity import Watched
from sidecar.core.conditions import Entry, by_precedence, compile_entry, first, rank
from sidecar.core.hosts import asked_port, normal_host, normal_pattern, pattern_port
from sidecar.core.path import has_one_reading, other_reading, unescape
from sidecar.core.question import Question
from sidecar.core.snapshot import Match, PathKind, PathMatch, Pattern, Route

T = TypeVar("T")

STEP = 50
"""Entries or hosts between two pauses of `RoutingTable.in_steps`: under a millisecond's work."""
MAX_FOUND: Final = 1024
"""Paths that are remembered; when they are so many, all are forgotten. With `MAX_FOUND_BYTES`: 0.5 MiB of a table at
most."""
MAX_FOUND_BYTES: Final = 256
FOUND_SHARE: Final = 8
"""One of so many look-ups is remembered."""
_NO_QUESTION: Final = Question(b"", {}, b"")
"""For a table that looks at nothing but hosts and paths: 0.3 µs less than one for each request."""


class RoutingTable(Generic[T]):
    """The routes of one listener, ready for look-ups. Immutable but for what it remembers of them, in steps that any
    thread may take; so it may be shared."""

    __slots__ = (
        "_as_sent", "_asks", "_asks_port", "_eager", "_found", "_has_hosts", "_has_paths", "_remembers",
        "_until_remembered", "_wanted", "entries", "watched",
    )  # fmt: skip

    def __init__(self, routes: Sequence[tuple[Route, T]]) -> None:
        """Build the tables. `routes` are in the order of the file; `T` is what a look-up is to return."""
        for _ in self._fill(routes):
            pass

    @classmethod
    def in_steps(cls, routes: Sequence[tuple[Route, T]]) -> Generator[None, None, RoutingTable[T]]:
        """Build the same, with a pause after each `STEP` entries: a thousand routes take 25 ms in all."""
        table = cls(())
        yield from table._fill(routes)
        return table

    def _fill(self, routes: Sequence[tuple[Route, T]]) -> Iterator[None]:
        entries: list[Entry[T]] = []
        for order, (route, target) in enumerate(routes):
            entries += (compile_entry(target, route, order, index) for index in range(len(route.matches)))
            if order % STEP == 0:
                yield
        self.entries = tuple(entries)
        self._as_sent: _HostTable[T] = _HostTable()
        yield from self._as_sent.fill(entries, path_key)
        self._eager: _HostTable[T] = self._as_sent
        if any(
            _eager_path_key(entry.match.path_asked()) != path_key(entry.match.path_asked())
            for entry in entries
        ):
            self._eager = _HostTable()
            yield from self._eager.fill(entries, _eager_path_key)
        self._has_hosts = any(any(host_patterns(entry.match)) for entry in entries)
        self._has_paths = any(path_key(entry.match.path_asked()) for entry in entries)
        self._asks_port = any(_has_port(entry.match) for entry in entries)
        self._asks = self._asks_port or any(not entry.is_open or _has_regex(entry.match) for entry in entries)
        self._remembers = self._has_paths and not self._asks  # by hosts alone a look-up is as cheap
        self._found: dict[bytes, tuple[tuple[_Group[T], ...], Entry[T]]] = {}
        """By path as it was sent: of which host's groups, and what was found there."""
        self._until_remembered = FOUND_SHARE
        self._wanted = frozenset(one.name for entry in entries for one in entry.query)
        self.watched = Watched((one.name for entry in entries for one in entry.headers), self._wanted)
        """What a listener refuses if it comes in two forms (`ambiguous: refuse`)."""

    def find(
        self, host: bytes, path: bytes, method: bytes, fields: Mapping[bytes, bytes], query: bytes
    ) -> T | None:
        """Return the target of the route that takes this request, None if no route does: see `find_entry`."""
        entry = self.find_entry(host, path, method, fields, query)
        return None if entry is None else entry.target

    def find_entry(
        self,
        host: bytes,
        path: bytes,
        method: bytes,
        fields: Mapping[bytes, bytes],
        query: bytes,
        client: str = "",
        default_port: int = 80,
    ) -> Entry[T] | None:
        """Return the entry that takes this request, None if none does.

        `host` is the authority as sent: any case, with or without port; empty for a request that has none.
        `path` is without the query and not empty, `query` without its `?`; `fields` has lower-case names. `client` is
        who asks, by its certificate; empty where it has shown none. `default_port` is meant where `host` names none.
        None also for a path with two readings that lead to different routes, or only one of them to any.

        Raises:
            TooMuchWork: the request is too long for the expressions that it would have to be compared with.
        """
        question = (
            Question(method, fields, query, self._wanted, client=client) if self._asks else _NO_QUESTION
        )
        if self._asks_port:
            question.port = asked_port(host, default_port)
        table = self._as_sent
        if self._has_hosts:
            hosts = table.hosts  # as it came, or but for its port: the usual case, without `chain`
            chain = hosts.get(host) or hosts.get(host.partition(b":")[0]) or table.chain(host)
        else:
            chain = table.any_host
        if self._remembers:
            known = self._found.get(path)
            if known is not None and known[0] is chain:
                return known[1]
        if self._has_paths and not has_one_reading(path):
            return self._find_in_both(host, path, question)
        for group in chain:
            found = group.find(path, question)
            if found is not None:
                if self._remembers:
                    self._until_remembered -= 1
                    if self._until_remembered <= 0:
                        self._remember(path, chain, found)
                return found
        return None

    def _remember(self, path: bytes, chain: tuple[_Group[T], ...], found: Entry[T]) -> None:
        self._until_remembered = FOUND_SHARE
        if len(path) <= MAX_FOUND_BYTES:
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            self._found[path] = chain, found

    def takes_host(self, host: bytes, port: int) -> bool:
        """Whether some route takes requests for this host and port, whatever else it may ask for."""
        return any(
            entry.port in (None, port) for group in self._as_sent.chain(host) for entry in group.entries()
        )

    def find_bytes(self, host: bytes, port: int) -> T | None:
        """Return the target of the route that takes all that goes to `host` and `port`, None if each asks for more:
        bytes that are no requests have neither path nor fields."""
        for group in self._as_sent.chain(host):
            entry = group.for_all(port)
            if entry is not None:
                return entry.target
        return None

    def _find_in_both(self, host: bytes, path: bytes, question: Question) -> Entry[T] | None:
        """Find by both readings of `path`, and believe them only if they name the same route."""
        path = unescape(path)
        found = self._as_sent.find(host, path, question)
        if found is None or has_one_reading(path):
            return found
        other = other_reading(path)
        if other is path:
            return found
        if other is None:
            return None
        same = self._eager.find(host, other, question)
        return found if same is not None and same.order == found.order else None


class _HostTable(Generic[T]):
    """From a host to the groups of entries that it may fall into, most specific first."""

    __slots__ = ("_wildcard_labels", "_wildcards", "any_host", "hosts")

    def __init__(self) -> None:
        self.any_host: tuple[_Group[T], ...] = ()
        self.hosts: dict[bytes, tuple[_Group[T], ...]] = {}
        self._wildcards: dict[bytes, tuple[_Group[T], ...]] = {}
        self._wildcard_labels = 0

    def fill(
        self, entries: Iterable[Entry[T]], key_of: Callable[[PathMatch | None], bytes]
    ) -> Iterator[None]:
        """Build, once, in steps."""
        placed: dict[bytes, list[tuple[bytes, Entry[T]]]] = defaultdict(list)
        for number, entry in enumerate(entries):
            for host, port in host_places(entry.match):
                placed[host].append((key_of(entry.match.path_asked()), entry.at_port(port)))
            if number % STEP == 0:
                yield
        groups: dict[bytes, _Group[T]] = {}
        for number, (host, keyed) in enumerate(placed.items()):
            groups[host] = _Group(keyed)
            if number % STEP == 0:
                yield
        for number, host in enumerate(groups):
            self._place(host, _chain(host, groups))
            if number % STEP == 0:
                yield
        self._wildcard_labels = max((suffix.count(b".") for suffix in self._wildcards), default=0)

    def _place(self, host: bytes, chain: tuple[_Group[T], ...]) -> None:
        if not host:
            self.any_host = chain
        elif host[:1] == b"*":
            self._wildcards[host[1:]] = chain
        else:
            self.hosts[host] = chain

    def find(self, host: bytes, path: bytes, question: Question) -> Entry[T] | None:
        for group in self.chain(host):
            found = group.find(path, question)
            if found is not None:
                return found
        return None

    def chain(self, host: bytes) -> tuple[_Group[T], ...]:
        """Return the groups for `host`, in whatever form a client wrote it."""
        host = normal_host(host)
        chain = self.hosts.get(host)
        if chain is not None:
            return chain
        return self._wildcard_chain(host) if self._wildcard_labels else self.any_host

    def _wildcard_chain(self, host: bytes) -> tuple[_Group[T], ...]:
        """Look for the longest wildcard, no deeper than any in the configuration."""
        dots: list[int] = []
        dot = len(host)
        while len(dots) < self._wildcard_labels:
            dot = host.rfind(b".", 0, dot)
            if dot <= 0:  # a wildcard stands for at least one label
                break
            dots.append(dot)
        for dot in reversed(dots):
            chain = self._wildcards.get(host[dot:])
            if chain is not None:
                return chain
        return self.any_host


class _Group(Generic[T]):
    """The entries under one host pattern, by path."""

    __slots__ = ("_depth", "_exact", "_prefixes", "_regexes", "_rest")

    def __init__(self, keyed: Iterable[tuple[bytes, Entry[T]]]) -> None:
        exact: dict[bytes, list[Entry[T]]] = defaultdict(list)
        prefixes: dict[bytes, list[Entry[T]]] = defaultdict(list)
        regexes: list[tuple[Pattern, Entry[T]]] = []
        rest: list[Entry[T]] = []
        for key, entry in keyed:
            path = entry.match.path_asked()
            if path is None or not key:
                rest.append(entry)
            elif path.kind is PathKind.EXACT:
                exact[key].append(entry)
            elif path.kind is PathKind.PREFIX:
                prefixes[key].append(replace(entry, prefix=key))
            else:
                assert path.regex is not None, "valid from birth"
                regexes.append((path.regex, entry))
        self._exact: Final = {key: by_precedence(entries) for key, entries in exact.items()}
        self._prefixes: Final = {key: by_precedence(entries) for key, entries in prefixes.items()}
        self._depth: Final = max((key.count(b"/") for key in prefixes), default=0)
        self._regexes: Final = tuple(sorted(regexes, key=lambda pair: rank(pair[1])))
        self._rest: Final = by_precedence(rest)

    def entries(self) -> Iterator[Entry[T]]:
        """All of them."""
        yield from self._rest
        yield from (entry for _, entry in self._regexes)
        for entries in (*self._exact.values(), *self._prefixes.values()):
            yield from entries

    def for_all(self, port: int) -> Entry[T] | None:
        """The first one that asks for nothing, or for this port alone."""
        return next((one for one in self._rest if one.port in (None, port) and one.is_for_bytes), None)

    def find(self, path: bytes, question: Question) -> Entry[T] | None:
        if self._exact:
            entries = self._exact.get(path)
            if entries is not None:
                if entries[0].is_open:  # the usual case, without the call
                    return entries[0]
                found = first(entries, question)
                if found is not None:
                    return found
        if self._depth == 1:
            end = path.find(b"/", 1)
            entries = self._prefixes.get(path if end < 0 else path[:end])
            if entries is not None:
                if entries[0].is_open:
                    return entries[0]
                found = first(entries, question)
                if found is not None:
                    return found
        elif self._depth:
            found = self._by_prefix(path, question)
            if found is not None:
                return found
        if self._regexes:
            found = self._by_regex(path, question)
            if found is not None:
                return found
        return first(self._rest, question) if self._rest else None

    def _by_prefix(self, path: bytes, question: Question) -> Entry[T] | None:
        """Try the prefixes of `path` that end at a segment, longest first, no deeper than any route's."""
        end = path.find(b"/", 1)
        if end < 0:
            entries = self._prefixes.get(path)
            if entries is None or entries[0].is_open:
                return None if entries is None else entries[0]
            return first(entries, question)
        ends = [end]
        while end >= 0 and len(ends) < self._depth:
            end = path.find(b"/", end + 1)
            ends.append(end if end >= 0 else len(path))
        for end in reversed(ends):
            entries = self._prefixes.get(path[:end])
            if entries is not None:
                found = first(entries, question)
                if found is not None:
                    return found
        return None

    def _by_regex(self, path: bytes, question: Question) -> Entry[T] | None:
        for regex, entry in self._regexes:
            if question.holds(regex, path) and first((entry,), question) is not None:
                return entry
        return None


def host_patterns(match: Match) -> Iterator[bytes]:
    """Yield the keys of a match: a host, `*.suffix`, or empty for any host."""
    for host, _ in host_places(match):
        yield host


def host_places(match: Match) -> Iterator[tuple[bytes, int | None]]:
    """The same, each with the port that stands behind it."""
    if not match.hosts:
        yield b"", None
    for written in match.hosts:
        host, port = pattern_port(written)
        yield (b"" if host == "*" else normal_pattern(host)), port


def _has_port(match: Match) -> bool:
    return match.port is not None or any(pattern_port(host)[1] is not None for host in match.hosts)


def path_key(path: PathMatch | None) -> bytes:
    """Return a path condition in the form of the tables: unescaped, a prefix without a slash at its end.

    Empty for one that holds for every path.
    """
    if path is None:
        return b""
    if path.kind is PathKind.REGEX:
        return path.value.encode()
    key = unescape(path.value.encode())
    return key.rstrip(b"/") if path.kind is PathKind.PREFIX else key


def _eager_path_key(path: PathMatch | None) -> bytes:
    """Return the key by the other reading, for the rare condition that has `%2F` or the like in it."""
    key = path_key(path)
    if not key or path is None or path.kind is PathKind.REGEX:
        return key
    eager = other_reading(key) or key
    return eager.rstrip(b"/") if path.kind is PathKind.PREFIX else eager


def path_holds(condition: PathMatch, path: bytes) -> bool:
    """Say whether one path condition, alone, holds for `path` as sent."""
    alone = Route("", "", (Match(path=condition),), (("", 1),))
    table: _HostTable[None] = _HostTable()
    for _ in table.fill((compile_entry(None, alone, 0, 0),), path_key):
        pass
    return table.find(b"", unescape(path), Question(b"", {}, b"", most_work=inf)) is not None


def _has_regex(match: Match) -> bool:
    return match.path is not None and match.path.kind is PathKind.REGEX


def _chain(host: bytes, groups: Mapping[bytes, _Group[T]]) -> tuple[_Group[T], ...]:
    """Return all groups that a request under the pattern `host` may fall into, most specific first."""
    chain = [groups[host]]
    name = host.removeprefix(b"*")
    dot = name.find(b".", 1)
    while dot >= 0:
        wildcard = groups.get(b"*" + name[dot:])
        if wildcard is not None:
            chain.append(wildcard)
        dot = name.find(b".", dot + 1)
    if host and b"" in groups:
        chain.append(groups[b""])
    return tuple(chain)
