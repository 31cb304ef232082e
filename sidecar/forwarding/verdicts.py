"""What of an answer, and of who set the time, the breaker wants to know. No rule of the breaker's own is here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sidecar.core.grpc_status import GrpcStatus, from_http
from sidecar.core.http_date import seconds_of
from sidecar.core.outcome import Limit, Verdict, judge_status
from sidecar.core.plain import Field
from sidecar.forwarding import grpc

if TYPE_CHECKING:
    from sidecar.core.head import ResponseHead
    from sidecar.core.snapshot import BreakerPolicy
    from sidecar.forwarding.live import LiveRoute
    from sidecar.forwarding.story import Story

MAX_RETRY_AFTER_DIGITS = 6
"""A longer number of seconds is none that anybody means."""
MOST_RETRY_AFTER_SECONDS = 999_999.0
"""Of a date, the same."""


def limit(story: Story, route: LiveRoute, allowed_seconds: float, fails_at: float) -> tuple[Limit, float]:
    """Who set the time of an attempt, and how long the route's own limit is, less the deadline's offset."""
    offset = route.deadline.offset_seconds
    if fails_at < story.deadline:
        own = min(route.attempt_seconds, route.head_seconds)
    elif allowed_seconds < story.deadline - story.started and route.attempt_seconds <= allowed_seconds:
        own = route.attempt_seconds
    elif story.budget.source in ("", "route"):
        own = route.request_seconds
    else:
        is_stranger = story.request.listener in story.service.strangers
        return (Limit.STRANGER if is_stranger else Limit.CALLER), 0.0
    return Limit.ROUTE, max(own - min(offset, own / 10.0), 0.0)


def is_marked(head: ResponseHead, policy: BreakerPolicy) -> bool:
    """Whether a field of `failure_header` makes the answer a failure."""
    marks = policy.failure_headers
    return bool(marks) and any((key, value) in marks for key, _, value in head.fields)


def is_failure(head: ResponseHead, policy: BreakerPolicy) -> bool:
    """Whether the policy counts the answer as one, by its head alone."""
    return judge_status(head.status, is_marked(head, policy), policy) is Verdict.FAILURE


def retry_after(head: ResponseHead) -> float:
    """Seconds of `Retry-After` (RFC 9110 10.2.3); 0 without one that can be read."""
    for key, _, value in head.fields:
        if key == b"retry-after":
            if value.isdigit():
                return float(int(value)) if len(value) <= MAX_RETRY_AFTER_DIGITS else 0.0
            return _until(value, head)
    return 0.0


def _until(value: bytes, head: ResponseHead) -> float:
    """Seconds until a date, from the answer's own `Date` on, so that no two clocks have to agree; 0 for one that has
    come, and where either is none."""
    written = [field for key, _, field in head.fields if key == b"date"]
    until, now = seconds_of(value), seconds_of(written[0]) if written else None
    return 0.0 if until is None or now is None else min(max(until - now, 0.0), MOST_RETRY_AFTER_SECONDS)


def asks_to_wait(head: ResponseHead, trailers: Sequence[Field]) -> float:
    """Seconds that an answer asks to wait before another try, by `grpc-retry-pushback-ms` (gRFC A6) or `Retry-After`;
    below 0: there is to be none."""
    for key, _, value in (*trailers, *head.fields):
        if key == b"grpc-retry-pushback-ms":
            is_number = value.isdigit() and len(value) <= MAX_RETRY_AFTER_DIGITS + 3
            return int(value) / 1000.0 if is_number else -1.0
    return retry_after(head)


def is_refusal_below(head: ResponseHead, is_mesh: bool) -> bool:
    """Whether the breaker of the next sidecar was open: its `Proxy-Status` (RFC 9209) says so, and it is one of
    ours. It tells a gRPC caller by a 200 whose head has the `grpc-status`."""
    if head.status != 503 and (head.status != 200 or grpc.status_in(head.fields) != GrpcStatus.UNAVAILABLE):
        return False
    said = shown = False
    for key, _, value in head.fields:
        if key == b"proxy-status":
            said = said or _is_said_in(value)
        elif key == b"via":
            shown = shown or b"sidecar" in value
    return said and (is_mesh or shown)


def grpc_status(head: ResponseHead, trailers: Sequence[Field]) -> int | None:
    """What a whole answer says of a gRPC call: `grpc-status` of the trailers, or of a head that is trailers too;
    without one by the HTTP status (SPEC-PROTOCOLS 12)."""
    said = grpc.status_in(trailers)
    if said is None:
        said = grpc.status_in(head.fields)
    if said is None:
        by_http = from_http(head.status)
        said = None if by_http is None else int(by_http)
    return said


def _is_said_in(proxy_status: bytes) -> bool:
    """Whether one of its members is a sidecar's and says that a breaker is open. A comma in a quoted text cuts that
    text, whose first word is what is asked for."""
    return any(
        member.lstrip().startswith(b"sidecar;") and b"circuit_open" in member
        for member in proxy_status.split(b",")
    )


def told_grpc_status(head: ResponseHead, trailers: Sequence[Field]) -> int:
    """The same for logs and spans: an answer that does not say it is UNKNOWN to its caller."""
    said = grpc.status_in(trailers)
    if said is None:
        said = grpc_status(head, ())
    return grpc.UNKNOWN if said is None else said
