"""Clients and upstreams on whole connections of both sides, moved by a program that the input is.

Each step is one byte that says what happens and one that says to whom, and for bytes on the wire a length and as many
bytes. Whatever happens, no exception escapes, nothing is left behind, and no client is given another one's answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sidecar.core.errors import Reason
from sidecar.core.snapshot import BreakerPolicy
from sidecar.downstream.http1 import ClientConnection
from sidecar.downstream.listener import ListenerSocket
from sidecar.upstream import cluster
from sidecar.upstream.http1 import UpstreamConnection
from tests.bench.fuzz import memories
from tests.bench.fuzz.clients import TIMES, listener, short_ids
from tests.bench.fuzz.targets import Target, same
from tests.bench.fuzz.transports import WireTransport, connect, leaving, raise_errors, run_in, wait_for_ever
from tests.bench.fuzz.words import HTTP_WORDS
from tests.support.by_hand import HERE, THERE, HandConnecting, Path

CLIENTS: Final = 2
MAX_STEPS: Final = 60
_ASKED: Final = re.compile(rb"[A-Z]+ /n([0-9]+)")
_TAG: Final = re.compile(rb"<n([0-9]+)>")

_REQUESTS: Final = (
    b"GET /n%d HTTP/1.1\r\nHost: app\r\n\r\n",
    b"POST /n%d HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /n%d HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PUT /n%d HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    b"GET /n%d HTTP/1.0\r\n\r\n",
    b"GET /n%d HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HEAD /n%d HTTP/1.1\r\nHost: app\r\n\r\n",
    b"POST /n%d HTTP/1.1\r\nHost: app\r\nContent-Length: 70000\r\n\r\nhel",
)
_ANSWERS: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b",
    b"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b",
    b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: %d\r\n\r\n%b",
    b"HTTP/1.1 200 OK\r\nX: %d\r\n\r\n%b",
    b"HTTP/1.1 100 Go on\r\nX: %d\r\n\r\n",
)


class Connecting(HandConnecting):
    """Ends when the program says so, and then brings a whole connection."""

    def opened(self, world: World) -> None:
        connection = UpstreamConnection(self.pool)
        world.upstreams.append(connect(connection, world.loop))
        self.pool.add(connection)
        seekers, self.seekers = self.seekers, []
        for seeker in seekers:
            seeker.leased(connection)


class World:
    """Two clients, one route, two endpoints with at most two connections in all."""

    def __init__(self) -> None:
        self.path = Path(
            HERE, THERE, breaker=BreakerPolicy(), timeouts=TIMES, max_connections=2, max_pending=2
        )
        self.path.service.ids = short_ids()
        self.loop = self.path.loop
        run_in(self.loop)
        self.socket = ListenerSocket(listener(), self.path.service)
        self.clients: list[WireTransport] = []
        self.asked_by: list[set[bytes]] = []
        self.upstreams: list[WireTransport] = []
        self.connectings: list[Connecting] = []
        self.number = 0
        for _ in range(CLIENTS):
            self.clients.append(self._client())
            self.asked_by.append(set())

    def _client(self) -> WireTransport:
        return connect(ClientConnection(self.socket), self.loop)

    def client(self, which: int) -> WireTransport:
        """Open, if it is to be: one that has closed is followed by a new one when all that it was told is checked."""
        which %= CLIENTS
        if self.clients[which].is_lost:
            self.check(which)
            self.clients[which], self.asked_by[which] = self._client(), set()
        return self.clients[which]

    def upstream(self, which: int) -> WireTransport | None:
        still = [one for one in self.upstreams if not one.is_lost]
        return still[which % len(still)] if still else None

    def check(self, which: int) -> None:
        """A client is answered what it asked for itself, in its order. An answer that goes on may say it again."""
        tags = _TAG.findall(self.clients[which].written)
        if tags != sorted(tags, key=int) or not self.asked_by[which].issuperset(tags):
            raise AssertionError(f"a client that asked for {self.asked_by[which]} was answered {tags}")

    # What may happen

    def ask(self, which: int, kind: int) -> None:
        transport = self.client(which)
        self.number += 1
        self.asked_by[which % CLIENTS].add(b"%d" % self.number)
        transport.receive(_REQUESTS[kind % len(_REQUESTS)] % self.number)

    def answer(self, which: int, kind: int) -> None:
        transport = self.upstream(which)
        if transport is not None:
            asked = _ASKED.findall(transport.written)
            body = b"<n%b>" % asked[-1] if asked else b""
            form = _ANSWERS[kind % len(_ANSWERS)]
            transport.receive(form % ((len(body), body) if form.count(b"%") > 1 else len(body)))

    def open(self, which: int, kind: int) -> None:
        waiting = [one for one in self.connectings if one.seekers]
        if waiting:
            one = waiting[which % len(waiting)]
            if kind % 4 == 3:
                one.fail((Reason.CONNECTION_REFUSED, Reason.CONNECTION_TIMEOUT)[kind // 4 % 2])
            else:
                one.opened(self)

    def end(self, which: int, kind: int) -> None:
        transport = self.clients[which % CLIENTS] if kind & 1 else self.upstream(which)
        if transport is not None:
            if kind & 2:
                transport.end_input()
            else:
                transport.lose(ConnectionResetError() if kind & 4 else None)

    def fill(self, which: int, kind: int) -> None:
        """The other side takes no more, or takes it again."""
        transport = self.clients[which % CLIENTS] if kind & 1 else self.upstream(which)
        if transport is not None and not transport.is_lost:
            is_full = bool(kind & 2)
            if is_full != bool(transport.unsent):
                transport.unsent = 100_000 if is_full else 0
                transport.protocol.pause_writing() if is_full else transport.protocol.resume_writing()

    def wait(self, which: int, kind: int) -> None:
        self.loop.advance((0.001, 0.03, 0.1, 0.25, 0.35, 0.7, 1.0, 40.0)[kind % 8])

    def drain(self, which: int, kind: int) -> None:
        if kind == 255:
            self.socket.stop_accepting()

    def finish(self) -> None:
        """Everybody leaves; nothing may be left."""
        for transport in (*self.clients, *self.upstreams):
            transport.lose()
        self.loop.settle()
        for connecting in list(self.connectings):
            if connecting.seekers:
                connecting.fail()
        wait_for_ever(self.loop)
        raise_errors(self.loop)
        for which in range(CLIENTS):
            self.check(which)
        service, one = self.path.service, self.path.cluster
        left = (self.socket.connection_count, len(service.exchanges), len(service.sweep), self.loop.timers)
        same("what is left behind", (0, 0, 0, 0), left)
        kept = (
            one.in_flight,
            one.pending,
            one.connections,
            [(each.in_flight, each.open_count) for each in one.pools],
        )
        same("what the upstream still holds", (0, 0, 0, [(0, 0), (0, 0)]), kept)


_STEPS: Final[tuple[Callable[[World, int, int], None], ...]] = (
    World.ask, World.answer, World.open, World.end, World.fill, World.wait, World.drain,
)  # fmt: skip
_CLIENT_BYTES, _UPSTREAM_BYTES, _TURN = 7, 8, 9
_KINDS: Final = 10


@contextmanager
def _connectings(found: list[Connecting]) -> Iterator[None]:
    """Connections are opened by hand."""

    def begin(*args: Any) -> Connecting:
        found.append(Connecting(*args))
        return found[-1]

    before = cluster.Connecting
    cluster.Connecting = begin  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        cluster.Connecting = before  # type: ignore[misc]


def proxy(data: bytes) -> None:
    memories.forget()
    world = World()
    with _connectings(world.connectings):
        at = 0
        for _ in range(MAX_STEPS):
            if at + 2 > len(data):
                break
            at = _step(world, data, at)
            raise_errors(world.loop)
        world.finish()


def _step(world: World, data: bytes, at: int) -> int:
    """Do what stands at `at`, and return where the next step stands."""
    kind, which = data[at] % _KINDS, data[at] // _KINDS
    if kind == _TURN:
        world.loop.turn()
        return at + 1
    if kind < len(_STEPS):
        _STEPS[kind](world, which, data[at + 1])
        world.loop.settle()
        return at + 2
    piece = data[at + 2 : at + 2 + data[at + 1]]
    transport = world.client(which) if kind == _CLIENT_BYTES else world.upstream(which)
    if transport is not None:
        transport.receive(piece)
    return at + 2 + data[at + 1]


def _seeds() -> Iterator[bytes]:
    for kind in range(len(_REQUESTS)):
        for answer in range(len(_ANSWERS)):
            yield bytes((0, kind, 2, 0, 1, answer, 1, 0, 3, 4))
    yield bytes((0, 0, 10, 1, 2, 0, 12, 0, 11, 0, 1, 0))
    yield bytes((0, 1, 2, 3, 2, 0, 1, 0, 5, 6, 0, 0, 1, 0))
    yield bytes((0, 2, 2, 0, 4, 2, 4, 0, 4, 3, 4, 1, 1, 0, 6, 255))
    for text in (
        b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab",
    ):
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"
        yield bytes((7, len(text))) + text + bytes((2, 0, 8, len(answer))) + answer + bytes((5, 7))


TARGETS: Final = [Target("proxy", leaving(proxy), _seeds, HTTP_WORDS, max_bytes=600, share=2)]
