"""A client's whole connection, before upstreams that answer: whole against pieces, cold against warm."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from sidecar.core.head import RequestHead, response_head
from sidecar.core.plain import Field
from sidecar.core.snapshot import (
    Address,
    Forwarded,
    Listener,
    ListenerLimits,
    ListenerTimeouts,
    RouteTimeouts,
    Trust,
)
from sidecar.core.tracecontext import IdSource
from sidecar.downstream.http1 import ClientConnection
from sidecar.downstream.listener import ListenerSocket
from tests.bench.fuzz import memories
from tests.bench.fuzz.pieces import cuttings
from tests.bench.fuzz.seeds import request_seeds
from tests.bench.fuzz.targets import Target, same
from tests.bench.fuzz.transports import connect, leaving, raise_errors, run_in, wait_for_ever
from tests.bench.fuzz.words import HTTP_WORDS
from tests.support.by_hand import HandLease, HandStream, Path

_STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_REFUSALS: Final = frozenset({b"400", b"405", b"413", b"414", b"431", b"501", b"505"})
Seen = tuple[Any, ...]
"""Method, target, host, fields, body and trailers of one request."""


TIMES: Final = RouteTimeouts(request_seconds=0.8, idle_seconds=0.6)
"""Short, as the listener's: what is swept every 25 ms of a time that is not real is swept seldom."""


def short_ids() -> IdSource:
    """Ids that cost little: few are needed for each input."""
    return IdSource(lambda size: b"\x11" * size, batch=4)


def listener(trust: Trust = Trust.ALL, mode: Forwarded = Forwarded.APPEND) -> Listener:
    limits = ListenerLimits(head_bytes=700, headers=16, url_bytes=200, connections=4)
    times = ListenerTimeouts(head_seconds=0.2, idle_seconds=0.4, body_seconds=0.3)
    return Listener("inbound", Address("127.0.0.1", 0), limits, times, forwarded=mode, trust=trust)


class Answering(HandStream):
    """An upstream's stream that answers a request once it is whole, one turn of the loop later."""

    def __init__(self, path: Path, seen: list[Seen]) -> None:
        super().__init__()
        self.path = path
        self.lease = HandLease(path.cluster.pools[0], stream=self)
        self.seen = seen
        self.head: RequestHead | None = None
        self.body = b""

    def send_head(
        self, head: RequestHead, held: Sequence[Any] = (), trailers: Sequence[Field] | None = None
    ) -> None:
        self.head = head
        self.body = b"".join(held)
        if not head.request.length or trailers is not None:
            self.end(trailers or ())

    def send_data(self, data: bytes) -> None:
        self.body += data

    def end(self, trailers: Sequence[Field]) -> None:
        head = self.head
        assert head is not None
        request = head.request
        kept = [line for key, line, _ in request.fields if key not in head.drop]
        self.seen.append((request.method, head.target, head.authority, kept, self.body, list(trailers)))
        self.path.loop.call_soon(self._answer)

    def _answer(self) -> None:
        sink = self.lease.heard_by
        if sink is not None:
            sink.answered(response_head(200, [(b"content-length", b"Content-Length: 2\r\n", b"2")], 2), b"ok")


class Conversation:
    """One client's connection, from its first byte to its end."""

    def __init__(self, policy: Listener) -> None:
        self.path = Path(timeouts=TIMES)
        self.path.service.ids = short_ids()
        self.loop = self.path.loop
        run_in(self.loop)
        self.socket = ListenerSocket(policy, self.path.service)
        self.connection = ClientConnection(self.socket)
        self.transport = connect(self.connection, self.loop)
        self.seen: list[Seen] = []

    def feed(self, pieces: Sequence[bytes]) -> tuple[Any, ...]:
        """Send them, and say what came of it: what the upstream saw, what was answered, and whether it goes on.

        Why a request is refused is left out: of two reasons, the one that is met first depends on the pieces.
        """
        for piece in pieces:
            self._offer_upstream()
            self.transport.receive(piece)
            self._settle()
        raise_errors(self.loop)
        statuses = [
            b"refused" if status in _REFUSALS else status
            for status in _STATUS.findall(self.transport.written)
        ]
        has_ended = self.transport.is_closing() or self.transport.has_ended_writing
        outcome = (self.seen, statuses, has_ended)
        self._end()
        return outcome

    def _settle(self) -> None:
        """Turn the loop until nothing is ready, with an upstream at hand for each request that is read meanwhile."""
        for _ in range(1000):
            self._offer_upstream()
            if not self.loop.is_ready:
                return
            self.loop.turn()

    def _offer_upstream(self) -> None:
        idle = self.path.cluster.pools[0].idle
        if not idle:
            idle[Answering(self.path, self.seen).lease] = None

    def _end(self) -> None:
        """Nothing is left behind, and no deadline finds a connection that is gone."""
        self.transport.lose()
        wait_for_ever(self.loop)
        raise_errors(self.loop)
        service, cluster = self.path.service, self.path.cluster
        left = (self.socket.connection_count, len(service.exchanges), len(service.sweep), self.loop.timers)
        same("what is left behind", (0, 0, 0, 0), left)
        same(
            "what the upstream is still asked",
            (0, [0]),
            (cluster.in_flight, [one.in_flight for one in cluster.pools]),
        )


def client(data: bytes) -> None:
    """By a listener that trusts its callers or by one that does not, as the last byte decides."""
    is_stranger = bool(data) and data[-1] & 1
    policy = listener(Trust.NONE, Forwarded.SET) if is_stranger else listener()
    memories.forget()
    whole = Conversation(policy).feed([data])
    same("a client of which much is remembered", whole, Conversation(policy).feed([data]))
    for pieces in cuttings(data):
        same("a client in pieces", whole, Conversation(policy).feed(pieces))


TARGETS: Final = [Target("client", leaving(client), request_seeds, HTTP_WORDS)]
