"""The attempts of one exchange: begun, tried again where that is safe, and which of them has the client.

Whoever has a head first wins: it alone speaks to the client, and the others end, uncounted. With one attempt at a
time the race is short. It acts: who else is asked decides `takers.py`, what follows a failure `mending.py`, what a
hedge needs `hedging.py`. It is long since all that begins and ends an attempt is here, and with it the only writer of
`running` and `winner`. The exchange begins it once it knows its upstream, and hears `finish`, `switched` or `lost`.
Owned by the exchange; ends with it.
"""

from __future__ import annotations

from abc import abstractmethod
from math import inf
from typing import TYPE_CHECKING, Any, Final

from sidecar.core.contract import NO_SLOTS
from sidecar.core.errors import Reason
from sidecar.core.grpc_status import GrpcStatus
from sidecar.core.observe import Notice
from sidecar.core.outcome import PROBE_SECONDS, Kind
from sidecar.core.retry import REPEATABLE, RetryCause
from sidecar.core.transition import State
from sidecar.forwarding import heads, leaving, lineage, verdicts
from sidecar.forwarding.affinity import key_in
from sidecar.forwarding.attempt import Attempt
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.heads import complete_response
from sidecar.forwarding.hedging import (
    give_token_back,
    is_body_here,
    is_for_hedge,
    is_worse,
    may_hedge,
    take_token,
)
from sidecar.forwarding.live import LIMITS
from sidecar.forwarding.mending import Mended, Mending
from sidecar.forwarding.permit import Permit, Refusal
from sidecar.forwarding.retrying import ADMITTING, cause_after_answer, untried
from sidecar.forwarding.story import Story
from sidecar.forwarding.takers import Takers
from sidecar.forwarding.withheld import Answered
from sidecar.upstream.streams import Processed

if TYPE_CHECKING:
    from sidecar.core.head import ResponseHead
    from sidecar.core.transition import Transition
    from sidecar.forwarding.live import Destination, LiveRoute
    from sidecar.forwarding.standby import Standby
    from sidecar.forwarding.streams import ServerStream
    from sidecar.forwarding.sweep import Expiring
    from sidecar.upstream.cluster import AnyPool, Cluster
    from sidecar.upstream.lease import LeasePool

LINGER_SECONDS = 0.1
"""How long a failed attempt stays in its endpoint's load while too few good answers are known."""

# Read from module globals in the hot path: an enum's own lookup costs 15 to 50 ns each time.
_ANSWERED: Final = Kind.ANSWERED
_CLOSED: Final = State.CLOSED
_HALF_OPEN: Final = State.HALF_OPEN
_HEDGE: Final = RetryCause.HEDGE
_BY_TIME: Final = frozenset({Kind.TIMED_OUT, Kind.LEFT, Kind.CONNECT_FAILED, Kind.RESET})
"""Ends that our own loop may have brought about by being late."""


class RaceOwner(Story):
    """Who runs the race, and hears how it ends: the exchange."""

    __slots__ = NO_SLOTS

    attempts: list[Attempt]
    """All that were begun, the first one first."""
    bucket: set[Expiring] | None
    """Where it lies in the sweep."""

    @abstractmethod
    def finish(self, status: int) -> None:
        """The upstream's answer has gone out whole."""

    @abstractmethod
    def expire(self, now: float) -> None:
        """`due` has passed."""

    @abstractmethod
    def abandon(self) -> None:
        """A mistake of ours broke it off."""

    @abstractmethod
    def switched(self, attempt: Attempt, transition: Transition | None) -> None:
        """101: from here on bytes go both ways until both sides end."""


class Race(Mended):
    """See the module. `start` comes first and sets what it has: the call of an `__init__` takes 0.1 µs."""

    exchange: RaceOwner
    stream: ServerStream
    """The client's."""
    winner: Attempt | None
    """The one whose head has gone to the client."""
    is_postponed: bool
    """The breaker is to be asked again when the request's body is whole."""
    hedge_at: float
    """When one more is begun beside those that run; infinite for never."""
    _has_hedged: bool
    _takers: Takers | None
    """From the first refusal on, or from the beginning where others may take over."""
    _mending: Mending | None
    """From the first attempt on that has failed, or was answered badly."""

    __slots__ = (
        "_has_hedged", "_mending", "_takers", "destination", "exchange", "hedge_at", "is_postponed", "route",
        "running", "story", "stream", "winner",
    )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Race {len(self.running)} running, winner {self.winner!r}>"

    # Beginning

    def start(
        self,
        exchange: RaceOwner,
        stream: ServerStream,
        route: LiveRoute,
        destination: Destination,
        now: float,
    ) -> None:
        """Ask the breaker and the limits of one upstream, then try to send there.

        Raises:
            GivenUp: it may not be asked, or cannot be.
        """
        self.exchange = exchange
        self.story = exchange
        self.stream = stream
        self.running = []
        self.winner = None
        self._takers = None
        self._mending = None
        self.route = route
        self.destination = destination
        self.is_postponed = False
        self._has_hedged = False
        self.hedge_at = inf
        if destination.standby is not None:
            self._start_by_failover(destination, destination.standby, now)
            return
        budget = destination.retry_budget
        if budget is not None:
            if now < budget.second_ends:  # `put`, without the call
                budget.requests += 1
            else:
                budget.begin_second(now)
        admitted: Any = destination.admit(now, exchange)  # a `Permit` or a `Refusal`, which its class tells
        cluster = destination.cluster
        if type(admitted) is Permit and admitted.transition is None and cluster.single is not None:
            exchange.breaker_state = admitted.state  # what `_go` does in the usual case: 0.1 µs less
            self._run(admitted, cluster, cluster.single, now)
        else:
            self._go(exchange, admitted, destination, now)

    def _go(self, exchange: RaceOwner, admitted: Any, destination: Destination, now: float) -> None:
        """A breaker has answered."""
        if type(admitted) is Refusal:  # `isinstance` takes 50 ns more
            takers = self._takers = self._takers or Takers(self.route)
            self.destination, admitted = takers.ask(exchange, destination, admitted, now)
            if type(admitted) is Refusal:
                self._postpone(admitted)
                return
            destination = self.destination
        permit: Permit = admitted
        exchange.breaker_state = permit.state
        transition = permit.transition
        if transition is not None:
            self._report(transition)
        cluster = destination.cluster
        pool = cluster.single
        if pool is None:
            if cluster.balancer.spared is not None and self._is_on_trial(permit, cluster, now):
                return
            hash_key = cluster.hash_key
            key = None if hash_key is None else key_in(exchange, hash_key)
            if permit.state is _CLOSED or not permit.is_probe:
                pool = cluster.pick((), key)
            else:
                pool = cluster.pick_for_probe(permit.avoid, key)
        self._run(permit, cluster, pool, now)

    def _is_on_trial(self, permit: Permit, cluster: Cluster, now: float) -> bool:
        """Whether it is the one that finds out how a spared endpoint is, and has been sent there."""
        exchange = self.exchange
        if permit.state not in ADMITTING:
            return False  # a probe prefers one that did not fail last
        policy = self.route.policy.retry
        has_budget = policy.ratio > 0.0 or policy.min_per_second > 0.0
        is_free = has_budget and exchange.body is None and leaving.may_be_sent_twice(exchange, policy)
        pool = cluster.balancer.trial(is_free=is_free)
        if pool is None:
            return False
        self._run(permit, cluster, pool, now)
        if is_free and self.running:
            self._bound_trial(self.running[0], leaving.trial_seconds(exchange, self.destination, now), now)
        return True

    def _bound_trial(self, attempt: Attempt, seconds: float, now: float) -> None:
        attempt.fails_at = min(attempt.fails_at, now + seconds)
        self.exchange.watch(now)

    def _start_by_failover(self, home: Destination, standby: Standby[Destination], now: float) -> None:
        """The same where others may take over."""
        exchange = self.exchange
        change = standby.look(home, now)
        if change is not None:
            exchange.service.failed_over(change)
        takers = self._takers = Takers(self.route)
        destination = self.destination = takers.first(exchange, home, standby, now)
        if destination.retry_budget is not None:
            destination.retry_budget.put(now)
        self._go(exchange, destination.admit(now, exchange), destination, now)
        if takers.is_trial and self.running:
            self._bound_trial(self.running[0], leaving.trial_seconds(exchange, home, now), now)

    def has_asked(self, destination: Destination) -> bool:
        """Whether this upstream's breaker has answered the exchange already."""
        asked = [self.destination, *(self._takers.asked if self._takers is not None else ())]
        return any(one.breaker is destination.breaker for one in asked)

    def _report(self, transition: Transition | None) -> None:
        """Asking has changed a breaker's state."""
        if transition is not None:
            self.exchange.service.transitioned(transition)

    def awaits_probes(self, now: float) -> bool:
        """Whether the breaker that it is postponed by may still let it probe, but does not let everybody through."""
        breaker = self.destination.breaker
        return breaker.state is _HALF_OPEN or breaker.is_probe_due(now)

    def start_again(self, now: float) -> None:
        """The request's body is whole, or as much of it as is kept; or no probes are awaited any more.

        Raises:
            GivenUp: it may not be asked, or cannot be.
        """
        self._wait_no_more()
        destination = self.destination
        self._go(self.exchange, destination.admit(now, self.exchange), destination, now)

    def _postpone(self, refusal: Refusal) -> None:
        """Until the request's body has come as far as the breaker needs it for a probe."""
        self.is_postponed = True
        breaker = self.destination.breaker
        self.exchange.service.postponed[self.exchange] = breaker.route, breaker.upstream
        self._report(refusal.transition)

    def _wait_no_more(self) -> None:
        self.is_postponed = False
        self.exchange.service.postponed.pop(self.exchange, None)

    def _run(
        self,
        permit: Permit,
        cluster: Cluster,
        pool: AnyPool | None,
        now: float,
        cause: RetryCause | None = None,
    ) -> None:
        """One attempt against one endpoint. `cause`: why, if this race has made another one before."""
        exchange, route = self.exchange, self.route
        attempts = exchange.attempts
        is_first = not attempts
        seconds = exchange.deadline - now
        if route.early_look and route.attempt_seconds < seconds:
            seconds = route.attempt_seconds
        if is_first:
            trace = exchange.trace
            span_id = trace.span_id if self.destination.joins_spans else trace.client_span_id
        else:
            span_id = exchange.service.ids.span_id()
        if route.acting is not None:
            route = route.acting.variants.get(cluster.name, route)  # what is changed for this upstream alone
        attempt = Attempt()
        attempt.begin(self, route, permit, pool, cluster.name, span_id, now, seconds)
        is_hedge = cause is _HEDGE
        mending = self._mending
        is_retry = is_hedge or (mending is not None and mending.retries > 0)
        if is_retry or (exchange.caller is not None and lineage.is_for_retry(exchange)):
            attempt.is_retry = True
        if not is_first:
            attempt.resend = len(attempts)
            attempt.cause = cause or RetryCause.FALLBACK  # another race has made those before its first one
            self._has_hedged = self._has_hedged or is_hedge
        attempts.append(attempt)
        self.running.append(attempt)
        if not is_first or route.early_look:
            if route.head_seconds < seconds:
                attempt.fails_at = now + route.head_seconds
            hedging = self.destination.hedging
            if hedging is not None:
                if is_first and exchange.body is None:  # `await_hedge` in the usual case, without the call
                    self.hedge_at = now + (hedging.after if now < hedging.fresh_until else hedging.look(now))
                else:
                    self.await_hedge(now)
            if route.early_look == LIMITS or not is_first:
                exchange.watch(now)
            elif self.hedge_at < exchange.due:  # `watch`, where there is nothing else to look at
                hedges, due = exchange.service.beside.hedges, self.hedge_at
                bucket = exchange.bucket
                # `wait`, without the call.
                if bucket is not None and hedges.latest_from <= due < hedges.latest_until:
                    bucket.discard(exchange)
                    exchange.due = due
                    bucket = exchange.bucket = hedges.latest
                    bucket.add(exchange)
                else:
                    hedges.wait(exchange, due, now)
        if exchange.service.has_egress and route.is_remembered:
            lineage.remember(exchange, span_id, now, is_retry=is_retry)
        if pool is None:
            raise GivenUp(Reason.DNS_ERROR, f"{cluster.name}: no address is known")
        pool.in_flight += 1
        pool.begun_at = now
        lease = None
        # Where one pooled connection had been closed, no other is taken from a pool.
        if pool.idle and (mending is None or RetryCause.STALE_CONNECTION not in mending.tried):
            lease = pool.take(now, exchange.body is not None or exchange.request.method not in REPEATABLE)
        if lease is not None:
            attempt.send(lease, now)
        else:
            attempt.wait(cluster.wait_for(pool, attempt))

    # The answer: from the attempt that wins to the client

    def interim(self, attempt: Attempt, head: ResponseHead) -> None:
        if self.winner is None:
            self.stream.send_interim(heads.complete_interim(head))

    def answered(self, attempt: Attempt, head: ResponseHead, body: bytes | memoryview) -> None:
        exchange = self.exchange
        if self._takers is not None and self._has_failed_trial(head):
            self._end_trial(attempt, head, body)
            return
        if (
            self.destination.retry_budget is not None
            and (head.status >= 400 or exchange.request.traits.is_grpc)  # no other can be bad: 0.8 µs less
            and self._is_bettered(attempt, head, body)
        ):
            return
        self.winner = attempt
        if self._has_hedged:
            self._end_losers(attempt)
        exchange.response_bytes = len(body)
        complete_response(exchange, attempt.route, head)
        self.stream.send_whole(head, body)
        self.completed(attempt)

    def left(self, attempt: Attempt, head: ResponseHead, body: bytes | memoryview) -> bool:
        if not self._may_leave_answer(attempt, head):
            return False
        now = self.exchange.service.clock()
        self._end_badly(attempt, now)
        if not self._begin_mending().leave(self, now):
            self.give(attempt, Answered(head, body, self.exchange.service.memory, now))
        return True

    def _end_badly(self, attempt: Attempt, now: float) -> None:
        """A whole answer is not for the client, or not yet."""
        self.running.remove(attempt)
        attempt.finish(now)
        if self.exchange.is_remembered:
            lineage.attempt_ended(self.exchange, attempt, None, now)
        is_late_below = attempt.is_timeout_below and self._was_held(attempt, now)
        self.tell(attempt.judge(Kind.ABANDONED if is_late_below else _ANSWERED, now))

    def head(self, attempt: Attempt, head: ResponseHead) -> None:
        if self.winner is not None:
            return  # a loser that had not heard of it
        attempt.fails_at = attempt.started + attempt.allowed_seconds  # `timeouts.head` was kept
        self.winner = attempt  # `_win`, without the call
        if self._has_hedged:
            self._end_losers(attempt)
        exchange = self.exchange
        if exchange.body is not None:
            exchange.body.keep_no_more()
        complete_response(exchange, attempt.route, head)
        self.stream.send_head(head)

    def data(self, attempt: Attempt, data: bytes | memoryview) -> None:
        if attempt is self.winner:
            exchange = self.exchange
            exchange.response_bytes += len(data)
            exchange.moved_at = exchange.service.clock()
            self.stream.send_data(data)

    def flush(self, attempt: Attempt) -> None:
        if attempt is self.winner:
            self.stream.flush()

    def completed(self, attempt: Attempt) -> None:
        """The winner's answer is whole."""
        exchange, status = self.exchange, attempt.status
        clock = exchange.service.clock
        now = clock()
        self.running.remove(attempt)
        attempt.finish(now)
        if (
            status < 400
            and self.route.is_plainly_judged
            and (not exchange.request.traits.is_grpc or attempt.grpc_status == 0)
        ):
            pool = attempt.pool
            assert pool is not None  # which has answered
            standing = pool.standing
            if standing.is_watched:
                transition = attempt.judge(_ANSWERED, now)
            else:  # what `judge` does for a plain success: 0.3 µs less
                transition = attempt.permit.succeed(standing, now, exchange.trace)
        else:
            if status < 400 and self.route.admission is not None:
                self.route.admission.record(now - attempt.started, now)
            is_late_below = attempt.is_timeout_below and self._was_held(attempt, now)
            transition = attempt.judge(Kind.ABANDONED if is_late_below else _ANSWERED, now)
        if transition is not None:
            exchange.tripped_breaker(transition)
        exchange.finish(status)

    def switched(self, attempt: Attempt, head: ResponseHead) -> None:
        """101: what comes from here on is a tunnel's."""
        chosen = heads.chosen_upgrade(self.exchange.request, head)
        if chosen is None:
            attempt.status = 0
            detail = "a switch to a protocol that was not asked for"
            self.failed(attempt, GivenUp(Reason.PROTOCOL_ERROR, detail))
            return
        self._win(attempt)
        now = attempt.ended = self.exchange.service.clock()
        transition = attempt.judge(_ANSWERED, now)
        complete_response(self.exchange, attempt.route, head)
        self.stream.send_switch(head, chosen)
        self.exchange.switched(attempt, transition)

    def give(self, attempt: Attempt, answer: Answered) -> None:
        exchange = self.exchange
        self._win(attempt)
        exchange.response_bytes = len(answer.body)
        complete_response(exchange, attempt.route, answer.head)
        self.stream.send_whole(answer.head, answer.body)
        answer.release()
        exchange.finish(attempt.status)

    def _win(self, attempt: Attempt) -> None:
        self.winner = attempt
        if self._has_hedged:
            self._end_losers(attempt)

    def _end_losers(self, winner: Attempt) -> None:
        """Cut the others at once. The winner is the last one from here on, as it is without a hedge."""
        exchange = self.exchange
        now = exchange.service.clock()
        attempts = exchange.attempts
        if attempts[-1] is not winner:
            attempts.remove(winner)
            attempts.append(winner)
        if self._mending is not None:
            self._mending.drop_aside()
        for loser in self._waiting_first():
            if loser is winner:
                continue
            self.running.remove(loser)
            seconds = loser.permit.upstream_seconds(now)
            loser.drop_withheld()
            loser.finish(now)
            if exchange.is_remembered:
                lineage.attempt_cut(exchange, loser, now)
            # Who was overtaken was slow; a hedge that the first one was faster than is not.
            is_overtaken = winner.is_hedge and loser.started < winner.started and not loser.status
            is_fault = is_overtaken and seconds > 0.0 and not self._was_held(loser, now)
            loser.lose(now, is_fault=is_fault)
            if seconds > 0.0:
                self.destination.breaker.lost_to_hedge(seconds)
        if exchange.body is not None:
            exchange.body.let_go()  # a loser that took no more of it says nothing any more

    # Beside one that is slow

    def await_hedge(self, now: float) -> None:
        """The youngest attempt has all of the request from now on: see when another one is to be begun beside it."""
        hedging, exchange = self.destination.hedging, self.exchange
        self.hedge_at = inf
        if hedging is None or self.winner is not None:
            return
        if exchange.body is not None and not is_body_here(exchange):
            return
        if self._has_hedged and sum(one.is_hedge for one in exchange.attempts) >= hedging.policy.most:
            return
        self.hedge_at = now + (hedging.after if now < hedging.fresh_until else hedging.look(now))

    def _hedge(self, now: float) -> None:
        """`hedge_at` has come."""
        self.hedge_at = inf
        destination, exchange = self.destination, self.exchange
        hedging = destination.hedging
        if hedging is None or self.winner is not None or not self.running or self.is_bound():
            return
        if any(attempt.is_in_line for attempt in self.running):
            self.hedge_at = now + hedging.look(now)  # that is our own affair
            return
        if not may_hedge(exchange, self.route.policy.retry, self.running, now):
            return
        pool = self.untried()
        if pool is None or not is_for_hedge(destination.cluster, pool, exchange.attempts):
            self._notice(Notice.HEDGE_NO_ENDPOINT)
            return
        permit = self._hedge_permit(now)
        if permit is None:
            return
        self.run_again(permit, pool, _HEDGE, now, self.running[0])

    def _hedge_permit(self, now: float) -> Permit | None:
        """None: budget, breaker or a limit is against it."""
        destination = self.destination
        if destination.breaker.state not in ADMITTING:
            return None
        if not take_token(destination, now):
            self._notice(Notice.HEDGE_BUDGET_EXHAUSTED)
            return None
        permit = self.ask_once_more(now)
        if permit is None:
            give_token_back(destination)
            self._notice(Notice.HEDGE_REFUSED)
        return permit

    def _notice(self, notice: Notice) -> None:
        self.exchange.service.observe.noticed(notice, self.route.name)

    # Failure

    def failed(self, attempt: Attempt, error: GivenUp) -> None:
        """No whole answer will come from this attempt: once more where that is safe, else the exchange hears of
        it."""
        if attempt not in self.running:
            return  # it has ended already
        now = self.exchange.service.clock()
        kind = self._detach(attempt, error, now)
        if self.exchange.is_remembered:
            lineage.attempt_ended(self.exchange, attempt, attempt.reason, now)
        if self.running:  # another is still under way
            if error.is_stale or error.processed is Processed.NEVER:
                kind = Kind.ABANDONED
            self.tell(attempt.judge(kind, now, error))
        elif self.winner is not None:
            self._judge_cut(attempt, kind, now, error)
            self.exchange.lost(error)
        else:
            self._begin_mending().failed(self, attempt, error, kind, now)

    def _begin_mending(self) -> Mending:
        mending = self._mending
        if mending is None:
            mending = self._mending = Mending()
        return mending

    def cancel(self, error: GivenUp) -> None:
        """The exchange ends, whatever its attempts do."""
        if self.is_postponed:
            self._wait_no_more()
        if self._mending is not None:
            self._mending.cancel(self)
        if not self.running:
            return
        now = self.exchange.service.clock()
        for attempt in self._waiting_first():
            kind = self._detach(attempt, error, now)
            if self.exchange.is_remembered:
                lineage.attempt_cut(self.exchange, attempt, now)
            self._judge_cut(attempt, kind, now, error)

    def _judge_cut(self, attempt: Attempt, kind: Kind, now: float, error: GivenUp) -> None:
        if attempt.status != 101:  # else its permit went back with the switch
            self.tell(attempt.judge(kind, now, error))

    def _waiting_first(self) -> list[Attempt]:
        """All under way, who waits for a connection first: the place that another one leaves goes to the first in
        line within the call, which must not be one that ends with it."""
        running = self.running
        if len(running) == 1:
            return [*running]
        return [
            *[one for one in running if one.awaits_connection],
            *[one for one in running if not one.awaits_connection],
        ]

    def _detach(self, attempt: Attempt, error: GivenUp, now: float) -> Kind:
        """Take one out of the race. Returns how it ended, for its judge."""
        kind = error.kind
        if kind is Kind.TIMED_OUT:
            if attempt.waits_for_client():
                kind = Kind.ABANDONED  # slow clients must not trip a breaker
            else:
                attempt.body_not_taken()
        if kind in _BY_TIME and self._was_held(attempt, now):
            kind = Kind.ABANDONED  # neither must a late loop
        attempt.reason = error.reason
        attempt.drop_withheld()
        self.running.remove(attempt)
        attempt.finish(now)
        return kind

    def _was_held(self, attempt: Attempt, now: float) -> bool:
        """Whether our own loop was held for so much of the time in which the attempt had to end that its end says
        nothing of the upstream."""
        seconds = PROBE_SECONDS if attempt.permit.is_probe else self.destination.breaker.counts_after
        return self.exchange.service.sweep.pace.held.blinds(seconds, now)

    def tell(self, transition: Transition | None) -> None:
        if transition is not None:
            self.exchange.tripped_breaker(transition)

    # A further attempt

    def ask_once_more(self, now: float) -> Permit | None:
        destination = self.destination
        admitted = destination.admit(now, self.exchange)
        if isinstance(admitted, Refusal):
            self.tell(admitted.transition)
            if admitted.reason is Reason.CIRCUIT_OPEN and not admitted.is_postponed:
                destination.breaker.withdraw()
            return None
        self._report(admitted.transition)
        return admitted

    def untried(self) -> AnyPool | None:
        exchange, cluster = self.exchange, self.destination.cluster
        return untried(cluster, exchange.attempts, key_in(exchange, cluster.hash_key))

    def is_bound(self) -> bool:
        """Whether its client was on its way to one endpoint, so that no other one is asked."""
        return False

    def may_use(self, pool: LeasePool) -> bool:
        if self.is_bound():
            return False
        # On a shared connection of one that was tried others may keep who waits from ever having another one.
        return pool.is_shared or all(one.pool is not pool for one in self.exchange.attempts)

    def others(self) -> int:
        return len(self.destination.cluster.pools) - 1

    def may_leave(self, attempt: Attempt) -> bool:
        retries = 0 if self._mending is None else self._mending.retries
        return leaving.may_leave(self.exchange, self.route.policy.retry, self.destination, attempt, retries)

    def well_endpoint(self, now: float) -> AnyPool | None:
        return leaving.well_endpoint(self.exchange, self.destination, self.exchange.attempts, now)

    def run_again(
        self,
        permit: Permit,
        pool: AnyPool | None,
        cause: RetryCause,
        now: float,
        before: Attempt | None = None,
    ) -> None:
        try:
            self._run(permit, self.destination.cluster, pool, now, cause)
        except GivenUp as again:
            self.failed(self.exchange.attempts[-1], again)
            return
        if before is not None and before.fails_at < before.latest_end:
            attempt = self.exchange.attempts[-1]
            is_upstreams = self._takers is not None and self._takers.is_trial
            if attempt in self.running and (is_upstreams or pool is before.pool):
                self._bound_trial(attempt, before.fails_at - now, now)

    # An answer that another attempt may better

    def may_better(self, attempt: Attempt, head: ResponseHead, grpc_status: int | None) -> bool:
        """Whether another try, or one that is under way, may bring the client something better than this answer."""
        if self._takers is not None and self._takers.is_trial:
            return self._has_failed_trial(head)
        if self.winner is not None:
            return False
        if self.destination.retry_budget is not None:
            if len(self.running) > 1:
                return is_worse(head.status, grpc_status)
            if self._cause_to_retry(attempt, head, grpc_status) is not None:
                return True
        return head.status >= 500 and self._may_leave_answer(attempt, head)

    def _may_leave_answer(self, attempt: Attempt, head: ResponseHead) -> bool:
        """Whether this is a failure of a suspect endpoint, for which the client has something better to get, and
        which nobody else sees to."""
        if self.winner is not None or len(self.running) > 1 or not self.may_leave(attempt):
            return False
        if self._takers is not None and self._takers.is_trial:
            return False
        if self.destination.retry_budget is not None:
            cause = self._cause_to_retry(attempt, head, attempt.grpc_status)
            if cause is not None:
                return False
        return verdicts.is_failure(head, self.destination.breaker.policy)

    def may_better_call(self, attempt: Attempt, head: ResponseHead) -> bool:
        # Where the client has more to send, it may wait for this head before it goes on.
        if self.destination.retry_budget is None or not is_body_here(self.exchange):
            return False
        return self.may_better(attempt, head, GrpcStatus.UNAVAILABLE)

    def _cause_to_retry(
        self, attempt: Attempt, head: ResponseHead, grpc_status: int | None
    ) -> RetryCause | None:
        retries = 0 if self._mending is None else self._mending.retries
        return cause_after_answer(self.exchange, self.route, retries, attempt, head, grpc_status)

    def _is_bettered(self, attempt: Attempt, head: ResponseHead, body: bytes | memoryview) -> bool:
        """A whole answer has come: whether another try is to be made first, or this stands after all, as of which the
        client has been told by then."""
        if not self.may_better(attempt, head, attempt.grpc_status):
            return False
        # Before it lets go of the body, and is counted.
        cause = self._cause_to_retry(attempt, head, attempt.grpc_status)
        is_left = head.status >= 500 and self.may_leave(attempt)
        now = self.exchange.service.clock()
        self._end_badly(attempt, now)
        answer = Answered(head, body, self.exchange.service.memory, now)
        self._begin_mending().answered(self, attempt, answer, cause, now, is_left=is_left)
        return True

    # Of a request that finds out whether an upstream is well again

    def _has_failed_trial(self, head: ResponseHead) -> bool:
        """Whether this is one, and its answer what the upstream is not to get requests for."""
        takers = self._takers
        return (
            takers is not None
            and takers.is_trial
            and verdicts.is_failure(head, self.destination.breaker.policy)
        )

    def _end_trial(self, attempt: Attempt, head: ResponseHead, body: bytes | memoryview) -> None:
        """It has failed, and goes on to one that takes over; without any the client gets this answer."""
        now = self.exchange.service.clock()
        self.running.remove(attempt)
        attempt.finish(now)
        if self.exchange.is_remembered:
            lineage.attempt_ended(self.exchange, attempt, None, now)
        self.tell(attempt.judge(_ANSWERED, now))
        if not self.is_sent_on(now):
            self.give(attempt, Answered(head, body, self.exchange.service.memory, now))

    def is_sent_on(self, now: float) -> bool:
        takers = self._takers
        if takers is None or not takers.is_trial:
            return False
        other = takers.after_trial(self.exchange, self.destination)
        if other is None:
            return False
        self.destination = other
        permit = self.ask_once_more(now)
        if permit is not None:
            pool = other.cluster.pick(key=key_in(self.exchange, other.cluster.hash_key))
            self.run_again(permit, pool, RetryCause.FAILOVER, now)
        return permit is not None

    # What time brings

    def stands(self, error: GivenUp) -> bool:
        """The time is up: whether there is a bad answer, which goes to the client in the place of none."""
        aside = None if self._mending is None else self._mending.take_aside()
        if aside is None:
            return False
        self.cancel(error)
        self.give(aside.attempt, aside.answer)
        return True

    def overdue(self, now: float) -> list[Attempt]:
        """Those whose own timeout has passed."""
        return [one for one in self.running if one.fails_at <= now and not self._goes_on(one, now)]

    def _goes_on(self, attempt: Attempt, now: float) -> bool:
        """Whether no more than a trial's bound has passed, and nobody else is there to be asked: then the request
        has the time there that it would have without the trial."""
        fails_at = attempt.latest_end
        if now >= fails_at or len(self.running) > 1:
            return False
        if self._takers is not None and self._takers.is_trial and self._takers.has_other():
            return False
        if self.may_leave(attempt) and self.well_endpoint(now) and self.destination.has_to_leave(now):
            return False
        attempt.fails_at = fails_at
        return True

    def look(self, now: float) -> None:
        """Let the breaker look at those that it wants to look at by now, and begin another one if that is due."""
        if now >= self.hedge_at:
            self._hedge(now)
        for attempt in list(self.running):
            if attempt.permit.next_look <= now:
                self.tell(attempt.permit.look(now, self.exchange.trace))
                attempt.settle(now)

    def linger_seconds(self, now: float) -> float:
        return self.destination.usual_seconds(now) or LINGER_SECONDS

    # Pauses

    def hold(self, now: float) -> None:
        """The client takes no more of the answer for now."""
        for attempt in self.running:
            attempt.hold(now)

    def resume(self, now: float) -> None:
        for attempt in self.running:
            attempt.resume(now)

    def blocked(self) -> None:
        """The upstream takes no more of the request for now."""
        body = self.exchange.body
        if body is not None:
            now = self.exchange.service.clock()
            body.hold_back()
            for attempt in self.running:
                attempt.body_blocked(now)

    def writable(self) -> None:
        body = self.exchange.body
        if body is not None:
            now = self.exchange.service.clock()
            body.let_go()
            for attempt in self.running:
                attempt.body_writable(now)
