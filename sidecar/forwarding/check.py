"""One request by the sidecar itself: a probe of an upstream whose breaker has waited (`half_open.check`).

It takes a connection of the upstream's own pool, within the upstream's limits, and its verdict goes to the permit
that the breaker gave for it. It has a trace of its own, which the upstream sees as it sees that of any request. What
is no good answer is a failure of the upstream, but for our own lack of a place to send it, and a loop of ours that
was held. Owned by its `Checker`; ends with its request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from sidecar.core.checked import USER_AGENT
from sidecar.core.endpoint_facts import NO_ENDPOINT
from sidecar.core.errors import Reason
from sidecar.core.grpc_status import GrpcStatus
from sidecar.core.head import ResponseHead
from sidecar.core.outcome import Kind, Limit, Outcome, is_good_check
from sidecar.core.snapshot import CheckKind, CheckPolicy
from sidecar.core.transition import Transition
from sidecar.forwarding import verdicts
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.own_request import Ids, OwnRequest, Way, complaint
from sidecar.forwarding.pulse import Pulse
from sidecar.upstream.cluster import Cluster, NoPlace, Wait
from sidecar.upstream.lease import Lease, LeasePool

if TYPE_CHECKING:
    from sidecar.core.breaker.permit import BreakerPermit
    from sidecar.forwarding.service import Service
    from sidecar.upstream.cluster import AnyPool


class Check(Way):
    """See the module. It is its own culprit: what the breaker remembers of it are its ids."""

    __slots__ = (
        "_cluster", "_has_place", "_on_end", "_pool", "_pulse", "_service", "_wait", "facts", "ids",
        "is_good", "permit", "request",
    )  # fmt: skip

    def __init__(
        self,
        service: Service,
        cluster: Cluster,
        permit: BreakerPermit,
        policy: CheckPolicy,
        authority: bytes,
        on_end: Callable[[Check, Transition | None], None],
    ) -> None:
        """`authority`: what `Host` says. `on_end` is called once, unless `cancel` comes first; with the change of
        state that its verdict made."""
        self.permit = permit
        self.ids = Ids(service, is_traced=True)
        self.facts = NO_ENDPOINT
        """Of where it went, once it is over."""
        self.is_good = False
        self._service = service
        self._cluster = cluster
        self._on_end = on_end
        self._pool: LeasePool | None = None
        self._wait: Wait | None = None
        self._has_place = False
        self.request = OwnRequest(service, policy, self, self.ids, USER_AGENT, authority, self._ended)
        self._pulse = Pulse(service)

    def __repr__(self) -> str:
        return f"<Check {self._cluster.name} {self.request!r}>"

    @property
    def trace_id(self) -> bytes:
        return self.ids.trace_id

    @property
    def is_sampled(self) -> bool:
        return self.ids.is_sampled

    @property
    def span_id(self) -> bytes:
        return self.ids.span_id

    @property
    def request_id(self) -> bytes:
        return self.ids.trace_id

    @property
    def answer(self) -> ResponseHead | None:
        return self.request.answer

    @property
    def error(self) -> GivenUp | None:
        """Why there was no whole answer."""
        return self.request.error

    # Its way to the upstream

    def begin(self) -> None:
        """Comes first."""
        self._pulse.begin()
        self.request.begin()

    def seek(self, request: OwnRequest) -> GivenUp | None:
        """A place at the upstream, and a connection there; once more where the first one had ended unseen."""
        cluster, again = self._cluster, cast("AnyPool | None", self._pool)
        if again is None:
            self._has_place = cluster.admit()
            if not self._has_place:
                return GivenUp(Reason.OVERLOADED, cluster.why_full)
        pool = cluster.pick_for_probe(self.permit.avoid) if again is None else again
        if pool is None:
            return GivenUp(Reason.DNS_ERROR, f"{cluster.name}: no address is known")
        if again is None:
            self._pool = pool
            pool.in_flight += 1
            pool.begun_at = request.started
            may_reuse = request.policy.kind is not CheckKind.TCP
            lease = pool.take(request.started, True) if may_reuse and pool.idle else None
            if lease is not None:
                request.leased(lease)
                return None
        wait = cluster.wait_for(pool, request)
        if isinstance(wait, NoPlace):
            return GivenUp(Reason.OVERLOADED, f"{cluster.name}: {wait.value}")
        self._wait = wait
        if wait.connecting is not None:
            self.permit.sent(pool.endpoint, self._service.clock())
        return None

    def leased(self, lease: Lease) -> None:
        self._wait = None
        assert self._pool is not None
        self._pool.in_flight -= 1
        self._pool = lease.pool  # it may be the first that came free, of whatever endpoint
        self._pool.in_flight += 1
        self.permit.sent(lease.pool.endpoint, self._service.clock())

    def not_leased(self) -> None:
        self._wait = None

    def is_ours(self) -> bool:
        return self._wait is not None and self._wait.connecting is None

    def leave(self, request: OwnRequest) -> None:
        self._pulse.end()
        self._cluster.in_flight -= self._has_place
        pool = self._pool
        if pool is not None:
            pool.in_flight -= 1
            self.facts = pool.facts
        if self._wait is not None:
            self._wait.cancel()
            self._wait = None

    # Its end

    def cancel(self) -> None:
        """It is not needed any more: let go of everything, and learn nothing."""
        self.request.cancel()
        self.permit.close(self._service.clock())

    def _ended(self, request: OwnRequest) -> None:
        now = request.ended
        outcome = self._outcome(request)
        self.is_good = is_good_check(outcome)
        transition = self.permit.judge(outcome, now, self)
        self.permit.close(now)
        self._cluster.settle(now)
        self._on_end(self, transition)

    def _outcome(self, request: OwnRequest) -> Outcome:
        error, answer, wrong = request.error, request.answer, complaint(request)
        if error is not None:
            kind = Kind.ABANDONED if request.was_held else error.kind
            return Outcome(kind, limit=Limit.ROUTE, error_type=wrong, detail=error.detail)
        if answer is None:
            return Outcome(Kind.ANSWERED, 200)  # a connection was all that was asked for
        is_below = verdicts.is_refusal_below(answer, self._cluster.is_mesh)
        kind = Kind.REFUSED_BELOW if is_below else Kind.ANSWERED
        grpc_status = int(GrpcStatus.UNAVAILABLE) if wrong and answer.status == 200 else None
        return Outcome(
            kind,
            answer.status,
            retry_after_seconds=verdicts.retry_after(answer) if answer.status >= 400 else 0.0,
            error_type=wrong,
            grpc_status=grpc_status,
        )
