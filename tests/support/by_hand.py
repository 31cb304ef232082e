"""The data path without sockets: a loop that is moved by hand, transports and streams that note what they hear."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, cast

import pytest

from sidecar.core.breaker import Breaker
from sidecar.core.callers import Callers
from sidecar.core.errors import Reason
from sidecar.core.head import RequestHead, ResponseHead
from sidecar.core.numbers import Numbers
from sidecar.core.observe import ObservedExchange
from sidecar.core.plain import Field
from sidecar.core.request import PLAIN, Request, Traits
from sidecar.core.routing import RoutingTable
from sidecar.core.snapshot import (
    BreakerPolicy,
    Direction,
    Endpoint,
    HedgePolicy,
    HttpVersion,
    Match,
    RetryPolicy,
    Route,
    RouteTimeouts,
    Upstream,
    UpstreamLimits,
)
from sidecar.core.tracecontext import IdSource
from sidecar.core.transition import Transition
from sidecar.forwarding.asking import Asking
from sidecar.forwarding.live import Destination, LiveRoute
from sidecar.forwarding.service import Service
from sidecar.forwarding.streams import NoClient
from sidecar.forwarding.sweep import Sweep
from sidecar.transport.link import Link
from sidecar.transport.turns import Turns
from sidecar.upstream.budget import ConnectionBudget
from sidecar.upstream.cluster import Cluster
from sidecar.upstream.lease import Fate, Lease, LeasePool, OpenSeeker, Seeker
from sidecar.upstream.streams import ClientStream, NoUpstream, Processed, ResponseSink
from tests.support.silent import Silent

HERE = Endpoint("127.0.0.1", 8080)
THERE = Endpoint("127.0.0.2", 8080)

Note = tuple[Any, ...]


class Whole(Asking):
    """Of a request that has come whole, and has the route's time."""

    def could_count(self, now: float) -> bool:
        return True

    def is_body_complete(self) -> bool:
        return True

    def is_body_whole(self) -> bool:
        return True


WHOLE = Whole()


class Handle:
    """What `call_later` gives back."""

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class HandLoop:
    """As much of an event loop as the data path asks for. Nothing happens in it by itself."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.errors: list[Exception] = []
        """What callbacks raised, and what the exception handler was told."""
        self.fired = 0
        """How many timers."""
        self._soon: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Handle, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        self._soon.append(lambda: callback(*args))

    def call_later(self, seconds: float, callback: Callable[..., None], *args: Any) -> Handle:
        handle = Handle()
        due = self.now + seconds
        heapq.heappush(self._timers, (due, next(self._numbers), handle, lambda: callback(*args)))
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context["exception"])

    @property
    def timers(self) -> int:
        """How many are armed."""
        return sum(not handle.is_cancelled for _, _, handle, _ in self._timers)

    @property
    def is_ready(self) -> bool:
        """Something is to run in the next turn."""
        return bool(self._soon)

    def turn(self) -> None:
        """Run what is ready now, once; what that makes ready is for the next turn."""
        for _ in range(len(self._soon)):
            self._run(self._soon.popleft())

    def settle(self) -> None:
        """Turn until nothing is ready."""
        for _ in range(10_000):
            if not self._soon:
                return
            self.turn()
        raise AssertionError("the loop never comes to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass; timers fire exactly when they are due."""
        end = self.now + seconds
        self.settle()
        while self._timers and self._timers[0][0] <= end:
            due, _, handle, callback = heapq.heappop(self._timers)
            self.now = max(self.now, due)
            if not handle.is_cancelled:
                self.fired += 1
                self._run(callback)
                self.settle()
        self.now = end

    def _run(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:
            self.errors.append(error)


class HandTransport(asyncio.Transport):
    """What was written to it, and what state it is in. As uvloop's, it raises when written to once closed."""

    def __init__(self, *, can_write_eof: bool = True) -> None:
        super().__init__(extra={"peername": ("192.0.2.1", 4711), "sockname": ("192.0.2.2", 80)})
        self.written = b""
        self.writes = 0
        """How often: each is a call of the system, or waits for one."""
        self.unsent = 0
        """What the other side has not taken, in bytes."""
        self.calls: list[str] = []
        self.is_paused = self.has_ended_writing = self.is_aborted = False
        self.protocol: Any = None
        self._can_write_eof = can_write_eof
        self._is_closing = False

    def write(self, data: Any) -> None:
        if self._is_closing or self.has_ended_writing:
            raise RuntimeError("written to a transport that is closed")
        self.written += bytes(data)
        self.writes += 1

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def take(self) -> bytes:
        """What was written since the last call."""
        written, self.written = self.written, b""
        return written

    def pause_reading(self) -> None:
        self._note("pause")
        self.is_paused = True

    def resume_reading(self) -> None:
        self._note("resume")
        self.is_paused = False

    def can_write_eof(self) -> bool:
        return self._can_write_eof

    def write_eof(self) -> None:
        self._note("write_eof")
        self.has_ended_writing = True

    def close(self) -> None:
        self._note("close")
        self._is_closing = True

    def abort(self) -> None:
        self._note("abort")
        self._is_closing = self.is_aborted = True

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def _note(self, call: str) -> None:
        self.calls.append(call)


def connected(protocol: Any, transport: HandTransport | None = None) -> HandTransport:
    """`protocol` with a transport."""
    transport = transport or HandTransport()
    transport.protocol = protocol
    protocol.connection_made(transport)
    return transport


class Hearing(ResponseSink):
    """A sink that notes what it hears."""

    def __init__(self) -> None:
        self.notes: list[Note] = []

    @property
    def names(self) -> list[str]:
        return [note[0] for note in self.notes]

    @property
    def body(self) -> bytes:
        return b"".join(note[1] for note in self.notes if note[0] == "data")

    def interim(self, head: ResponseHead) -> None:
        self.notes.append(("interim", head.status))

    def head(self, head: ResponseHead) -> None:
        self.notes.append(("head", head.status))

    def data(self, data: bytes) -> None:
        self.notes.append(("data", data))

    def flush(self) -> None:
        self.notes.append(("flush",))

    def end(self, trailers: Sequence[Field]) -> None:
        self.notes.append(("end", list(trailers)))

    def answered(self, head: ResponseHead, body: bytes, trailers: Sequence[Field] = ()) -> None:
        self.notes.append(("answered", head.status, body, *([list(trailers)] if trailers else [])))

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        self.notes.append(("switched", head.status, rest))

    def broken(self) -> None:
        self.notes.append(("broken",))

    def declined(self, detail: str) -> None:
        self.notes.append(("declined", detail))

    def failed(self, reason: Reason, detail: str, processed: Processed) -> None:
        self.notes.append(("failed", reason, processed))

    def blocked(self) -> None:
        self.notes.append(("blocked",))

    def writable(self) -> None:
        self.notes.append(("writable",))


class HandStream(NoUpstream):
    """An upstream's stream that notes what it is told."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.heads: list[RequestHead] = []
        self.unsent = 0

    def send_head(
        self, head: RequestHead, held: Sequence[Any] = (), trailers: Sequence[Field] | None = None
    ) -> None:
        self.heads.append(head)
        self.notes.append(("head", bytes(head.target), b"".join(held)))
        if trailers is not None:
            self.end(trailers)

    def send_data(self, data: bytes) -> None:
        self.notes.append(("data", bytes(data)))

    def end(self, trailers: Sequence[Field]) -> None:
        self.notes.append(("end", list(trailers)))

    def reset(self, reason: Reason) -> None:
        self.notes.append(("reset", reason))

    def hold(self) -> None:
        self.notes.append(("hold",))

    def resume(self) -> None:
        self.notes.append(("resume",))

    @property
    def unsent_bytes(self) -> int:
        return self.unsent


class HandLease(Lease):
    """A connection of which the test says what it hears; `heard_by` is who took it."""

    def __init__(
        self,
        pool: LeasePool,
        *,
        expires: float = inf,
        has_ended: bool = False,
        stream: HandStream | None = None,
    ) -> None:
        self.pool = pool
        self.is_reused = False
        self.idle_since = 0.0
        self.expires = expires
        self.stream = stream or HandStream()
        self.notes, self.heads = self.stream.notes, self.stream.heads
        self.begun = 0
        """How often it was taken."""
        self.fates: list[Fate] = []
        self.is_aborted = False
        self.heard_by: ResponseSink | None = None
        self._has_ended = has_ended

    def begin(self, sink: ResponseSink) -> ClientStream:
        self.heard_by = sink
        self.begun += 1
        return self.stream

    def release(self, fate: Fate, now: float) -> None:
        self.heard_by = None
        self.fates.append(fate)

    def hand_over(self, protocol: Any) -> Link:
        raise AssertionError("not asked for here")

    def cannot_switch(self, request: Request) -> str:
        return ""

    def has_ended_unseen(self) -> bool:
        return self._has_ended

    def abort(self) -> None:
        self.is_aborted = True

    @property
    def names(self) -> list[str]:
        return [note[0] for note in self.notes]


class HandClient(NoClient):
    """A client's stream that notes what it is told."""

    def __init__(self) -> None:
        self.notes: list[Note] = []

    @property
    def names(self) -> list[str]:
        return [note[0] for note in self.notes]

    @property
    def peer(self) -> tuple[str, int] | None:
        return ("192.0.2.1", 4711)

    def send_interim(self, head: ResponseHead) -> None:
        self.notes.append(("interim", head.status))

    def send_switch(self, head: ResponseHead, upgrade: bytes) -> None:
        self.notes.append(("switch", upgrade))

    def send_head(self, head: ResponseHead) -> None:
        self.notes.append(("head", head.status))

    def send_data(self, data: bytes) -> None:
        self.notes.append(("data", data))

    def send_whole(self, head: ResponseHead, body: bytes) -> None:
        self.notes.append(("whole", head.status, body))

    def flush(self) -> None:
        self.notes.append(("flush",))

    def end(self, trailers: Sequence[Field]) -> None:
        self.notes.append(("end", list(trailers)))

    def reset(self, reason: Reason) -> None:
        self.notes.append(("reset", reason))

    def hold(self) -> None:
        self.notes.append(("hold",))

    def resume(self) -> None:
        self.notes.append(("resume",))

    def hand_over(self, protocol: Any) -> tuple[Link, bytes, bool]:
        raise AssertionError("not asked for here")


class Waiting(OpenSeeker):
    """Who waits for a lease, and what came of it."""

    def __init__(self, name: str = "", told: list[Note] | None = None) -> None:
        self.name = name
        self.told: list[Note] = [] if told is None else told
        """May be shared, to see who was told first."""
        self.uncounted = 0
        """Failures that say nothing of the upstream."""

    def leased(self, lease: Lease) -> None:
        self.told.append((self.name, "leased", lease))

    def not_leased(self, reason: Reason, detail: str, *, is_counted: bool = True) -> None:
        if not is_counted:
            self.uncounted += 1
        self.told.append((self.name, "not leased", reason))


class Told(Silent):
    """An observer that keeps what it is told, as values: exchanges are live only within the call."""

    def __init__(self) -> None:
        self.finishes: list[tuple[int, Reason | None, str]] = []
        """Status, reason and detail of each exchange."""
        self.transitions: list[Transition] = []

    def finished(self, exchange: ObservedExchange) -> None:
        self.finishes.append((exchange.status, exchange.reason, exchange.detail))

    def transitioned(self, transition: Transition) -> None:
        self.transitions.append(transition)


def hand_cluster(
    loop: HandLoop,
    *endpoints: Endpoint,
    max_connections: int = 1024,
    max_pending: int = 1024,
    max_requests: int = 1024,
    budget: ConnectionBudget | None = None,
    protocol: HttpVersion = HttpVersion.HTTP1,
) -> Cluster:
    limits = UpstreamLimits(max_connections, max_pending, max_requests)
    policy = Upstream("app", endpoints or (HERE,), limits, protocol=protocol)
    turns = Turns(cast(asyncio.AbstractEventLoop, loop))
    return Cluster(policy, random.Random(7), loop.time, turns, budget or ConnectionBudget(1024))


def request(
    method: bytes = b"GET", *, length: int = 0, traits: Traits = PLAIN, listener: str = "inbound"
) -> Request:
    return Request().take(listener, method, b"/", b"/", b"app", [], {b"host": b"app"}, length, traits)


class Path:
    """A data path with one route: everything between a client's stream and an upstream's."""

    def __init__(
        self,
        *endpoints: Endpoint,
        breaker: BreakerPolicy | None = None,
        timeouts: RouteTimeouts | None = None,
        max_requests: int = 1024,
        max_connections: int = 1024,
        max_pending: int = 1024,
        retry: RetryPolicy | None = None,
        hedge: HedgePolicy | None = None,
    ) -> None:
        self.loop = HandLoop()
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.told = Told()
        breaker, timeouts = breaker or BreakerPolicy(), timeouts or RouteTimeouts()
        self.cluster = hand_cluster(
            self.loop,
            *endpoints,
            max_requests=max_requests,
            max_connections=max_connections,
            max_pending=max_pending,
        )
        self.breaker = Breaker("route", "app", breaker, random.Random(7), self.loop.now)
        self.destination = Destination(self.cluster, self.breaker)
        policy = Route(
            "route",
            "inbound",
            (Match(),),
            (("app", 1),),
            timeouts=timeouts,
            breaker=breaker,
            retry=retry or RetryPolicy(),
            hedge=hedge,
            direction=Direction.INBOUND,
        )
        self.route = LiveRoute(policy, [(self.destination, 1)], now=self.loop.now)
        self.service = Service(
            loop=loop,
            clock=self.loop.time,
            rng=random.Random(7),
            ids=IdSource(),
            numbers=Numbers(),
            observe=self.told,
            sweep=Sweep(loop, self.loop.time, turns=self.cluster.turns),
            turns=self.cluster.turns,
            callers=Callers(),
            decide=lambda _parent, _trace_id: False,
            tables={"inbound": RoutingTable([(policy, self.route)])},
        )

    def idle_lease(self, pool: int = 0, *, is_reused: bool = False) -> HandLease:
        """One more idle connection; the last one that was made is taken first."""
        of = self.cluster.pools[pool]
        lease = HandLease(of)
        lease.is_reused = is_reused
        of.idle[lease] = None
        return lease

    @property
    def in_flight(self) -> tuple[int, list[int]]:
        """Of the upstream, and of each endpoint."""
        return self.cluster.in_flight, [pool.in_flight for pool in self.cluster.pools]


class HandConnecting:
    """In the place of `Connecting`: the test says how it ends."""

    def __init__(self, pool: LeasePool, seconds: float, on_end: Any) -> None:
        self.pool = pool
        self.seconds = seconds
        self.seekers: list[Seeker] = []
        self.waits: list[Any] = []
        self.is_called_off = False
        self._on_end = on_end

    def cancel(self, seeker: Seeker) -> None:
        self.seekers.remove(seeker)
        if not self.seekers:
            self.is_called_off = True
            self._on_end(self, False)

    def open(self) -> HandLease:
        """It is there: whoever waits gets it."""
        lease = HandLease(self.pool)
        self.pool.add(lease)
        seekers, self.seekers = self.seekers, []
        self._on_end(self, True)
        for seeker in seekers:
            seeker.leased(lease)
        return lease

    def fail(self, reason: Reason = Reason.CONNECTION_REFUSED) -> None:
        seekers, self.seekers = self.seekers, []
        self._on_end(self, False)
        for seeker in seekers:
            seeker.not_leased(reason, "as the test says")


@pytest.fixture
def connectings(monkeypatch: pytest.MonkeyPatch) -> list[HandConnecting]:
    """All that are begun in the test, in order; a folder's conftest takes it from here."""
    begun: list[HandConnecting] = []

    def begin(*args: Any) -> HandConnecting:
        begun.append(HandConnecting(*args))
        return begun[-1]

    monkeypatch.setattr("sidecar.upstream.cluster.Connecting", begin)
    return begun
