"""The story of one request, top to bottom. The only place that knows the order of the policies:

    begin:     identity → route → deadline → admission → breaker → limits → endpoint → an `Attempt` sends
               (the attempt passes head and body from the upstream's connection to the client's)
    completed: settle with the breaker → finish
    fail:      once more where that is safe → settle → fall back, answer or cut → finish

Each line is a method that a milestone calls, in this order in the file. (A coroutine that the callbacks resume reads
as well and was measured 2.5 µs slower for each request.) Whatever ends an exchange early, a dead
upstream, the deadline, a client that leaves, comes to `fail`, at whatever milestone the exchange waits.

The event loop owns an exchange; it lives in `Service.exchanges` from `begin` to `_finish`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.core import deadline, headers, tracecontext
from sidecar.core.admission import Admission as BudgetAdmission
from sidecar.core.breaker import Breaker
from sidecar.core.breaker_admission import Admission
from sidecar.core.callers import Found
from sidecar.core.errors import Reason
from sidecar.core.observe import Notice
from sidecar.core.outcome import Kind, Outcome, Verdict, judge
from sidecar.core.path import has_dot_segment
from sidecar.core.plain import Field
from sidecar.core.snapshot import FallbackPolicy
from sidecar.core.transition import State, Transition
from sidecar.forwarding import heads, lineage
from sidecar.forwarding.attempt import Attempt
from sidecar.forwarding.client import Client
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.live import IDLE_CHECKS, Destination, LiveRoute
from sidecar.forwarding.request_body import RequestBody
from sidecar.forwarding.service import Service
from sidecar.forwarding.sweep import OWN_TIMER_SECONDS, TICKS_PER_SECOND, Expiring, Sweep
from sidecar.forwarding.traits import PLAIN
from sidecar.forwarding.tunnel import Tunnel
from sidecar.upstream.cluster import Cluster
from sidecar.upstream.pool import Pool

REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""Idempotent methods (RFC 9110 9.2.2): may be sent once more when a pooled connection turns out to be closed."""

FALLBACK_FOR = frozenset({
    Reason.CIRCUIT_OPEN, Reason.OVERLOADED, Reason.TIMEOUT, Reason.CONNECTION_TIMEOUT,
    Reason.CONNECTION_REFUSED, Reason.DNS_ERROR, Reason.CONNECTION_RESET,
})  # fmt: skip
"""What a fallback may stand in for, as long as no head was sent."""

CLIENT_GONE_STATUS = 499

# Read from module globals in the hot path: an enum's own lookup costs 15 to 50 ns each time.
_ANSWERED = Kind.ANSWERED
_SUCCESS = Verdict.SUCCESS
_CLIENT_GONE = Reason.CLIENT_GONE
SAMPLED = tracecontext.SAMPLED
RANDOM = tracecontext.RANDOM
_NEW_SAMPLED = RANDOM | SAMPLED

_NO_BUDGET = deadline.Budget(0.0, "")


class Exchange:
    """One request of one client. Its public attributes are those of `core.observe.ObservedExchange`."""

    __slots__ = (
        "_admission", "_attempt", "_breaker", "_client_span_id", "_cluster", "_fell_back_for", "_is_over",
        "_quiet_checks", "_quiet_mark", "_was_refused", "_was_stale", "attempts", "body", "breaker_state",
        "bucket", "budget", "caller", "client", "deadline", "detail", "due", "ended", "fails_at", "fallback",
        "fields", "flags", "host", "is_head_sent", "is_sampled", "keep_alive", "listener", "lookup", "method",
        "origin_target", "own_member", "parent_id", "prefix_length", "reason", "refusal", "refused_by",
        "remembered_as", "request_id", "response_bytes", "route", "route_name", "service", "span_id", "started",
        "status", "target", "trace_id", "tracestate", "traits", "tripped", "tunnel",
    )  # fmt: skip

    trace_id: bytes
    """Of the trace context, with the next three (see `tracecontext.TraceContext`)."""
    parent_id: bytes | None
    tracestate: bytes
    own_member: bytes | None
    span_id: bytes
    request_id: bytes
    flags: int
    is_sampled: bool
    started: float
    ended: float
    deadline: float
    fails_at: float
    due: float
    prefix_length: int
    """Of the target, that the route's prefix takes the place of; set if the route has one."""
    _breaker: Breaker
    """Set with `_admission`."""
    _client_span_id: bytes
    """For the first attempt."""
    _was_refused: bool
    """One endpoint has refused, and another is tried; set with `_admission`, as is the next."""
    _was_stale: bool
    """One pooled connection had been closed: no other is taken from a pool."""
    _quiet_checks: int

    def __init__(
        self,
        service: Service,
        client: Client,
        listener: str,
        method: bytes,
        target: bytes,
        origin_target: bytes,
        host: bytes,
        fields: list[Field],
        lookup: dict[bytes, bytes],
    ) -> None:
        """A plain HTTP/1.1 request without a body; the connection writes over what is different.

        `target` is as the client sent it, `origin_target` its path and query, `lookup` the fields by key.
        """
        self.service = service
        self.client = client
        self.listener = listener
        self.method = method
        self.target = target
        self.origin_target = origin_target
        self.host = host
        self.fields = fields
        self.lookup = lookup
        self.keep_alive = True
        """Whether the client's connection goes on afterwards; written by the connection."""
        self.traits = PLAIN
        self.is_head_sent = False
        self.body: RequestBody | None = None
        self.refusal: GivenUp | None = None
        """Set for a request that is answered with this and nothing else."""
        self.attempts: list[Attempt] = []
        self.budget = _NO_BUDGET
        self.detail = ""
        self.status = self.response_bytes = 0
        self.route: LiveRoute | None = None
        self.route_name: str | None = None
        self.bucket: set[Expiring] | None = None
        self.reason: Reason | None = None
        self.breaker_state: State | None = None
        self.refused_by: Transition | None = None
        self.tripped: Transition | None = None
        self.fallback: str | None = None
        self.tunnel: Tunnel | None = None
        self.caller: Found | None = None
        self.remembered_as: bytes | None = None
        """The span id under which the app's calls find this exchange."""
        self._admission: Admission | None = None
        self._attempt: Attempt | None = None
        self._cluster: Cluster | None = None
        self._fell_back_for: GivenUp | None = None
        self._is_over = False
        self._quiet_mark = -1

    def __repr__(self) -> str:
        return (
            f"<Exchange {self.method.decode()} {self.listener} {self.route_name} {len(self.attempts)} tries>"
        )

    # begin

    def begin(self) -> None:
        """Go as far as the upstream's connection allows: until the request is sent, in the usual case."""
        service, lookup = self.service, self.lookup
        now = self.started = service.clock()
        service.exchanges.add(self)

        # Trace context and request id: kept from the caller where they are valid, else made. A trace that starts here
        # lends the request its id, so that one search finds both.
        new_id, self.span_id, self._client_span_id = service.ids.for_exchange()
        traceparent = lookup.get(b"traceparent")
        if traceparent is None:
            self.trace_id = new_id
            self.parent_id = self.own_member = None
            self.tracestate = b""
            is_sampled = self.is_sampled = service.decide(None, new_id)
            self.flags = _NEW_SAMPLED if is_sampled else RANDOM
        else:
            self._continue_trace(service, traceparent, lookup.get(b"tracestate"))
        request_id = lookup.get(b"x-request-id")
        if request_id is None or not headers.is_valid_request_id(request_id):
            request_id = self.trace_id if self.parent_id is None else new_id
        self.request_id = request_id

        try:
            if self.refusal is not None:
                raise self.refusal
            path, _, query = self.origin_target.partition(b"?")
            table = service.tables.get(self.listener)
            entry = table and table.find_entry(self.host, path, self.method, lookup, query)
            if not entry:
                raise GivenUp(Reason.NO_ROUTE, "no route takes this request")
            route = self.route = entry.target
            self.route_name = route.name
            if route.prefix is not None:
                self._note_prefix(entry.prefix_end(path), path)
            if service.closed_to_new and self.listener in service.closed_to_new:
                raise GivenUp(Reason.DRAINING, "this sidecar is shutting down")
            if route.is_egress:
                lineage.recover(self, route)
            if self.caller is None and route.deadline_fields.isdisjoint(lookup):
                self._take_plain_deadline(route, now)
            else:
                self._take_deadline(route, now)
            if route.admission is not None:
                self._check_admission(route.admission)
            self._forward(route, route.single or route.choose(service.rng), now)
        except GivenUp as error:
            self.fail(error)

    def _continue_trace(self, service: Service, traceparent: bytes, tracestate: bytes | None) -> None:
        trace = tracecontext.read(traceparent, tracestate, service.ids)
        flags = trace.flags
        is_new = trace.parent_id is None  # it was invalid
        is_sampled = service.decide(None if is_new else bool(flags & SAMPLED), trace.trace_id)
        self.is_sampled = is_sampled
        self.flags = flags | SAMPLED if is_sampled else flags & ~SAMPLED
        self.trace_id = trace.trace_id
        self.parent_id = trace.parent_id
        self.tracestate = trace.tracestate
        self.own_member = trace.own_member

    def _note_prefix(self, length: int, path: bytes) -> None:
        if has_dot_segment(path):
            raise GivenUp(Reason.BAD_REQUEST, "a dot segment could leave the rewritten prefix")
        self.prefix_length = length

    def _take_plain_deadline(self, route: LiveRoute, now: float) -> None:
        """The route alone decides: 0.4 µs less than asking everybody."""
        self.budget = route.plain_budget
        self.deadline = self.fails_at = now + route.request_seconds
        seconds = route.first_check_seconds
        due = self.due = now + seconds
        sweep = self.service.sweep
        bucket = sweep.buckets.get(int(due * TICKS_PER_SECOND))
        if bucket is None or seconds < OWN_TIMER_SECONDS:
            sweep.add(self, now)
        else:  # where a bucket is, the timer runs
            bucket.add(self)
            self.bucket = bucket

    def _take_deadline(self, route: LiveRoute, now: float) -> None:
        recovered = self.caller.deadline - now if self.caller is not None else None
        budget = self.budget = deadline.budget(self.lookup, route.deadline, route.request_seconds, recovered)
        self.deadline = self.fails_at = now + budget.seconds
        if budget.invalid:
            self.service.observe.noticed(Notice.INVALID_TIMEOUT_HEADER, route.name)
        if budget.is_spent:
            raise GivenUp(Reason.DEADLINE_EXCEEDED, f"the caller's time was up on arrival ({budget.source})")
        due = self.fails_at
        idle_check = now + route.idle_check_seconds
        self.due = idle_check if idle_check < due else due
        self.service.sweep.add(self, now)

    def _check_admission(self, admission: BudgetAdmission) -> None:
        if admission.should_refuse(self.budget.seconds, self.started):
            raise GivenUp(Reason.DEADLINE_EXCEEDED, "less time is left than this route usually needs")

    def _forward(self, route: LiveRoute, destination: Destination, now: float) -> None:
        """Ask the breaker and the limits of one upstream, then try to send there."""
        breaker = destination.breaker
        admission = breaker.admit(now)
        self.breaker_state = admission.state
        if admission.transition is not None:
            self.service.observe.transitioned(admission.transition)
        if not admission.is_admitted:
            self.refused_by = admission.refused_by
            raise GivenUp(
                Reason.CIRCUIT_OPEN,
                f"the circuit breaker of {breaker.route} to {breaker.upstream} is {admission.state.value}",
                retry_after_seconds=admission.retry_after_seconds,
            )
        self._breaker = breaker
        self._admission = admission
        cluster = destination.cluster
        if cluster.in_flight < cluster.policy.limits.max_requests:
            cluster.in_flight += 1
        elif not cluster.admit():
            raise GivenUp(Reason.OVERLOADED, f"{cluster.name}: max_requests reached", retry_after_seconds=1)
        self._cluster = cluster
        self._was_refused = self._was_stale = False
        self._try(route, cluster, cluster.single or cluster.pick(), now)

    def _try(self, route: LiveRoute, cluster: Cluster, pool: Pool | None, now: float) -> None:
        """One attempt against one endpoint."""
        service = self.service
        seconds = self.deadline - now
        if route.attempt_seconds is not None and route.attempt_seconds < seconds:
            seconds = route.attempt_seconds
            self.fails_at = now + seconds
            self._watch(route, now)
        attempts = self.attempts
        span_id = service.ids.span_id() if attempts else self._client_span_id
        attempt = self._attempt = Attempt(self, route, pool, cluster.name, span_id, now, seconds)
        attempts.append(attempt)
        if service.has_egress and route.is_remembered:
            lineage.remember(self, attempt)
        if pool is None:
            raise GivenUp(Reason.DNS_ERROR, f"{cluster.name}: no address is known")
        pool.in_flight += 1
        if pool.idle and not self._was_stale:
            attempt.send(pool.idle.pop(), now)
        else:
            attempt.open(pool)

    # The answer: its head and body go from the attempt to the client

    def switched(self, attempt: Attempt) -> None:
        """101: from here on bytes go both ways until one side ends. The deadline was for the handshake."""
        route = self.route
        assert route is not None
        if not heads.is_wanted_switch(self, attempt):
            attempt.is_switched = False
            self.fail(GivenUp(Reason.PROTOCOL_ERROR, "a switch to a protocol that was not asked for"))
            return
        Sweep.remove(self)
        self.status = 101
        self.is_head_sent = True
        attempt.ended = self.service.clock()
        self._settle(_ANSWERED)
        self.client.send_interim(heads.switching_head(self, route, attempt))
        idle_seconds = route.policy.timeouts.idle_seconds
        self.tunnel = Tunnel(self.service.loop, idle_seconds, lambda: self._tunnel_ended(attempt))
        self.tunnel.start(self.client, attempt)

    def _tunnel_ended(self, attempt: Attempt) -> None:
        if self.tunnel is not None:
            self.tunnel.close()
            self.response_bytes = self.tunnel.from_upstream_bytes
        self._attempt = None
        attempt.end(self.service.clock())
        self._finish()

    # completed

    def completed(self, attempt: Attempt) -> None:
        """The upstream's answer arrived whole."""
        now = self.service.clock()
        status = self.status = attempt.status
        self._attempt = None
        attempt.end(now)
        admission, cluster = self._admission, self._cluster
        if status < 400 and attempt.route.is_plainly_judged and admission is not None and cluster is not None:
            # What `_settle` does for a plain success: 0.3 µs less.
            self._admission = self._cluster = None
            cluster.in_flight -= 1
            transition = self._breaker.settle(admission, _SUCCESS, now - attempt.judged_from, now, self)
            if transition is not None:
                self.tripped = transition
                self.service.observe.transitioned(transition)
        else:
            self._settle(_ANSWERED)
        self._finish()

    def _settle(self, kind: Kind) -> None:
        """Tell the limits and the breaker what the last attempt came to: exactly once for each admission."""
        cluster = self._cluster
        if cluster is not None:
            cluster.in_flight -= 1
            self._cluster = None
        admission = self._admission
        route = self.route
        if admission is None or route is None:
            return
        self._admission = None
        attempt = self.attempts[-1] if self.attempts else None
        if kind is not _ANSWERED or attempt is None:
            now = self.service.clock()
            seconds = now - attempt.judged_from if attempt is not None else 0.0
            verdict = judge(
                Outcome(kind, 0, attempt.allowed_seconds if attempt is not None else 0.0), route.judged_by
            )
        else:
            now = attempt.ended
            seconds = now - attempt.judged_from
            if attempt.status < 400 and route.has_plain_failures:
                verdict = _SUCCESS
            else:
                is_marked = _has_field(attempt.fields, route.judged_by.failure_headers)
                verdict = judge(
                    Outcome(kind, attempt.status, attempt.allowed_seconds, is_marked), route.judged_by
                )
            if verdict is _SUCCESS and route.admission is not None:
                route.admission.record(seconds, now)
        transition = self._breaker.settle(admission, verdict, seconds, now, self, kind is Kind.TIMED_OUT)
        if transition is not None:
            self.tripped = transition
            self.service.observe.transitioned(transition)

    # fail

    def fail(self, error: GivenUp) -> None:
        """No whole answer will come from the present attempt. Once the exchange is over this does nothing."""
        if self._is_over:
            return
        tunnel = self.tunnel
        if tunnel is not None:
            tunnel.end()
            return
        attempt = self._attempt
        kind = error.kind
        if attempt is not None:
            if kind is Kind.TIMED_OUT and attempt.waits_for_client():
                kind = Kind.ABANDONED  # slow clients must not trip a breaker
            attempt.reason = error.reason
            self._attempt = None
            attempt.end(self.service.clock())
            if self._may_try_again(error):
                self._try_again(attempt, error)
                return
        self._settle(kind)
        self._give_up(error)

    def _may_try_again(self, error: GivenUp) -> bool:
        """Once more for each of two reasons, where it is certain that the attempt reached nobody.

        A refused connection has another endpoint to go to; a stale one is replaced by a fresh one.
        """
        cluster = self._cluster
        if error.reason is Reason.CONNECTION_REFUSED:
            return cluster is not None and len(cluster.pools) > 1 and not self._was_refused
        is_resendable = self.method in REPEATABLE and (self.body is None or self.body.is_untouched)
        return error.is_stale and is_resendable and not (self.is_head_sent or self._was_stale)

    def _try_again(self, failed: Attempt, error: GivenUp) -> None:
        cluster = self._cluster
        route = self.route
        assert cluster is not None
        assert route is not None
        if error.is_stale:
            self._was_stale = True
        else:
            self._was_refused = True
        pool = failed.pool
        if pool is None or pool.is_retired or not error.is_stale:
            pool = cluster.pick(avoid=pool)
        now = self.service.clock()
        self.fails_at = self.deadline
        self._watch(route, now)
        try:
            self._try(route, cluster, pool, now)
        except GivenUp as error:
            self.fail(error)

    def _give_up(self, error: GivenUp) -> None:
        """Fall back, answer ourselves, or cut the client."""
        first, route = self._fell_back_for, self.route
        if first is not None:
            error = self._choose_error(first, error)
        self.reason, self.detail = error.reason, error.detail
        if first is None and route is not None and self._may_fall_back(route, error):
            if route.fallback_destination is not None:
                self._fall_back(route, route.fallback_destination, error)
                return
            self.fallback = "response"
            self._refuse(error, route.fallback)
        else:
            self._refuse(error, None)
        self._finish()

    def _choose_error(self, first: GivenUp, second: GivenUp) -> GivenUp:
        """The fallback's upstream failed as well: the client hears of the first failure, if it hears of any."""
        if not self.is_head_sent:
            self.fallback = None
        is_final = self.is_head_sent or second.reason in (Reason.CLIENT_GONE, Reason.CALLER_GONE)
        return second if is_final else first

    def _may_fall_back(self, route: LiveRoute, error: GivenUp) -> bool:
        """Before the head went out; to another upstream only with time and the whole body left."""
        if route.fallback is None or error.reason not in FALLBACK_FOR or self.is_head_sent:
            return False
        if route.fallback_destination is None:
            return True
        has_time = self.deadline - self.service.clock() >= deadline.MIN_SEND_SECONDS
        return has_time and (self.body is None or self.body.is_untouched)

    def _fall_back(self, route: LiveRoute, destination: Destination, error: GivenUp) -> None:
        """Ask the fallback's upstream, within the time that is left."""
        now = self.service.clock()
        self._fell_back_for = error
        self.fallback = destination.cluster.name
        self.fails_at = self.deadline
        self._watch(route, now)
        try:
            self._forward(route, destination, now)
        except GivenUp as second:
            self.fail(second)

    def _refuse(self, error: GivenUp, fallback: FallbackPolicy | None) -> None:
        if error.reason is Reason.CLIENT_GONE:
            self.status = CLIENT_GONE_STATUS
        elif self.is_head_sent:
            self.status = self.status or self.attempts[-1].status
            self.client.abort()
        else:
            self.status = self.client.answer(self, error, fallback)

    def _finish(self) -> None:
        """The end of every exchange, whatever happened: let go of everything, tell, hand the client back."""
        self._is_over = True
        service = self.service
        if self.bucket is not None:
            self.bucket.discard(self)
            self.bucket = None
        service.exchanges.discard(self)
        if service.is_draining:
            service.departed.set()
        attempts = self.attempts
        is_relayed = self.reason is None and attempts
        now = self.ended = attempts[-1].ended if is_relayed else service.clock()
        if self.caller is not None or self.remembered_as is not None:
            lineage.forget(self, now)
        service.observe.finished(self)
        for attempt in attempts:
            del attempt.exchange  # no cycle is left, so nothing waits for the garbage collector
        if self.reason is not _CLIENT_GONE:
            trailers = attempts[-1].trailers if attempts else ()
            self.client.end(headers.trailer_block(trailers) if trailers else b"")

    # What ends or holds it from outside

    def client_gone(self) -> None:
        """The client closed its connection before the answer was complete."""
        self.fail(GivenUp(Reason.CLIENT_GONE, "the client went away"))

    def caller_gone(self) -> None:
        """The inbound exchange that this one descends from was cancelled (SPEC 5.4)."""
        self.fail(GivenUp(Reason.CALLER_GONE, "caller gone"))

    def client_paused(self) -> None:
        """The client takes no more of the answer for now."""
        if self._attempt is not None:
            self._attempt.pause(self.service.clock())

    def client_resumed(self) -> None:
        if self._attempt is not None:
            self._attempt.resume(self.service.clock())

    def request_arrived(self) -> None:
        """The last piece of the request's body is here, some time after its head."""
        if self._attempt is not None:
            self._attempt.request_arrived(self.service.clock())

    # The deadline and idleness: one entry in the sweep

    def _watch(self, route: LiveRoute, now: float) -> None:
        if self.bucket is not None:
            Sweep.remove(self)
        due = self.fails_at
        idle_check = route.idle_check_seconds
        self.due = now + idle_check if now + idle_check < due else due
        self.service.sweep.add(self, now)

    def expire(self, now: float) -> None:
        """`due` has passed: the deadline, the attempt's timeout, or it is time for a look at idleness."""
        if now >= self.fails_at:
            self.fail(GivenUp(Reason.TIMEOUT, f"no whole answer within {self._allowed_seconds():.3g} s"))
            return
        progress = self.request_bytes + self.response_bytes
        self._quiet_checks = (
            self._quiet_checks + 1 if progress == self._quiet_mark else 0
        )  # no progress is -1
        self._quiet_mark = progress
        if self._quiet_checks >= IDLE_CHECKS:
            self.fail(GivenUp(Reason.TIMEOUT, "no byte either way for the route's idle timeout"))
        elif self.route is not None:
            self._watch(self.route, now)

    def _allowed_seconds(self) -> float:
        return self.fails_at - (self.attempts[-1].started if self.attempts else self.started)

    # What observers read beside the plain attributes

    @property
    def peer(self) -> tuple[str, int] | None:
        return self.client.peer

    @property
    def rewritten_target(self) -> bytes | None:
        route = self.route
        if not self.attempts or route is None or route.prefix is None:
            return None
        return heads.upstream_target(self, route.prefix)

    @property
    def http_version(self) -> str:
        return self.traits.http_version

    @property
    def user_agent(self) -> bytes | None:
        return self.lookup.get(b"user-agent")

    @property
    def request_bytes(self) -> int:
        return self.body.size if self.body is not None else 0


def _has_field(fields: Sequence[Field], wanted: tuple[tuple[bytes, bytes], ...]) -> bool:
    return any((key, value) in wanted for key, _, value in fields)
