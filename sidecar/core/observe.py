"""What the data path tells its observers, and an observer that says nothing.

The data path calls these methods and never learns who listens. They run on the event loop inside an
exchange, so an observer copies what it needs (plain numbers and bytes) and returns at once: it never awaits,
never does I/O, never raises. Exchanges and attempts are live objects of the loop; nothing may keep them after
the call. Times are seconds on the monotonic clock (`time.monotonic`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from sidecar.core.checked import Checked
from sidecar.core.deadline import Budget
from sidecar.core.ejection.change import EndpointChange
from sidecar.core.endpoint_facts import EndpointFacts
from sidecar.core.errors import Reason
from sidecar.core.mirrored import CopyOutcome, Mirrored
from sidecar.core.outcome import Judged
from sidecar.core.request import Request
from sidecar.core.retry import RetryCause
from sidecar.core.snapshot import Match
from sidecar.core.transition import State, Transition
from sidecar.core.untrusted import Untrusted

# What is asked for each exchange with spans is asked of the parts that have it (`pool`, `stream`, `matched`): a
# property on the way takes 700 instructions more.


class ObservedPool(Protocol):
    """The connections of one endpoint."""

    @property
    def facts(self) -> EndpointFacts: ...


class ObservedAttempt(Protocol):
    """One try against one endpoint, as an observer may read it."""

    @property
    def upstream(self) -> str: ...
    @property
    def pool(self) -> ObservedPool | None:
        """None when no endpoint could be had."""

    @property
    def span_id(self) -> bytes:
        """16 hex digits: the parent id that the upstream saw."""

    @property
    def started(self) -> float: ...
    @property
    def ended(self) -> float: ...
    @property
    def status(self) -> int:
        """The upstream's status, 0 if there was none."""

    @property
    def reason(self) -> Reason | None:
        """Why it failed; None for a complete response, whatever its status."""

    @property
    def judged(self) -> Judged:
        """What its breaker has said of it; to be asked when it is over."""

    @property
    def ejected(self) -> EndpointChange | None:
        """What its end has made of its endpoint: ejected or spared; None for nothing of that kind."""

    @property
    def resend(self) -> int:
        """How many attempts of the exchange were begun before it."""

    @property
    def is_hedge(self) -> bool:
        """It was begun beside one that was slow. Of those that ended with neither status nor reason another one was
        faster."""

    @property
    def cause(self) -> RetryCause | None:
        """Why it was begun after another one; None for the first."""

    @property
    def waited_seconds(self) -> float:
        """How long it had no connection, from its begin on; 0 where there was one."""

    @property
    def sent_ms(self) -> int | None:
        """The budget sent to the upstream, None if none was sent."""

    @property
    def grpc_status(self) -> int | None:
        """What the upstream said of a gRPC call; None for another request, and without a whole answer."""


class ObservedTrace(Protocol):
    """The ids of one exchange."""

    @property
    def trace_id(self) -> bytes:
        """32 hex digits."""

    @property
    def span_id(self) -> bytes:
        """16 hex digits: this exchange's SERVER span."""

    @property
    def parent_id(self) -> bytes | None:
        """16 hex digits, None for a trace that starts here."""

    @property
    def is_sampled(self) -> bool: ...
    @property
    def tracestate(self) -> bytes: ...
    @property
    def request_id(self) -> bytes: ...
    @property
    def untrusted(self) -> Untrusted | None:
        """What a stranger brought, whose trace starts here all the same; None for everybody else."""


class ObservedRoute(Protocol):
    """What the configuration says of it."""

    @property
    def rewriting(self) -> object | None:
        """None where it rewrites no path."""


class ObservedEntry(Protocol):
    """One match of a route."""

    @property
    def match(self) -> Match: ...


class ObservedStream(Protocol):
    """A client's one request."""

    @property
    def peer(self) -> tuple[str, int] | None:
        """The client's address, None for UNIX sockets."""


class ObservedBody(Protocol):
    """That of the request."""

    @property
    def size(self) -> int:
        """Bytes received."""


class ObservedExchange(Protocol):
    """One request from a client to the end of its response, as an observer may read it."""

    @property
    def request(self) -> Request:
        """What the client asked for. Of it nothing but listener and method may become an attribute of a metric."""

    @property
    def trace(self) -> ObservedTrace: ...
    @property
    def route_name(self) -> str | None:
        """None when no route matched."""

    @property
    def route(self) -> ObservedRoute | None:
        """The one that took it, or that passes it through; None when there is none."""

    @property
    def matched(self) -> ObservedEntry | None:
        """By which of the route's matches it was taken; None when none was."""

    @property
    def rewritten_target(self) -> bytes | None:
        """What upstreams are asked for instead; None where the route rewrites no path."""

    @property
    def stream(self) -> ObservedStream: ...
    @property
    def body(self) -> ObservedBody | None:
        """None for a request without one."""

    @property
    def started(self) -> float: ...
    @property
    def ended(self) -> float: ...
    @property
    def status(self) -> int:
        """Sent to the client; 499 if it went away first."""

    @property
    def reason(self) -> Reason | None:
        """Why the sidecar itself answered or gave up; None when the upstream's answer was relayed whole."""

    @property
    def detail(self) -> str: ...
    @property
    def response_bytes(self) -> int:
        """Body bytes relayed."""

    @property
    def budget(self) -> Budget:
        """At entry: `measured_seconds`, and its `source`."""

    @property
    def breaker_state(self) -> State | None:
        """At admission; None if no breaker was asked."""

    @property
    def refused_by(self) -> Transition | None:
        """The transition that opened the breaker which refused this exchange."""

    @property
    def tripped(self) -> Transition | None:
        """The transition that this exchange's outcome caused."""

    @property
    def grpc_status(self) -> int | None:
        """How a gRPC call ended for its caller; None for another request. One of `GrpcStatus`."""

    @property
    def fallback(self) -> str | None:
        """What served instead of the upstream: `response` or an upstream's name."""

    @property
    def attempts(self) -> Sequence[ObservedAttempt]: ...


class Notice(Enum):
    """Something small that happened on a route, and is only counted."""

    INVALID_TIMEOUT_HEADER = "invalid_timeout_header"
    """A caller's timeout header could not be read and was ignored."""
    RETRY_BUDGET_EXHAUSTED = "retry_budget_exhausted"
    """A retry was due and the retry budget forbade it."""
    HEDGE_BUDGET_EXHAUSTED = "hedge_budget_exhausted"
    """A hedge was due and a budget forbade it."""
    HEDGE_NO_ENDPOINT = "hedge_no_endpoint"
    """A hedge was due and there was no other endpoint with a place for it."""
    HEDGE_REFUSED = "hedge_refused"
    """A hedge was due and the breaker or a limit was against it."""


class Observe(Protocol):
    """The data path's only way to the outside world of logs, numbers and spans."""

    def finished(self, exchange: ObservedExchange) -> None:
        """`exchange` ended; called exactly once for each, also for those without a route."""

    def transitioned(self, transition: Transition) -> None:
        """A breaker changed its state; called in the order of its sequence numbers."""

    def checked(self, checked: Checked) -> None:
        """The sidecar itself has asked an upstream whose breaker had waited."""

    def copy_ended(self, route_name: str, upstream: str, outcome: CopyOutcome) -> None:
        """A copy of a request is over, or was not made though it was due."""

    def mirrored(self, copy: Mirrored) -> None:
        """The same of one that was sent, and whose trace is recorded."""

    def endpoint_changed(self, change: EndpointChange) -> None:
        """An endpoint is ejected, or bad and not ejected, or used again."""

    def noticed(self, notice: Notice, route_name: str) -> None:
        """Something that is only counted happened on a route."""


def nobody_asks(_exchange: ObservedExchange) -> None:
    """`Observe.finished` where neither spans are made nor lines are written: it need not be called."""
