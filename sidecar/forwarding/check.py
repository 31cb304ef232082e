"""One request by the sidecar itself: a probe of an upstream whose breaker has waited (`half_open.check`).

It takes a connection of the upstream's own pool, within the upstream's limits, and its verdict goes to the permit
that the breaker gave for it. It has a trace of its own, which the upstream sees as it sees that of any request. A
status from 200 to 399 is good; all else is a failure of the upstream, but for our own lack of a place to send it.
Owned by its `Checker`; ends with the answer, its timeout or `cancel`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from sidecar.core.checked import USER_AGENT
from sidecar.core.errors import Reason
from sidecar.core.head import NOTHING, RequestHead, ResponseHead
from sidecar.core.outcome import Kind, Limit, Outcome, is_good_check
from sidecar.core.plain import Field
from sidecar.core.request import Request
from sidecar.core.secured import TlsFacts
from sidecar.core.snapshot import CheckPolicy, Endpoint
from sidecar.core.tracecontext import FLAG_TEXT, RANDOM, SAMPLED
from sidecar.core.transition import Transition
from sidecar.forwarding import verdicts
from sidecar.forwarding.given_up import GivenUp
from sidecar.upstream.cluster import Cluster, NoPlace, Wait
from sidecar.upstream.lease import Fate, Lease, LeasePool, Seeker
from sidecar.upstream.streams import Processed, ResponseSink

if TYPE_CHECKING:
    from sidecar.core.breaker.permit import BreakerPermit
    from sidecar.forwarding.service import Service
    from sidecar.upstream.cluster import AnyPool

MAX_BODY_BYTES = 64 * 1024
"""Of an answer: beyond, its head has said enough, and the connection is cut."""


class Check(ResponseSink, Seeker):
    """See the module. It is its own culprit: what the breaker remembers of it are its ids."""

    __slots__ = (
        "_body_bytes",
        "_cluster",
        "_has_place",
        "_is_over",
        "_lease",
        "_on_end",
        "_pool",
        "_service",
        "_timer",
        "_wait",
        "_was_stale",
        "answer",
        "authority",
        "ended",
        "endpoint",
        "error",
        "is_good",
        "is_sampled",
        "is_shared",
        "permit",
        "policy",
        "request_id",
        "scheme",
        "span_id",
        "started",
        "tls",
        "trace_id",
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
        """`on_end` is called once, unless `cancel` comes first; with the change of state that its verdict made."""
        self.permit = permit
        self.policy = policy
        self.authority = authority
        """What `Host` says."""
        self.trace_id, self.span_id, _ = service.ids.for_exchange()
        self.request_id = self.trace_id
        self.is_sampled = service.decide(None, self.trace_id)
        self.answer: ResponseHead | None = None
        self.error: GivenUp | None = None
        """Why there was no whole answer."""
        self.endpoint: Endpoint | None = None
        self.is_shared = False
        """It went by HTTP/2."""
        self.scheme = "http"
        self.tls: TlsFacts | None = None
        self.is_good = False
        self.started = self.ended = service.clock()
        self._service = service
        self._cluster = cluster
        self._on_end = on_end
        self._timer = service.loop.call_later(policy.timeout_seconds, self._late)
        self._pool: LeasePool | None = None
        self._lease: Lease | None = None
        self._wait: Wait | None = None
        self._body_bytes = 0
        self._has_place = self._was_stale = self._is_over = False

    def __repr__(self) -> str:
        return f"<Check {self._cluster.name} {self.policy.path}>"

    # On its way

    def begin(self) -> None:
        """Take a place at the upstream, and send it; comes first."""
        cluster = self._cluster
        self._has_place = cluster.admit()
        if not self._has_place:
            self._fail(Reason.OVERLOADED, f"{cluster.name}: max_requests reached")
            return
        pool = self._pool = cluster.pick(cluster.at(self.permit.avoid))
        if pool is None:
            self._fail(Reason.DNS_ERROR, f"{cluster.name}: no address is known")
            return
        pool.in_flight += 1
        lease = pool.take(self.started, True) if pool.idle else None
        if lease is not None:
            self.leased(lease)
        else:
            self._seek(pool)

    def _seek(self, pool: AnyPool) -> None:
        """Have a connection opened, or wait for one."""
        wait = self._cluster.wait_for(pool, self)
        if isinstance(wait, NoPlace):
            self._fail(Reason.OVERLOADED, f"{self._cluster.name}: {wait.value}")
            return
        self._wait = wait
        if wait.connecting is not None:
            self.permit.sent(pool.endpoint, self._service.clock())

    def leased(self, lease: Lease) -> None:
        self._wait = None
        self._lease = lease
        assert self._pool is not None
        self._pool.in_flight -= 1
        self._pool = lease.pool  # it may be the first that came free, of whatever endpoint
        self._pool.in_flight += 1
        self.permit.sent(lease.pool.endpoint, self._service.clock())
        lease.begin(self).send_head(self._head())

    def not_leased(self, reason: Reason, detail: str, *, is_counted: bool = True) -> None:
        self._wait = None
        self._fail(reason if is_counted else Reason.OVERLOADED, detail)

    def _head(self) -> RequestHead:
        path = self.policy.path.encode()
        head = RequestHead()
        head.request = Request("", b"GET", path, path, self.authority, [], {})
        head.target, head.authority = path, self.authority
        head.drop, head.added = frozenset(), NOTHING
        flags = RANDOM | SAMPLED if self.is_sampled else RANDOM
        head.own = [
            b"User-Agent: ", USER_AGENT.encode(), b"\r\nAccept: */*\r\nx-request-id: ", self.request_id,
            b"\r\ntraceparent: 00-", self.trace_id, b"-", self.span_id, FLAG_TEXT[flags & 3], b"\r\n",
        ]  # fmt: skip
        return head

    # What comes back

    def interim(self, head: ResponseHead) -> None: ...

    def head(self, head: ResponseHead) -> None:
        self.answer = head

    def data(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > MAX_BODY_BYTES:
            self._end(Fate.BROKEN)

    def flush(self) -> None: ...

    def end(self, trailers: Sequence[Field]) -> None:
        self._end(Fate.REUSABLE)

    def answered(self, head: ResponseHead, body: bytes) -> None:
        self.answer = head
        self._end(Fate.REUSABLE)

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        self._fail(Reason.PROTOCOL_ERROR, "a switch to a protocol that was not asked for")

    def failed(self, reason: Reason, detail: str, processed: Processed) -> None:
        lease = self._lease
        is_stale = lease is not None and lease.is_reused and self.answer is None and not self._was_stale
        if is_stale and processed is Processed.MAYBE:
            # A pooled connection that had ended says nothing of the upstream.
            self._was_stale = True
            self._release(Fate.BROKEN)
            self._seek(cast("AnyPool", self._pool))
            return
        self._fail(reason, detail)

    def declined(self, detail: str) -> None:
        self._fail(Reason.PROTOCOL_ERROR, detail)

    def broken(self) -> None:
        self._end(Fate.BROKEN, GivenUp(Reason.CONNECTION_RESET, "an error in the sidecar", is_ours=True))

    def blocked(self) -> None: ...

    def writable(self) -> None: ...

    def _late(self) -> None:
        seconds = self.policy.timeout_seconds
        # In line for one of our own connections nothing is learned of the upstream.
        is_ours = self._wait is not None and self._wait.connecting is None
        detail = f"no {'connection came free' if is_ours else 'whole answer'} within {seconds:g} s"
        self._end(Fate.BROKEN, GivenUp(Reason.TIMEOUT, detail, is_ours=is_ours))

    # Its end

    def cancel(self) -> None:
        """It is not needed any more: let go of everything, and learn nothing."""
        if not self._is_over:
            self._let_go(Fate.BROKEN)
            self.permit.close(self._service.clock())

    def _fail(self, reason: Reason, detail: str) -> None:
        self._end(Fate.BROKEN, GivenUp(reason, detail))

    def _end(self, fate: Fate, error: GivenUp | None = None) -> None:
        if self._is_over:
            return
        self.error = error
        pool = self._pool
        if pool is not None:
            self.endpoint, self.is_shared, self.tls = pool.endpoint, pool.is_shared, pool.tls
            self.scheme = "http" if pool.secure is None else "https"
        self._let_go(fate)
        now = self.ended = self._service.clock()
        outcome = self._outcome()
        self.is_good = is_good_check(outcome)
        transition = self.permit.judge(outcome, now, self)
        self.permit.close(now)
        self._on_end(self, transition)

    def _outcome(self) -> Outcome:
        error, answer = self.error, self.answer
        if error is None and answer is not None:
            is_below = verdicts.is_refusal_below(answer, self._cluster.is_mesh)
            kind = Kind.REFUSED_BELOW if is_below else Kind.ANSWERED
            seconds = verdicts.retry_after(answer) if answer.status >= 400 else 0.0
            error_type = "" if answer.status < 400 else str(answer.status)
            return Outcome(kind, answer.status, retry_after_seconds=seconds, error_type=error_type)
        assert error is not None
        return Outcome(error.kind, limit=Limit.ROUTE, error_type=error.reason.error_type, detail=error.detail)

    def _let_go(self, fate: Fate) -> None:
        self._is_over = True
        self._timer.cancel()
        self._cluster.in_flight -= self._has_place
        if self._pool is not None:
            self._pool.in_flight -= 1
        if self._wait is not None:
            self._wait.cancel()
            self._wait = None
        self._release(fate)

    def _release(self, fate: Fate) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(fate, self._service.clock())
