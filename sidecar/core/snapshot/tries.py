"""Attempts after the first one, beside it, and copies."""

from __future__ import annotations

from enum import Enum

from sidecar.core.dataclass import dataclass


class RetryOn(Enum):
    """After what a request is tried again; a status may stand beside them."""

    CONNECT_FAILURE = "connect_failure"
    """Refused, no such name, no connection in time: it has reached nobody."""
    REFUSED = "refused"
    """The upstream has said that it did nothing with it, or the breaker of the next sidecar was open."""
    RESET = "reset"
    ATTEMPT_TIMEOUT = "attempt_timeout"
    STATUS_5XX = "5xx"
    GATEWAY_ERROR = "gateway_error"
    """502, 503, 504."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    attempts: int = 0
    """Tries after the first; 0: none."""
    on: frozenset[RetryOn | int] = frozenset({RetryOn.CONNECT_FAILURE, RetryOn.REFUSED})
    base_seconds: float = 0.025
    max_seconds: float = 0.25
    ratio: float = 0.2
    """Retries that each request allows."""
    min_per_second: float = 3.0
    is_non_idempotent: bool = False
    """Methods that are not idempotent are tried again too, where the upstream may have acted on the request."""
    buffer_bytes: int = 64 * 1024
    """A longer request body is not kept, and not sent again."""
    is_nested: bool = False
    """What is a retry already is tried again."""


P95 = "p95"
"""What a route's own answers took, in the place of a duration."""


@dataclass(frozen=True, slots=True)
class HedgePolicy:
    """A second try beside one that is slow, of requests that do no harm if they are sent twice."""

    after: float | str = P95
    """Seconds from the beginning of a try, or `p95` of the route's own recent successes."""
    most: int = 1
    """Of one request; each begins `after` later than the one before."""


@dataclass(frozen=True, slots=True)
class MirrorPolicy:
    """A copy of requests for another upstream, whose answers nobody gets."""

    upstream: str = ""
    share: float = 1.0
    """Of the requests."""
    methods: frozenset[str] = frozenset({"GET", "HEAD", "OPTIONS"})
    """The safe ones (RFC 9110 9.2.1), unless the route says more."""
    buffer_bytes: int = 64 * 1024
    """Of a body that the copy's upstream has not taken yet; a copy that falls behind further is cut."""
    attempt_seconds: float = 5.0
    """For a whole copy, its answer included."""
    most_in_flight: int = 64
    """Copies at a time; further requests are not copied."""
