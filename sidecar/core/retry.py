"""What may be tried again, when, and how often: decisions alone, for `forwarding/retrying.py`.

A retry is load that nobody asked for, so it has a budget in tokens: each request puts some in, each retry takes one.
A bound on those in flight is none where failures are fast: 2.5 times the load with each hop.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Protocol

from sidecar.core.errors import Reason
from sidecar.core.grpc_status import GrpcStatus
from sidecar.core.snapshot import RetryOn, RetryPolicy, Route, Upstream

MARK: Final = b"x-sidecar-retry"
"""The field of a request that is a retry: it is not tried again further down."""
SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Methods that change nothing (RFC 9110 9.2.1), but TRACE."""
REPEATABLE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""Idempotent methods (RFC 9110 9.2.2): may be sent once more."""
KEPT_SECONDS: Final = 1.0
"""So much of the budget is kept at most."""
LEAST_TOKENS: Final = 3.0
"""But these may always be kept, or a quiet route would never have one."""
FALLEN_SECONDS: Final = 1.0
"""An upstream without a success for so long has fallen: retries cannot help it."""
FALLS_FROM: Final = 20
"""It has so, too, once more failures in a row than this have asked for a retry. Without this, what had been kept was
spent in the second in which it fell: 2.3 times the load behind three sidecars."""
FALLS_WITHIN_SECONDS: Final = 0.02
"""But not all of them at one moment: a connection that is lost ends many requests at once."""
ROUNDING: Final = 1e-9
"""Of sums of floats: five fifths are one."""
GATEWAY_ERRORS: Final = frozenset({502, 503, 504})
MOST_REFUSED: Final = 3
"""Further endpoints that a request is sent to whose connections are refused, one after the other."""
MOST_LEFT: Final = 2
"""Further endpoints that a request is sent to since those before were suspect, whatever its route says."""


class RetryCause(Enum):
    """Why an attempt brought no answer that is wanted, and so why there was another one. Where `retry.on` has a word
    for it, it is that one."""

    NOT_CONNECTED = RetryOn.CONNECT_FAILURE.value
    REFUSED = RetryOn.REFUSED.value
    RESET = RetryOn.RESET.value
    ATTEMPT_TIMEOUT = RetryOn.ATTEMPT_TIMEOUT.value
    STATUS = "status"
    """An answer that `retry.on` names."""
    GRPC_STATUS = "grpc_status"
    """The same of a gRPC call."""
    STALE_CONNECTION = "stale_connection"
    """A pooled connection had been closed before the request came."""
    SUSPECT = "suspect"
    """It failed at an endpoint that fails often, and is sent to one that does not."""
    FALLBACK = "fallback"
    """Nothing that the upstream could mend: the fallback's is asked."""
    FAILOVER = "failover"
    """It was to show whether the upstream is well again, and did not: one that takes over is asked."""
    HEDGE = "hedge"
    """None so far, and it is slow: the other one was begun beside it."""
    OTHER = "other"
    """Nothing that another try could mend."""

    @property
    def has_reached_nobody(self) -> bool:
        """It is certain that the request was not acted on."""
        return self in (RetryCause.NOT_CONNECTED, RetryCause.REFUSED)


_BY_REASON: Final = {
    Reason.CONNECTION_REFUSED: RetryCause.NOT_CONNECTED,
    Reason.CONNECTION_TIMEOUT: RetryCause.NOT_CONNECTED,
    Reason.DNS_ERROR: RetryCause.NOT_CONNECTED,
    Reason.CONNECTION_RESET: RetryCause.RESET,
    Reason.INCOMPLETE_RESPONSE: RetryCause.RESET,
    Reason.TIMEOUT: RetryCause.ATTEMPT_TIMEOUT,
}
_ON: Final = {
    RetryCause.NOT_CONNECTED: RetryOn.CONNECT_FAILURE,
    RetryCause.REFUSED: RetryOn.REFUSED,
    RetryCause.RESET: RetryOn.RESET,
    RetryCause.ATTEMPT_TIMEOUT: RetryOn.ATTEMPT_TIMEOUT,
}


def cause_of(reason: Reason, *, is_unprocessed: bool) -> RetryCause:
    """Of an attempt without a whole answer. `is_unprocessed`: its upstream, or the sidecar before it, has done
    nothing with the request, and said so."""
    return RetryCause.REFUSED if is_unprocessed else _BY_REASON.get(reason, RetryCause.OTHER)


def is_wanted(policy: RetryPolicy, cause: RetryCause) -> bool:
    """Whether the route names this among what it wants to have tried again."""
    wanted = _ON.get(cause)
    return wanted is not None and wanted in policy.on


def causes_at(route: Route, name: str, upstreams: Mapping[str, Upstream]) -> list[RetryCause]:
    """Why a further attempt of the route may come to the upstream `name`, by what the route and its upstreams say."""
    policy = route.retry
    causes = [RetryCause.NOT_CONNECTED, RetryCause.REFUSED, RetryCause.STALE_CONNECTION, RetryCause.SUSPECT]
    if policy.attempts:
        causes += (
            cause for cause in (RetryCause.RESET, RetryCause.ATTEMPT_TIMEOUT) if is_wanted(policy, cause)
        )
        if any(
            isinstance(one, int) or one in (RetryOn.STATUS_5XX, RetryOn.GATEWAY_ERROR) for one in policy.on
        ):
            causes.append(RetryCause.STATUS)
        if is_wanted_after(policy, 200, GrpcStatus.UNAVAILABLE):
            causes.append(RetryCause.GRPC_STATUS)
    if route.fallback is not None and route.fallback.upstream and name not in dict(route.upstreams):
        causes.append(RetryCause.FALLBACK)
    ways = (upstreams[asked].failover for asked in route.asked_upstreams(upstreams))
    if any(way is not None and name in way.to for way in ways):
        causes.append(RetryCause.FAILOVER)
    return causes


def cause_after(policy: RetryPolicy, status: int, grpc_status: int | None) -> RetryCause:
    """Of an answer; OTHER if the route does not want it tried again. `grpc_status`: None unless it is one to a gRPC
    call."""
    if not is_wanted_after(policy, status, grpc_status):
        return RetryCause.OTHER
    return RetryCause.STATUS if grpc_status is None else RetryCause.GRPC_STATUS


def is_wanted_after(policy: RetryPolicy, status: int, grpc_status: int | None) -> bool:
    """The same of an answer."""
    if grpc_status is not None:
        # What an intermediary means by 502, 503 or 504 is UNAVAILABLE (gRPC's http-grpc-status-mapping).
        is_unavailable = grpc_status == GrpcStatus.UNAVAILABLE
        return is_unavailable and not {RetryOn.GATEWAY_ERROR, RetryOn.STATUS_5XX, 503}.isdisjoint(policy.on)
    if status in policy.on or (status >= 500 and RetryOn.STATUS_5XX in policy.on):
        return True
    return status in GATEWAY_ERRORS and RetryOn.GATEWAY_ERROR in policy.on


class Random(Protocol):
    def random(self) -> float: ...


def wait_seconds(policy: RetryPolicy, retries: int, asked_seconds: float, rng: Random) -> float:
    """How long to wait before the next one: anything up to a bound that doubles (full jitter), and not less than the
    upstream has asked for by `Retry-After`. `retries`: how many there were."""
    bound = min(policy.base_seconds * 2.0 ** min(retries, 30), policy.max_seconds)
    return asked_seconds + rng.random() * bound


class RetryBudget:
    """Of one route and upstream. Times are monotonic seconds, and its methods are called in their order.

    Two stores: what requests have put in, of which that of one second is kept, and `min_per_second`, which comes by
    itself. An upstream that has fallen gets the latter alone: what was kept would double its load just as it falls.
    """

    __slots__ = (
        "_asked", "_before", "_begun", "_counted", "_earned", "_fed_at", "_free", "_least_a_second", "_ratio",
        "_seen", "_seen_at", "_until_begun", "requests", "second_ends",
    )  # fmt: skip

    def __init__(self, ratio: float, min_per_second: float, now: float, requests: int = 0) -> None:
        """`requests`: of those that `count` is told of, how many came before and put nothing in."""
        self._ratio = ratio
        self._least_a_second = min_per_second
        self._earned = 0.0
        self._free = LEAST_TOKENS if min_per_second else 0.0
        self._fed_at = now
        self._begun = now
        """Of the present second."""
        self.second_ends = now + KEPT_SECONDS
        """A request before it is one more in `requests`; see `put`."""
        self.requests = self._until_begun = self._counted = requests
        """In all, before the present second, and those that `_earned` knows of."""
        self._before = 0
        """In the second before it."""
        self._seen = -1
        self._asked = 0
        """Calls of `take` since the last success."""
        self._seen_at = now

    def put(self, now: float) -> None:
        """A request has come."""
        if now < self.second_ends:
            self.requests += 1
        else:
            self.begin_second(now)

    def begin_second(self, now: float) -> None:
        """A request has come, the first one of another second."""
        gone = now - self._begun
        self._before = self.requests - self._until_begun if gone < 2.0 * KEPT_SECONDS else 0
        self._until_begun = self.requests
        self._begun = now - gone % KEPT_SECONDS
        self.second_ends = self._begun + KEPT_SECONDS
        self.requests += 1

    def count(self, requests: int, now: float) -> None:
        """In the place of `put`, where nobody calls it: so many have come in all. They are taken for evenly spread
        over the time since the last call that was more than a second ago."""
        gone = now - self._begun
        if gone >= KEPT_SECONDS:
            self._before = int((requests - self._until_begun) / gone * KEPT_SECONDS)
            self._until_begun = requests
            self._begun = now
            self.second_ends = now + KEPT_SECONDS
        self.requests = requests

    def take(self, now: float, successes: int) -> bool:
        """Whether one more retry may be sent now; it is taken off if so. `successes`: of the upstream, counted since
        whenever; where they have not grown for a second, or in spite of many calls, it has fallen."""
        self._look(now, successes)
        self._asked += 1
        if not self._has_one(now):
            return False
        if self._free >= 1.0:
            self._free -= 1.0
        else:
            self._earned -= 1.0
        return True

    def may_take(self, now: float, successes: int) -> bool:
        """Whether `take` would say so. Nothing is taken off, and it is no call of that one."""
        self._look(now, successes)
        return self._has_one(now)

    def _look(self, now: float, successes: int) -> None:
        if successes != self._seen:
            self._seen, self._seen_at, self._asked = successes, now, 0
        self._feed(now)

    def _has_one(self, now: float) -> bool:
        if self._free >= 1.0:
            return True
        return self._earned >= 1.0 - ROUNDING and not self._has_fallen(now - self._seen_at)

    def _has_fallen(self, seconds: float) -> bool:
        """`seconds`: since the first failure after the last success."""
        return seconds > FALLEN_SECONDS or (self._asked > FALLS_FROM and seconds > FALLS_WITHIN_SECONDS)

    def give_back(self) -> None:
        """What was taken last is not sent. It goes where requests put theirs, of which a second's worth is kept."""
        self._earned += 1.0

    def _feed(self, now: float) -> None:
        most_free = max(self._least_a_second * KEPT_SECONDS, LEAST_TOKENS) if self._least_a_second else 0.0
        self._free = min(self._free + self._least_a_second * max(now - self._fed_at, 0.0), most_free)
        self._fed_at = now
        self._earned += self._ratio * (self.requests - self._counted)
        self._counted = self.requests
        self._earned = min(self._earned, max(self._ratio * self._lately(now), LEAST_TOKENS))

    def _lately(self, now: float) -> float:
        """Requests in the last second, those of the one before in proportion."""
        gone = now - self._begun
        if gone >= 2.0 * KEPT_SECONDS:
            return 0.0
        if gone >= KEPT_SECONDS:
            return (self.requests - self._until_begun) * (2.0 - gone / KEPT_SECONDS)
        return self.requests - self._until_begun + self._before * (1.0 - gone / KEPT_SECONDS)
