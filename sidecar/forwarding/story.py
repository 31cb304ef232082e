"""An exchange as the others of this room see it: its values, and the milestones that they tell it of.

`exchange.py` is the story itself. Races, attempts, heads and lineage know this and not the exchange, so that no
module here needs itself by way of others.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NoReturn

from sidecar.core.callers import Found
from sidecar.core.contract import NO_SLOTS
from sidecar.core.deadline import Budget
from sidecar.core.errors import Reason
from sidecar.core.observe import ObservedAttempt
from sidecar.core.request import Request
from sidecar.core.transition import State, Transition
from sidecar.forwarding.asking import Asking
from sidecar.forwarding.body import RequestBody
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.permit import Refusal
from sidecar.forwarding.service import Service
from sidecar.forwarding.trace import Trace


class Story(Asking):
    """One request of one client."""

    __slots__ = NO_SLOTS

    service: Service
    request: Request
    trace: Trace
    route_name: str | None
    """None when no route matched."""
    body: RequestBody | None
    budget: Budget
    started: float
    ended: float
    status: int
    """Sent to the client; 499 if it went away first."""
    deadline: float
    due: float
    """When the sweep is to look here next."""
    moved_at: float
    """When the last byte came, either way."""
    response_bytes: int
    breaker_state: State | None
    """At admission."""
    reason: Reason | None
    detail: str
    fallback: str | None
    """What serves instead of the upstream."""
    caller: Found | None
    """The inbound exchange that this one descends from."""
    is_remembered: bool
    """The app's calls find it, by the span id of the attempt that they are made for."""

    @property
    @abstractmethod
    def peer(self) -> tuple[str, int] | None:
        """The client's address, None for UNIX sockets."""

    @property
    @abstractmethod
    def grpc_status(self) -> int | None:
        """How a gRPC call ended for its caller; None for another request."""

    @property
    @abstractmethod
    def prefix_length(self) -> int:
        """Of the target, that the route's prefix has matched; 0 unless one has."""

    @property
    @abstractmethod
    def tries(self) -> Sequence[ObservedAttempt]:
        """All attempts, the first one first."""

    @abstractmethod
    def watch(self, now: float) -> None:
        """Have the sweep look here at the next moment that may matter."""

    @abstractmethod
    def refused(self, refusal: Refusal) -> NoReturn:
        """A breaker or a limit lets no attempt go. Raises: GivenUp."""

    @abstractmethod
    def tripped_breaker(self, transition: Transition) -> None:
        """The outcome of an attempt has changed its breaker's state."""

    @abstractmethod
    def lost(self, error: GivenUp) -> None:
        """No attempt will bring a whole answer."""

    @abstractmethod
    def caller_gone(self) -> None:
        """The inbound exchange that this one descends from was cancelled (SPEC 5.4)."""

    @abstractmethod
    def abandon(self) -> None:
        """A mistake of ours broke it off: end it, and leave nothing behind."""
