"""The story of one request, top to bottom. The only place that knows the order of the policies:

    begin:     identity → route → deadline → what the route does itself (`Acting`) → admission
               → a `Race` (breaker → limits → endpoint → an `Attempt` sends)
    finish:    let go, tell, hand the client back
    fail:      fall back, answer or cut → finish

Each line is a method that a milestone calls, in this order in the file. (A coroutine that the callbacks resume reads
as well and was measured 2.5 µs slower for each request.) Whatever ends an exchange early, a dead upstream, the
deadline, a client that leaves, comes to `fail`, at whatever milestone the exchange waits.

The event loop owns an exchange; it lives in `Service.exchanges` from `begin` to `finish`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, NoReturn

from sidecar.core import deadline, max_forwards
from sidecar.core.callers import Found
from sidecar.core.conditions import Entry
from sidecar.core.errors import Reason
from sidecar.core.grpc_status import from_http
from sidecar.core.observe import Notice, nobody_asks
from sidecar.core.outcome import Limit, could_count
from sidecar.core.plain import BLOCK, FILLED, Field
from sidecar.core.question import TooMuchWork
from sidecar.core.request import Request
from sidecar.core.snapshot import FallbackPolicy
from sidecar.core.transition import State, Transition
from sidecar.forwarding import answers, date, grpc, guards, instead, lineage, strict
from sidecar.forwarding.acting import Acting
from sidecar.forwarding.answers import OwnAnswer
from sidecar.forwarding.attempt import Attempt
from sidecar.forwarding.body import RequestBody
from sidecar.forwarding.counting import count
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.live import MOST_TURNS, PSEUDONYM, Destination, LiveRoute, Recorder
from sidecar.forwarding.meant import MeantRace, is_meant
from sidecar.forwarding.outcomes import NOT_ADMITTED
from sidecar.forwarding.permit import Refusal
from sidecar.forwarding.race import Race, RaceOwner
from sidecar.forwarding.service import Service, WaitsForAddress
from sidecar.forwarding.streams import NO_CLIENT, RequestSink, ServerStream
from sidecar.forwarding.sweep import OWN_TIMER_SECONDS, Expiring, Sweep
from sidecar.forwarding.trace import Trace, without_context
from sidecar.forwarding.tunnel import Tunnel

CLIENT_GONE_STATUS: Final = 499
_CLIENT_GONE: Final = Reason.CLIENT_GONE
_NOBODY_ASKS: Final = nobody_asks
_MAX_FORWARDS_METHODS: Final = max_forwards.METHODS
_QUESTION_MARK: Final = 0x3F
_NO_BUDGET: Final = deadline.Budget().take(0.0, "")


class Exchange(RaceOwner, RequestSink, WaitsForAddress):
    """One request of one client. What observers read of it is `core.observe.ObservedExchange`."""

    __slots__ = (
        "_fell_back_for", "_is_over", "attempts", "body", "breaker_state", "bucket", "budget", "caller",
        "deadline", "detail", "due", "ended", "fallback", "is_remembered", "matched", "moved_at", "race", "reason",
        "refused_by", "request", "response_bytes", "route", "route_name", "service", "started",
        "status", "stream", "trace", "tripped", "tunnel",
    )  # fmt: skip

    trace: Trace
    """Set by `begin`, with the next two."""
    started: float
    ended: float
    deadline: float
    due: float
    """When the sweep is to look here next."""
    moved_at: float
    """When the last byte came, either way."""

    def take(self, service: Service, stream: ServerStream, request: Request) -> Exchange:
        """Set what it has; comes first. Returns itself: the call of an `__init__` takes 0.1 µs more."""
        self.service = service
        self.stream = stream
        self.request = request
        self.body: RequestBody | None = (
            RequestBody().take(stream, service.memory.buffer_bytes) if request.length else None
        )
        self.attempts: list[Attempt] = []
        self.race: Race | None = None
        self.budget = _NO_BUDGET
        self.detail = ""
        self.status = self.response_bytes = 0
        self.route: LiveRoute | None = None
        self.matched: Entry[LiveRoute] | None = None
        """By which of the route's matches it was taken."""
        self.route_name: str | None = None
        self.bucket: set[Expiring] | None = None
        self.reason: Reason | None = None
        self.breaker_state: State | None = None
        self.refused_by: Transition | None = None
        self.tripped: Transition | None = None
        self.fallback: str | None = None
        self.tunnel: Tunnel | None = None
        self.caller: Found | None = None
        self.is_remembered = False
        """The app's calls find it, by the span id of the attempt that they are made for."""
        self._fell_back_for: GivenUp | None = None
        self._is_over = False
        return self

    def __repr__(self) -> str:
        return f"<Exchange {self.request!r} {self.route_name} {len(self.attempts)} tries>"

    # begin

    def begin(self, refusal: GivenUp | None = None) -> None:
        """Go as far as the upstream's connection allows: until the request is sent, in the usual case.

        `refusal`: the request cannot be trusted, and is answered with this; or it is to be refused in an overload,
        unless its route is critical.
        """
        service, request = self.service, self.request
        clock = service.clock  # by a name of its own: as a method's it would take 100 instructions more
        now = self.started = self.moved_at = clock()
        service.exchanges.add(self)
        trace = self.trace = Trace()
        lookup = request.lookup
        if service.strangers and request.listener in service.strangers:
            trace.begin_anew(service, lookup)
            without_context(request)
            lookup = request.lookup
        else:
            trace.begin(service, lookup)
        if refusal is not None and not refusal.is_own_lack:
            # Not raised: its traceback would hold the frame that holds it, which only the collector undoes.
            self.fail(refusal)
            return
        try:
            if b"via" in lookup and lookup[b"via"].count(PSEUDONYM) > MOST_TURNS:
                raise GivenUp(
                    Reason.LOOP, f"the request has passed through here more than {MOST_TURNS} times"
                )
            path, query = request.origin_target, b""
            if _QUESTION_MARK in path:  # 0.05 µs, where to part takes 0.2
                path, _, query = path.partition(b"?")
            table = service.tables.get(request.listener)
            if service.strict and request.listener in service.strict and table is not None:
                strict.refuse_ambiguous(request, table.watched, query)
                lookup = request.lookup
            tls = request.tls
            client, port = ("", 80) if tls is None else (tls.identity, 443)
            if request.asked is not None:
                port = request.asked.port
            entry = (
                None
                if table is None
                else table.find_entry(request.host, path, request.method, lookup, query, client, port)
            )
            if entry is not None and request.asked is not None and not is_meant(entry, request.asked):
                entry = None
            if entry is not None:
                passed, route = None, entry.target
                self.matched = entry
                if route.rewriting is not None:
                    guards.check_prefix(route.rewriting, path)
            else:
                passed = service.passing.find(request, self.stream.peer)
                route = passed.route
            self.route = route
            self.route_name = route.name
            if len(service.exchanges) > service.crowd:
                guards.check_room(self, route)
            if request.method in _MAX_FORWARDS_METHODS and self._ends_here():
                return
            if route.is_egress:
                lineage.recover(self, route)
            self._take_deadline(route, lookup, now)
            guarded = service.shut.every
            if guarded and request.listener in guarded:
                guards.check_listener(self, route, refusal)
            if route.acting is not None:
                prefix_end = entry.prefix_end(path) if entry and passed is None else 0
                if self._is_answered(route.acting, path, prefix_end):
                    return
            if route.admission is not None:
                guards.check_admission(self, route.admission)
            if self.body is not None and (route.policy.retry.attempts or route.policy.hedge is not None):
                self.body.keep_to_resend(route.policy.retry.buffer_bytes, service.memory)
            if passed is None or service.passing.is_known(passed, now):
                destination = route.single or route.choose(service.rng)
                if destination.copying is not None:
                    destination.copying.choose(self, route)
                # As `_new_race`, without the call.
                race = self.race = Race() if request.asked is None else MeantRace()
                race.start(self, self.stream, route, destination, now)
            else:
                service.passing.wait_for(passed, self)
        except GivenUp as error:
            self.fail(error)
        except TooMuchWork as long:
            self.fail(GivenUp(Reason.HEAD_TOO_LARGE, str(long)))

    def found(self, error: GivenUp | None) -> None:
        route = self.route
        if self._is_over or self.race is not None or route is None:
            return
        if error is not None:
            self.fail(error)
            return
        try:
            race = self.race = self._new_race()
            race.start(self, self.stream, route, route.destinations[0], self.service.clock())
        except GivenUp as lost:
            self.fail(lost)
        except Exception as mistake:
            message = "an error in sending a request on; it is ended"
            self.service.loop.call_exception_handler({"message": message, "exception": mistake})
            self.abandon()

    def _new_race(self) -> Race:
        return Race() if self.request.asked is None else MeantRace()

    def _take_deadline(self, route: LiveRoute, lookup: Mapping[bytes, bytes], now: float) -> None:
        seconds = route.first_check_seconds
        fields, policy = self.request.fields, route.deadline
        timeouts: deadline.Timeouts | None = None
        if type(fields) is FILLED and fields.lookup is lookup:
            timeouts = fields.template.timeouts
            if timeouts is None or timeouts.policy is not policy:
                timeouts = deadline.timeouts_of(fields.template, policy)
            may_bound = timeouts.may_bound
        else:
            may_bound = not route.deadline_fields.isdisjoint(lookup)
        if self.caller is None and not may_bound:
            self.budget = route.plain_budget  # the route alone decides: 0.4 µs less than asking everybody
            self.deadline = now + route.request_seconds
        else:
            recovered = self.caller.deadline - now if self.caller is not None else None
            if recovered is None and type(fields) is BLOCK and fields.lookup is lookup:
                budget = deadline.budget_of(fields, policy, route.request_seconds)
            else:
                budget = deadline.budget(lookup, policy, route.request_seconds, recovered, timeouts)
            self.budget = budget
            self.deadline = now + budget.seconds
            if budget.invalid:
                self.service.observe.noticed(Notice.INVALID_TIMEOUT_HEADER, route.name)
            if budget.is_spent:
                raise GivenUp(
                    Reason.DEADLINE_EXCEEDED, f"the caller's time was up on arrival ({budget.source})"
                )
            if budget.seconds < seconds:
                seconds = budget.seconds
        due = self.due = now + seconds
        sweep = self.service.sweep
        if due < sweep.latest_until and due >= sweep.latest_from and seconds >= OWN_TIMER_SECONDS:
            bucket = self.bucket = sweep.latest  # `Sweep.add`, without the call
            bucket.add(self)
        else:
            sweep.add(self, now)

    def _is_answered(self, acting: Acting, path: bytes, matched: int) -> bool:
        """Whether the route has answered itself. Raises: GivenUp, if it refuses the request."""
        size = 0 if self.body is None else max(self.request.length, self.body.size)
        acted = acting.answer(self, path, matched, size)
        if acted is None:
            return False
        self.detail, answer = acted
        self._answer_whole(answer)
        self.finish(self.status)
        return True

    def _ends_here(self) -> bool:
        """`Max-Forwards` (RFC 9110 7.6.2): one hop less is left, and at none the request is answered here."""
        request = self.request
        value = request.lookup.get(b"max-forwards")
        left = None if value is None else max_forwards.after_hop(request.method, value)
        if left is None:
            return False
        if left >= 0:
            line = b"Max-Forwards: %d\r\n" % left
            request.fields = [
                (key, line, b"%d" % left) if key == b"max-forwards" else (key, kept, value)
                for key, kept, value in request.fields
            ]
            return False
        authority = b"" if b"host" in request.lookup else request.host
        echo = max_forwards.echo(request.method, request.target, request.fields, authority)
        answer = answers.final_recipient(
            request.method, echo, request_id=self.trace.request_id, date_line=date.line()
        )
        self.detail = answers.FINAL_RECIPIENT
        self._answer_whole(answer)
        self.finish(self.status)
        return True

    def _answer_whole(self, answer: OwnAnswer) -> None:
        """Send an answer of the sidecar's own."""
        self.status = answer.status
        if answer.head.length is not None and self.request.method != b"HEAD":
            self.response_bytes = len(answer.body)
        self.stream.send_whole(answer.head, answer.body)

    @property
    def prefix_length(self) -> int:
        path = self.request.origin_target.partition(b"?")[0]
        return 0 if self.matched is None else self.matched.prefix_end(path)

    @property
    def tries(self) -> Sequence[Attempt]:
        return self.attempts

    # What a breaker asks that is not closed

    def could_count(self, now: float) -> bool:
        route, left = self.route, self.deadline - now
        assert route is not None
        if self.budget.source in ("", "route") or min(route.attempt_seconds, route.head_seconds) <= left:
            return True
        is_stranger = self.request.listener in self.service.strangers
        return could_count(left, Limit.STRANGER if is_stranger else Limit.CALLER)

    def is_body_complete(self) -> bool:
        return self.body is None or self.body.is_complete

    def is_body_whole(self) -> bool:
        body, traits = self.body, self.request.traits
        if body is None or body.is_all_that_comes:
            return True
        return traits.expects_continue or traits.is_grpc

    # What the race says

    def refused(self, refusal: Refusal) -> NoReturn:
        """A breaker or a limit lets no attempt go. Raises: GivenUp."""
        self.breaker_state = refusal.state
        self.refused_by = refusal.refused_by
        raise GivenUp(refusal.reason, refusal.detail, retry_after_seconds=refusal.retry_after_seconds)

    def tripped_breaker(self, transition: Transition) -> None:
        """The outcome of an attempt has changed its breaker's state."""
        self.tripped = transition
        self.service.transitioned(transition)

    def switched(self, attempt: Attempt, transition: Transition | None) -> None:
        """101: from here on bytes go both ways until both sides end. The deadline was for the handshake."""
        Sweep.remove(self)
        is_101 = self.request.traits.http_version != "2" and self.request.method != b"CONNECT"
        self.status = 101 if is_101 else 200  # RFC 8441 5, RFC 9110 9.3.6
        lineage.switched(self)
        if transition is not None:
            self.tripped_breaker(transition)
        idle_seconds = attempt.route.policy.timeouts.idle_seconds
        service = self.service
        on_end = partial(service.turns.end, partial(self._tunnel_ended, attempt))
        self.tunnel = Tunnel(service.loop, idle_seconds, on_end, service.memory)
        self.tunnel.start(self.stream, attempt.hand_over, attempt.rest)

    def _tunnel_ended(self, attempt: Attempt) -> None:
        if self._is_over:
            return
        if self.tunnel is not None:
            self.response_bytes = self.tunnel.from_upstream_bytes
        attempt.finish(self.service.clock())
        self.finish(self.status)

    def lost(self, error: GivenUp) -> None:
        """No attempt will bring a whole answer."""
        if not self._is_over:
            self._give_up(error)

    # fail

    def fail(self, error: GivenUp) -> None:
        """End it, whatever its attempts do. Once the exchange is over this does nothing."""
        if self._is_over:
            return
        if self.tunnel is not None:
            self.tunnel.cut()
            return
        if self.race is not None:
            self.race.cancel(error)
        self._give_up(error)

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
            self._refuse(error, route.policy.fallback)
        else:
            self._refuse(error, None)
        self.finish(self.status)

    @property
    def _is_head_sent(self) -> bool:
        return self.race is not None and self.race.winner is not None

    def _choose_error(self, first: GivenUp, second: GivenUp) -> GivenUp:
        """The fallback's upstream failed as well: the client hears of one of them, if it hears of any."""
        is_head_sent = self._is_head_sent
        if not is_head_sent:
            self.fallback = None
        return second if instead.is_told(second, is_head_sent=is_head_sent) else first

    def _may_fall_back(self, route: LiveRoute, error: GivenUp) -> bool:
        """Before the head went out; each upstream is asked once (SPEC 3)."""
        if self._is_head_sent or not instead.has_fallback(self, route, error):
            return False
        destination = route.fallback_destination
        if destination is None:
            return True
        is_asked = self.race is not None and self.race.has_asked(destination)
        return not is_asked and instead.may_ask_fallback(self, error)

    def _fall_back(self, route: LiveRoute, destination: Destination, error: GivenUp) -> None:
        """Ask the fallback's upstream, within the time that is left."""
        now = self.service.clock()
        self._fell_back_for = error
        self.fallback = destination.cluster.name
        self.race = None
        self.watch(now)
        race = self.race = self._new_race()
        try:
            race.start(self, self.stream, route, destination, now)
        except GivenUp as second:
            self.fail(second)

    def _refuse(self, error: GivenUp, fallback: FallbackPolicy | None) -> None:
        if error.reason is _CLIENT_GONE:
            self.status = CLIENT_GONE_STATUS
        elif self._is_head_sent:
            self.status = self.attempts[-1].status
            self.stream.reset(error.reason)
        else:
            self._answer_whole(instead.answer_to(self, self.route, error, fallback))

    def finish(self, status: int) -> None:
        """The end of every exchange, whatever happened: let go of everything, tell, hand the client back."""
        self._is_over = True
        self.status = status
        service, stream, reason = self.service, self.stream, self.reason
        bucket = self.bucket
        if bucket is not None:
            bucket.discard(self)
            self.bucket = None
        service.exchanges.discard(self)
        if service.is_draining:
            service.departed.set()
        attempts = self.attempts
        only = attempts[0] if len(attempts) == 1 else None
        now = self.ended = only.ended if reason is None and only is not None else service.clock()
        if self.caller is not None or self.is_remembered:
            lineage.forget(self, now)
        route = self.route
        if route is not None and route.outcomes is not None:
            if attempts and self._fell_back_for is None:
                route.outcomes.keep(attempts, reason)
            else:
                self._keep_refusal(route.outcomes)
        count(service.numbers, self)
        finished = service.observe.finished
        if finished is not _NOBODY_ASKS:
            finished(self)
        # No cycle is left, so nothing waits for the garbage collector.
        if only is not None:
            del only.race
        else:
            for attempt in attempts:
                del attempt.race
        self.race = None
        self.stream = NO_CLIENT
        if self.body is not None:
            self.body.release(NO_CLIENT)
        if reason is not _CLIENT_GONE:
            stream.end(attempts[-1].trailers if attempts else ())

    def _keep_refusal(self, outcomes: Recorder) -> None:
        """No attempt was made of what was asked for first; of its fallback there may be some."""
        first = self._fell_back_for
        reason = self.reason if first is None else first.reason
        if reason in NOT_ADMITTED and (first is None or not first.is_below):
            by = self.refused_by
            is_fallbacks = by is not None and by.upstream == self.fallback
            state = self.breaker_state or State.CLOSED
            outcomes.refuse(self.started, reason, state, None if is_fallbacks else by)
        if self.attempts:
            outcomes.keep(self.attempts, self.reason)

    def abandon(self) -> None:
        """A mistake of ours broke it off: cut the client, and leave nothing behind."""
        reason = self.reason = self.reason or Reason.CONNECTION_RESET
        stream, self.stream = self.stream, NO_CLIENT
        self.service.exchanges.discard(self)
        Sweep.remove(self)
        stream.reset(reason)
        if self.race is not None:
            self.race.cancel(GivenUp(reason, "an error in the sidecar", is_ours=True))
        if not self._is_over:
            self.finish(self.status)

    # What its client says

    def data(self, data: bytes) -> None:
        assert self.body is not None
        now = self.moved_at = self.service.clock()
        if not self.body.size and self.race is not None and self.request.traits.expects_continue:
            for attempt in self.race.running:
                attempt.body_begins(now)
        self.body.arrived(data)
        if self.route is not None and self.route.acting is not None:
            try:
                self.route.acting.check_body(self.body.size)
            except GivenUp as error:
                self.fail(error)
                return
        if self.race is not None and self.race.is_postponed:
            self._ask_again(self.race, now)

    def end(self, trailers: Sequence[Field]) -> None:
        assert self.body is not None
        self.body.completed(trailers)
        race = self.race
        if race is not None:
            now = self.service.clock()
            for attempt in race.running:
                attempt.request_arrived(now)
            if race.running and self.route is not None and self.route.policy.hedge is not None:
                race.await_hedge(now)
                self.watch(now)
            self._ask_again(race, now)

    def _ask_again(self, race: Race, now: float) -> None:
        """If the body has come as far as a probe needs it, or no probes are awaited any more."""
        if race.is_postponed and (self.is_body_whole() or not race.awaits_probes(now)):
            try:
                race.start_again(now)
            except GivenUp as error:
                self.fail(error)

    def gone(self, reason: Reason, detail: str) -> None:
        self.fail(GivenUp(reason, detail))

    def blocked(self) -> None:
        if self.race is not None:
            self.race.hold(self.service.clock())

    def writable(self) -> None:
        if self.race is not None:
            self.race.resume(self.service.clock())

    def caller_gone(self) -> None:
        """The inbound exchange that this one descends from was cancelled (SPEC 5.4)."""
        self.fail(GivenUp(Reason.CALLER_GONE, "caller gone"))

    # The deadline, the attempts' timeouts and idleness: one entry in the sweep

    def watch(self, now: float) -> None:
        """Have the sweep look here at the next moment that may matter."""
        if self.bucket is not None:
            Sweep.remove(self)
        due, route = self.deadline, self.route
        if route is not None and self.moved_at + route.idle_seconds < due:
            due = self.moved_at + route.idle_seconds
        if self.race is not None:
            for attempt in self.race.running:
                if attempt.fails_at < due:
                    due = attempt.fails_at
                next_look = attempt.permit.next_look
                if next_look < due:
                    due = next_look
            if self.race.hedge_at < due:
                self.due = self.race.hedge_at
                self.service.beside.hedges.add(self, now)
                return
        elif route is not None:
            due = min(due, now + route.policy.breaker.judge_after_seconds)  # see `first_check_seconds`
        self.due = due
        self.service.sweep.add(self, now)

    def expire(self, now: float) -> None:
        """`due` has passed: the deadline, an attempt's timeout, or the time without a byte, if it still holds."""
        race = self.race
        if now >= self.deadline:
            since = self.attempts[-1].started if self.attempts else self.started
            error = GivenUp(Reason.TIMEOUT, f"no whole answer within {self.deadline - since:.3g} s")
            if race is None or not race.stands(error):
                self.fail(error)
            return
        if race is not None:
            self._ask_again(race, now)
            race.look(now)
        overdue = race.overdue(now) if race is not None else []
        for attempt in overdue:
            if race is not None:
                race.failed(attempt, GivenUp(Reason.TIMEOUT, f"no {attempt.what_is_late()} s"))
        if not overdue and self.route is not None and now >= self.moved_at + self.route.idle_seconds:
            self.fail(
                GivenUp(Reason.TIMEOUT, "no byte either way for the route's idle timeout", is_idle=True)
            )
        if not self._is_over and self.bucket is None:
            self.watch(now)

    # What observers read beside the plain attributes

    @property
    def peer(self) -> tuple[str, int] | None:
        return self.stream.peer

    @property
    def rewritten_target(self) -> bytes | None:
        route = self.route
        if not self.attempts or route is None or route.rewriting is None:
            return None
        rewriting = route.rewriting
        target = self.request.origin_target
        return rewriting.target(target, self.prefix_length) if rewriting.changes_target else None

    @property
    def grpc_status(self) -> int | None:
        if not self.request.traits.is_grpc:
            return None
        reason, fallback = self.reason, self.fallback
        said = self.attempts[-1].grpc_status if self.attempts else None
        if said is not None and (reason is None or fallback is not None):
            return said
        if reason is not None and fallback != "response":
            return int(grpc.code_of(reason))
        by_http = from_http(self.status)
        return grpc.UNKNOWN if by_http is None else int(by_http)

    @property
    def request_bytes(self) -> int:
        return self.body.size if self.body is not None else 0
