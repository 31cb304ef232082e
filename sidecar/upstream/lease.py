"""A place on a connection, and what its connection needs of the pool that it comes from and goes back to.

For HTTP/1.1 the place is the whole connection. Contracts alone, so that connection, pool and cluster each know these
and not one another.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence, Sized
from enum import Enum, auto
from typing import Any, Final

from mypy_extensions import mypyc_attr, trait

from sidecar.core.contract import NO_SLOTS
from sidecar.core.ejection.change import EndpointChange
from sidecar.core.ejection.peers import Peers
from sidecar.core.ejection.standing import Standing
from sidecar.core.endpoint_facts import EndpointFacts
from sidecar.core.errors import Reason
from sidecar.core.memory_budget import MemoryBudget
from sidecar.core.numbers import Histogram
from sidecar.core.request import Request
from sidecar.core.secured import TlsFacts
from sidecar.core.snapshot import Endpoint
from sidecar.transport.channel import Channel
from sidecar.transport.tls.client import ServerIdentity
from sidecar.transport.turns import Turns
from sidecar.upstream.departure import Departure
from sidecar.upstream.streams import ClientStream, ResponseSink

CLOSED_AT_ONCE: Final = "upstream closed the connection as soon as it was open"
"""Why there is no lease on a connection that was just opened."""


class Fate(Enum):
    """What becomes of a stream's place when its attempt lets go of it."""

    REUSABLE = auto()
    """Request and response were whole: the next may have it."""
    BROKEN = auto()
    """One of them was not."""
    HANDED_OVER = auto()
    """The connection is a tunnel's now."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Lease(ABC):
    """A place on a connection for one request."""

    __slots__ = NO_SLOTS

    pool: LeasePool
    """Of its endpoint."""
    is_reused: bool
    """It has carried requests before: an end without a byte of the response then says nothing of the upstream."""
    idle_since: float
    """When the last response ended, in seconds on the loop's clock."""
    expires: float
    """From here on the upstream may close it at any moment, as it has said; infinite if it has not."""

    @abstractmethod
    def begin(self, sink: ResponseSink) -> ClientStream:
        """Take it for one request; from now on `sink` hears of the response."""

    @abstractmethod
    def release(self, fate: Fate, now: float) -> None:
        """Let go of it: exactly once for each `begin`. The sink hears nothing more, whatever arrives."""

    @abstractmethod
    def hand_over(self, protocol: Any) -> Channel:
        """After a switch: `protocol` hears what arrives; the place counts as taken until `release`."""

    @abstractmethod
    def cannot_switch(self, request: Request) -> str:
        """Why this connection, as far as it is known, has no way to carry the `Upgrade` that the request asks for;
        empty if it may have."""

    @abstractmethod
    def has_ended_unseen(self) -> bool:
        """Whether the upstream has closed it, or said something, that the loop has not read yet."""

    @abstractmethod
    def abort(self) -> None:
        """Close at once, in whatever state. The sink hears nothing more."""


@mypyc_attr(allow_interpreted_subclasses=True)
@trait
class Seeker(ABC):
    """Who waits for a lease: an attempt. One of the two is called, once, unless the wait was called off."""

    __slots__ = ()

    @abstractmethod
    def leased(self, lease: Lease) -> None: ...

    @abstractmethod
    def not_leased(self, reason: Reason, detail: str, *, is_counted: bool = True) -> None:
        """`is_counted`: it says something of the upstream. One failure is one, however many waited for it."""

    def opening(self, pool: LeasePool) -> None:  # noqa: B027  # most need not know
        """It stood in line, and a connection to this endpoint is being opened for it now."""

    def may_use(self, pool: LeasePool) -> bool:
        """Whether a connection to this endpoint will do, too, which is usable, and not the one that was chosen."""
        return True


@mypyc_attr(allow_interpreted_subclasses=True)
class OpenSeeker(Seeker):
    """What a class extends that is not compiled, as in tests: it can't extend a trait."""

    __slots__ = NO_SLOTS


class LeasePool(ABC):
    """The connections of one endpoint, as a connection sees them."""

    __slots__ = NO_SLOTS

    endpoint: Endpoint
    cluster: LeaseLine
    in_flight: int
    """Attempts at this endpoint."""
    lingering: int
    """Attempts that have failed, and still count in its load."""
    begun_at: float
    """When the last attempt here began, in seconds on the loop's clock."""
    standing: Standing
    """What is thought of the endpoint by what came back from it."""
    is_retired: bool
    """Its endpoint has left: connections are not kept any more."""
    idle: dict[Lease, None]
    """Ready for the next attempt, the youngest last. A dict, since one that closes is found in it at once."""
    is_shared: bool
    """Its connections carry many requests at a time."""
    secure: ServerIdentity | None
    """Who has to be there, and how a TLS connection begins; None: in clear text."""
    facts: EndpointFacts
    """What log and spans tell of an attempt here."""
    is_own_pod: bool
    """Its last connection is served by a listener of this process (`Departure.own_pod`)."""

    def meet(self, endpoint: Endpoint) -> None:
        """Its endpoint is the same one, and something else is known of it."""
        self.endpoint = endpoint
        facts, told = self.facts, self.facts.endpoint
        if told is None or told.facts != endpoint.facts:
            self.facts = EndpointFacts(endpoint, facts.http_version, facts.scheme, facts.tls)

    def shaken(self, tls: TlsFacts) -> None:
        """A handshake with it came to this. Most come to the same: then nothing is made anew."""
        facts = self.facts
        if tls != facts.tls:
            self.facts = EndpointFacts(facts.endpoint, facts.http_version, facts.scheme, tls)

    @abstractmethod
    def new_connection(self) -> Any:
        """A protocol, as loops want one, for a connection to its endpoint."""

    @abstractmethod
    def add(self, connection: Any) -> None:
        """Count a connection that was just opened."""

    @abstractmethod
    def hand_out(self, connection: Any, seekers: Sequence[Seeker]) -> list[Seeker]:
        """Give a new connection to those who wait for it; returns whom it has no place for."""

    @abstractmethod
    def forget(self, connection: Any) -> None:
        """A connection has closed, idle or not."""


class SharingPool(LeasePool):
    """The connections of one endpoint that carry many requests at a time, as such a connection sees them."""

    __slots__ = NO_SLOTS

    may_ping: bool
    """The endpoint bears being asked for a sign of life."""
    stream_limit: int
    """How many streams its last connection allowed at once: held to on the next one until that has said so itself."""

    @abstractmethod
    def came_free(self, connection: Any, now: float) -> None:
        """One more stream may fit on it."""


class LeaseLine(ABC):
    """Who waits for a connection of an upstream, as a connection that comes free sees it."""

    __slots__ = NO_SLOTS

    turns: Turns
    memory: MemoryBudget
    """Of all connections of this process."""
    waits: Sized
    waited: Histogram
    """Seconds that attempts were without a connection before they had one, or gave up."""
    is_mesh: bool
    """A sidecar of ours stands there too."""
    peers: Peers
    """What is thought of its endpoints."""
    idle_timer: asyncio.TimerHandle | None
    departure: Departure
    """How connections are made."""

    @abstractmethod
    def pool_speaking(self, pool: LeasePool, alpn: str | None) -> LeasePool:
        """The pool for a connection that was opened for `pool`, by what its handshake has agreed on.

        Raises:
            TlsFailed: it is not what the upstream has to speak.
        """

    @abstractmethod
    def linger(self, pool: Any, seconds: float) -> None:
        """An attempt at this endpoint has failed: it counts in its load for so long."""

    @abstractmethod
    def settle(self, now: float) -> EndpointChange | None:
        """Act on what endpoints have turned out to be, if there is news, and tell it. Returns the last one that is
        bad."""

    @abstractmethod
    def open_more(self, pool: LeasePool) -> None:
        """Open another connection, though nobody waits for one, if the limits allow it."""

    @abstractmethod
    def suits_first(self, pool: LeasePool) -> bool:
        """Whether the first who waits, if anybody does, may have a connection to this endpoint."""

    @abstractmethod
    def hand_to_waiter(self, lease: Lease) -> bool:
        """Give it to the first who waits, or close it to make room for a connection that it may use; False when it
        is to lie idle."""

    @abstractmethod
    def watch_idle(self, now: float) -> None:
        """Have idle connections closed when their time is up."""

    @abstractmethod
    def connection_closed(self) -> None:
        """A connection, or the attempt to open one, has ended."""
