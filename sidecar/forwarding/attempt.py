"""One try of an exchange against one endpoint: gets a place on a connection, sends the request, hears what comes
back.

It knows its race and not the client: what comes back goes to the race, which gives the client to the winner. It owns
its permit and its lease, and lets go of both in `finish` and `judge`, exactly once. Kept as a record when it is over
(`ObservedAttempt`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import floor, inf
from typing import TYPE_CHECKING, Final

from sidecar.core.breaker.permit import Turn
from sidecar.core.deadline import CLOCK_NOISE_SECONDS, MIN_SEND_SECONDS, with_margin
from sidecar.core.ejection.change import Health
from sidecar.core.errors import Reason
from sidecar.core.grpc_status import GrpcStatus
from sidecar.core.outcome import Judged, Kind, Limit, Outcome
from sidecar.core.retry import RetryCause
from sidecar.forwarding import verdicts
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.heads import mark_retry, request_head
from sidecar.forwarding.story import Story
from sidecar.forwarding.withheld import HEAD_SECONDS, MOST_SECONDS, Withheld
from sidecar.upstream.cluster import NoPlace
from sidecar.upstream.lease import Fate, Lease, LeasePool, Seeker
from sidecar.upstream.streams import NO_UPSTREAM, ClientStream, Processed, ResponseSink

if TYPE_CHECKING:
    from sidecar.core.ejection.change import EndpointChange
    from sidecar.core.head import ResponseHead
    from sidecar.core.plain import Field
    from sidecar.core.snapshot import Endpoint
    from sidecar.core.transition import Transition
    from sidecar.forwarding.live import LiveRoute
    from sidecar.forwarding.permit import Permit
    from sidecar.transport.channel import Channel
    from sidecar.upstream.cluster import Wait

# Read from module globals in the hot path: an enum's own lookup costs 15 to 50 ns each time.
_ANSWERED: Final = Kind.ANSWERED
_REUSABLE: Final = Fate.REUSABLE
_CLIENT: Final = Turn.CLIENT
_UPSTREAM: Final = Turn.UPSTREAM
_HEDGE: Final = RetryCause.HEDGE
_SPARED: Final = Health.SPARED
_LOST: Final = "lost to a hedge"
_EARLY_SECONDS: Final = 0.001
"""By so much a server may be early: what it was told is rounded down."""
STALLED_SECONDS = 1.0
"""Without a byte of an answer whose length is known, in the upstream's turn, it is the upstream that is slow."""


class AttemptOwner(ABC):
    """Who began the attempt, and hears of it: the race."""

    __slots__ = ()

    story: Story

    @abstractmethod
    def interim(self, attempt: Attempt, head: ResponseHead) -> None: ...

    @abstractmethod
    def head(self, attempt: Attempt, head: ResponseHead) -> None: ...

    @abstractmethod
    def data(self, attempt: Attempt, data: bytes | memoryview) -> None: ...

    @abstractmethod
    def flush(self, attempt: Attempt) -> None: ...

    @abstractmethod
    def completed(self, attempt: Attempt) -> None:
        """Its answer is whole."""

    @abstractmethod
    def answered(self, attempt: Attempt, head: ResponseHead, body: bytes | memoryview) -> None:
        """`head`, `data` and `completed` in one."""

    @abstractmethod
    def left(self, attempt: Attempt, head: ResponseHead, body: bytes | memoryview) -> bool:
        """A whole answer may be a failure of a suspect endpoint: whether the race has seen to it, so that `answered`
        is not to come."""

    @abstractmethod
    def switched(self, attempt: Attempt, head: ResponseHead) -> None:
        """101."""

    @abstractmethod
    def failed(self, attempt: Attempt, error: GivenUp) -> None:
        """No whole answer will come from it."""

    @abstractmethod
    def may_better(self, attempt: Attempt, head: ResponseHead, grpc_status: int | None) -> bool:
        """Whether another try may be made instead of giving this answer to the client."""

    @abstractmethod
    def may_better_call(self, attempt: Attempt, head: ResponseHead) -> bool:
        """The same of the head of a gRPC answer, which may be all of it but for a bad status."""

    @abstractmethod
    def may_use(self, pool: LeasePool) -> bool:
        """Whether an attempt that waits in line may go to this endpoint instead, which is usable."""

    @abstractmethod
    def linger_seconds(self, now: float) -> float:
        """How long an attempt that failed stays in the load of its endpoint."""

    @abstractmethod
    def blocked(self) -> None:
        """The upstream takes no more of the request for now."""

    @abstractmethod
    def writable(self) -> None: ...


class Attempt(ResponseSink, Seeker):
    """The sender of one request and the receiver of its response.

    `begin` comes first and sets what it has: the call of an `__init__` takes 0.07 µs more.
    """

    __slots__ = (
        "_is_held", "_lease", "_stream", "_wait", "_withheld", "allowed_seconds", "answer", "awaits_message",
        "cause", "ejected", "ended", "fails_at", "grpc_status", "is_retry", "is_whole", "permit", "pool",
        "race", "reason", "resend", "rest", "route", "sent_ms", "sent_seconds", "span_id", "started", "status",
        "trailers", "upstream", "waited_seconds",
    )  # fmt: skip
    __deletable__ = ("race",)

    race: AttemptOwner
    route: LiveRoute
    permit: Permit
    pool: LeasePool | None
    """None when no address is known; it counts the attempt from the beginning to `finish`."""
    upstream: str
    span_id: bytes
    started: float
    ended: float
    allowed_seconds: float
    fails_at: float
    status: int
    """0 until there is a head."""
    reason: Reason | None
    ejected: EndpointChange | None
    """What its end has made of its endpoint."""
    is_retry: bool
    """The upstream is told that it is a further try, or was asked for by one."""
    cause: RetryCause | None
    """Why it was begun after another one; None for the first."""
    resend: int
    """How many there were of the exchange before it."""
    waited_seconds: float
    """How long it had no connection, from its begin on; 0 where there was one."""
    sent_ms: int | None
    """What the upstream was told of its time, in milliseconds."""
    awaits_message: bool
    """A gRPC answer of which the head has come, and no message."""
    is_whole: bool
    """The response has ended as it should."""
    grpc_status: int | None
    """What a whole answer to a gRPC call says; None of any other, and until it is whole."""
    trailers: Sequence[Field]
    answer: ResponseHead
    """The response's head; set with `status`."""
    rest: bytes
    """What came behind a 101."""
    _stream: ClientStream
    _lease: Lease | None
    _wait: Wait | None
    _is_held: bool
    _withheld: Withheld | None
    """What has come of the body of an answer that another try may better; None for any other answer."""

    def begin(
        self,
        race: AttemptOwner,
        route: LiveRoute,
        permit: Permit,
        pool: LeasePool | None,
        upstream: str,
        span_id: bytes,
        started: float,
        allowed_seconds: float,
    ) -> None:
        """Nothing is sent yet: `send` or `wait` comes next.

        A line for each: to assign several at once takes 12 instructions more for each.
        """
        self.race = race
        self.route = route
        self.permit = permit
        self.upstream = upstream
        self.span_id = span_id
        self.started = started
        self.ended = started
        self.allowed_seconds = allowed_seconds
        self.fails_at = started + allowed_seconds
        self.pool = pool
        self.status = 0
        self.resend = 0
        self.reason = None
        self.sent_ms = None
        self._lease = None
        self._wait = None
        self.ejected = None
        self._withheld = None
        self.grpc_status = None
        self.cause = None
        self.sent_seconds = 0.0
        self.waited_seconds = 0.0
        self.is_whole = False
        self._is_held = False
        self.awaits_message = False
        self.is_retry = False
        self.trailers = ()
        self._stream = NO_UPSTREAM

    def __repr__(self) -> str:
        return f"<Attempt {self.upstream} {self.endpoint} status={self.status} reason={self.reason}>"

    @property
    def is_hedge(self) -> bool:
        """It was begun beside one that was slow."""
        return self.cause is _HEDGE

    @property
    def endpoint(self) -> Endpoint | None:
        return self.pool.endpoint if self.pool is not None else None

    @property
    def latest_end(self) -> float:
        """When its time is up if there is no head, but for the bound of a trial."""
        return self.started + min(self.allowed_seconds, self.route.head_seconds)

    @property
    def is_stale(self) -> bool:
        """It met a connection that had been open for long, and that ended before one byte of the response."""
        return self.status == 0 and self._lease is not None and self._lease.is_reused

    @property
    def is_in_line(self) -> bool:
        """It waits for one of our own connections to come free."""
        return self._wait is not None and self._wait.connecting is None

    @property
    def awaits_connection(self) -> bool:
        """It has none yet: it stands in line, or one is being opened for it."""
        return self._wait is not None

    # On its way to the upstream

    def wait(self, wait: Wait | NoPlace) -> None:
        """There is no connection yet: `leased` or `not_leased` will be called.

        Raises:
            GivenUp: there will be none.
        """
        if isinstance(wait, NoPlace):
            raise GivenUp(Reason.OVERLOADED, f"{self.upstream}: {wait.value}", retry_after_seconds=1)
        self._wait = wait
        if wait.connecting is not None:
            now = self.race.story.service.clock()
            if self.permit.sent(self.endpoint, now):
                self._watch(now)

    def leased(self, lease: Lease) -> None:
        """The wait is over: here is a connection."""
        now = self.race.story.service.clock()
        self._end_wait(now)
        pool = self.pool
        assert pool is not None
        if lease.pool is not pool:  # it is the first that came free, of whatever endpoint
            self._move_to(lease.pool)
        race = self.race
        try:
            self.send(lease, now)
        except GivenUp as error:
            # In a turn of its own: this place may be one that another attempt of the race is just leaving, which then
            # is not to find the race over.
            race.story.service.loop.call_soon(race.failed, self, error)

    def opening(self, pool: LeasePool) -> None:
        if pool is not self.pool:
            self._move_to(pool)
        now = self.race.story.service.clock()
        if self.permit.sent(pool.endpoint, now):
            self._watch(now)

    def _move_to(self, pool: LeasePool) -> None:
        if self.pool is not None:
            self.pool.in_flight -= 1
        self.pool = pool
        pool.in_flight += 1
        pool.begun_at = self.started

    def may_use(self, pool: LeasePool) -> bool:
        own = None if self.pool is None else self.pool.standing
        if own is not None and own.health is _SPARED and own.fell_at <= self.started:
            return False  # a trial, which would show nothing elsewhere
        return self.race.may_use(pool)

    def _end_wait(self, now: float) -> None:
        self._wait = None
        seconds = self.waited_seconds = max(0.0, now - self.started)
        if self.pool is not None:
            self.pool.cluster.waited.add([seconds])

    def not_leased(self, reason: Reason, detail: str, *, is_counted: bool = True) -> None:
        self._end_wait(self.race.story.service.clock())
        seconds = 1.0 if reason is Reason.OVERLOADED else 0.0
        error = GivenUp(reason, detail, retry_after_seconds=seconds, is_uncounted=not is_counted)
        self.race.failed(self, error)

    def send(self, lease: Lease, now: float) -> None:
        """Send the request on a connection that nobody uses.

        Raises:
            GivenUp: no time is left.
        """
        exchange, route = self.race.story, self.route
        traits = exchange.request.traits
        stream = lease.begin(self)
        seconds_left = self.fails_at - now
        # Past the bound of a trial alone, it is the race's to say whether it goes on.
        if seconds_left < MIN_SEND_SECONDS and self.latest_end - now < MIN_SEND_SECONDS:
            lease.release(_REUSABLE, now)
            raise GivenUp(Reason.DEADLINE_EXCEEDED, "no time was left to send the request")
        if traits.upgrade and (detail := lease.cannot_switch(exchange.request)):
            lease.release(_REUSABLE, now)
            raise GivenUp(Reason.PROTOCOL_ERROR, detail, is_uncounted=True)
        fails_at = self.started + self.allowed_seconds
        if self.fails_at < fails_at:
            # The body may take longer than the head, and a trial may go on: a sidecar that is told of their limits
            # would cut it.
            seconds_left = fails_at - now
        told_seconds = seconds_left
        if traits.is_grpc:
            # Its server ends the call at the deadline by itself, and tells why: that comes before our cut.
            told_seconds = with_margin(seconds_left, route.deadline.offset_seconds)
            if told_seconds < MIN_SEND_SECONDS:
                told_seconds = MIN_SEND_SECONDS
        self._lease = lease
        self._stream = stream
        self.sent_seconds = seconds_left
        endpoint = lease.pool.endpoint
        if self.permit.sent(endpoint, now):
            self._watch(now)
        sent_ms = None
        if route.is_deadline_sent and told_seconds != inf:
            sent_ms = self.sent_ms = floor(told_seconds * 1000.0)  # `int` takes 0.1 µs more
        head = request_head(exchange, route, self.span_id, sent_ms, told_seconds, endpoint)
        if self.is_retry:
            mark_retry(head)
        body = exchange.body
        if body is None:
            stream.send_head(head)
        elif self.cause is _HEDGE:
            stream.send_head(head, body.again())
            stream.end(body.trailers)
        else:
            if lease.pool.is_shared:
                body.keep_whole()
            body.send(stream, head)
            if not body.is_complete and (body.size or not traits.expects_continue):
                self.permit.turn(_CLIENT, now)

    # What its client does meanwhile

    def _watch(self, now: float) -> None:
        """Have the sweep look here when the breaker wants to look at it, if it would not look earlier."""
        exchange = self.race.story
        if self.permit.next_look < exchange.due:
            exchange.watch(now)

    def _turn(self, whose: Turn, now: float) -> None:
        if self.permit.turn(whose, now):
            self._watch(now)

    def body_begins(self, now: float) -> None:
        """The first piece of a body that its client may hold back (`Expect`): the rest is the client's to send."""
        if self._lease is not None and not self._is_held:
            self._turn(_CLIENT, now)

    def request_arrived(self, now: float) -> None:
        """The client has sent the last of a body that came in pieces."""
        if not self._is_held:
            self._turn(_UPSTREAM, now)

    def body_blocked(self, now: float) -> None:
        """The upstream takes no more of the request for now: that is its own time."""
        if not self._is_held:
            self._turn(_UPSTREAM, now)

    def body_writable(self, now: float) -> None:
        """It does again, and the client may send."""
        body = self.race.story.body
        if not self._is_held and body is not None and not body.is_complete:
            self._turn(_CLIENT, now)

    def body_not_taken(self) -> None:
        """It is out of time, and what has come of the request's body still waits to be taken: since the last piece
        came it was the upstream's turn."""
        exchange = self.race.story
        if exchange.body is not None and not exchange.body.is_complete and self._stream.unsent_bytes:
            self.permit.turn(_UPSTREAM, exchange.moved_at)

    def hold(self, now: float) -> None:
        """The client takes no more of the answer for now."""
        if self._lease is not None and not self._is_held:
            self._is_held = True
            self._turn(_CLIENT, now)
            self._stream.hold()

    def resume(self, now: float) -> None:
        if self._is_held:
            self._is_held = False
            self._turn(_UPSTREAM, now)
            self._stream.resume()

    def what_is_late(self) -> str:
        """What had to be there when `fails_at` passed, and within how many seconds."""
        seconds = self.fails_at - self.started
        is_head = not self.status and seconds < self.allowed_seconds - CLOCK_NOISE_SECONDS
        return f"{'head of an answer' if is_head else 'whole answer'} within {seconds:.3g}"

    def waits_for_client(self) -> bool:
        """Whether it is the client's turn: to take more of the answer, or to send the rest of its body."""
        exchange = self.race.story
        body = exchange.body
        if self._lease is None:
            return False
        if self._is_held:
            return True
        if body is None or body.is_complete or self._stream.unsent_bytes:
            return False
        return body.size > 0 or self.permit.is_clients_turn or not exchange.request.traits.expects_continue

    # Its end

    def finish(self, now: float) -> None:
        """It is over, however that came: let go of the connection, and cut what did not end as it should."""
        self.ended = now
        pool = self.pool
        if pool is not None:
            pool.in_flight -= 1
        body = self.race.story.body
        if body is not None and self.cause is not _HEDGE:
            body.stop()
        lease = self._lease
        if lease is None:
            if self._wait is not None:
                self._wait.cancel()
                self._end_wait(now)
            return
        self._lease = None
        self._stream = NO_UPSTREAM
        if self.is_whole:
            lease.release(_REUSABLE if body is None or body.is_complete else Fate.BROKEN, now)
        elif self.status == 101:
            lease.release(Fate.HANDED_OVER, now)
        else:
            lease.release(Fate.BROKEN, now)

    def judge(self, kind: Kind, now: float, error: GivenUp | None = None) -> Transition | None:
        """Tell the permit how it ended, and give it back. Returns the change of state that this made."""
        return self._judge(self._outcome(kind, now, error), now)

    def _judge(self, outcome: Outcome, now: float) -> Transition | None:
        permit, pool = self.permit, self.pool
        failed_before = 0 if pool is None else pool.standing.failed
        transition = permit.judge(outcome, now, self.race.story.trace)
        permit.close(now)
        if pool is not None:
            if pool.standing.failed != failed_before:
                pool.cluster.linger(pool, self.race.linger_seconds(now))
            self.settle(now)
        return transition

    def lose(self, now: float, *, is_fault: bool) -> None:
        """Another one has the client. It counts for nothing in the breaker; `is_fault`: its endpoint was slow, which
        counts for ejection."""
        if is_fault:
            self._judge(Outcome(Kind.ABANDONED, error_type=_LOST, has_lost=True), now)
        else:
            self.permit.close(now)

    def settle(self, now: float) -> None:
        """What has become of it may have changed what is thought of its endpoint."""
        pool = self.pool
        if pool is not None and pool.cluster.peers.news:
            self.ejected = pool.cluster.settle(now)

    def _outcome(self, kind: Kind, now: float, error: GivenUp | None) -> Outcome:
        """Its end, as the breaker judges it."""
        exchange, status = self.race.story, self.status
        is_cut = status != 0 and (kind is Kind.TIMED_OUT or kind is Kind.LEFT)
        is_idle = is_cut and error is not None and error.is_idle
        if is_idle:
            kind = Kind.ABANDONED
        limit, own_seconds = verdicts.limit(exchange, self.route, self.allowed_seconds, self.fails_at)
        is_grpc = exchange.request.traits.is_grpc
        is_answer = (status >= 400 or is_grpc) and (kind is _ANSWERED or kind is Kind.REFUSED_BELOW)
        if is_answer and verdicts.is_refusal_below(self.answer, self.is_mesh):
            kind = Kind.REFUSED_BELOW
        return Outcome(
            kind,
            status,
            0.0 if self.sent_seconds == inf else self.sent_seconds,
            status != 0 and verdicts.is_marked(self.answer, self.route.policy.breaker),
            limit,
            own_seconds if limit is Limit.ROUTE else 0.0,
            is_cut,
            is_cut
            and self.answer.length is not None
            and not self._is_held
            and now - exchange.moved_at >= STALLED_SECONDS,
            verdicts.retry_after(self.answer) if is_answer else 0.0,
            "" if error is None else error.reason.error_type,
            "" if error is None else error.detail,
            verdicts.grpc_status(self.answer, self.trailers) if kind is _ANSWERED and is_grpc else None,
            is_idle=is_idle,
        )

    @property
    def is_mesh(self) -> bool:
        """A sidecar of ours stands before the upstream."""
        return self.pool is not None and self.pool.cluster.is_mesh

    @property
    def is_timeout_below(self) -> bool:
        """The upstream, or who stands before it, says in its answer that the time was up."""
        return self.status == 504 or self.grpc_status == GrpcStatus.DEADLINE_EXCEEDED

    # What only observers ask

    @property
    def judged(self) -> Judged:
        return self.permit.judged(self.ended)

    # What the upstream's connection says

    def interim(self, head: ResponseHead) -> None:
        exchange = self.race.story
        if head.status == 100 and exchange.request.traits.expects_continue:
            self.body_writable(exchange.service.clock())  # it asks for the body: the client's to send
        self.race.interim(self, head)

    def head(self, head: ResponseHead) -> None:
        self.status = head.status
        self.answer = head
        if head.status == 503 and self._falls_back():
            return
        if head.status == 200 and self.race.story.request.traits.is_grpc:
            if self._falls_back():
                return
            self.awaits_message = True  # the head of a gRPC answer says nothing; its first message does
            if self.race.may_better_call(self, head):
                self._withhold(HEAD_SECONDS)
                return
            self.race.head(self, head)
            return
        self._judge_head(head)
        if self.race.may_better(self, head, None):
            self._withhold(MOST_SECONDS)
            return
        self.race.head(self, head)

    def _judge_head(self, head: ResponseHead) -> None:
        exchange = self.race.story
        now = exchange.service.clock()
        if self.pool is not None and self.pool.standing.is_watched:
            self.permit.be_own()
        if head.status < 400 and self.route.has_plain_failures:
            next_look = self.permit.head(head.status, now)
        else:
            next_look = self.permit.head(
                head.status,
                now,
                is_marked=verdicts.is_marked(head, self.route.policy.breaker),
                retry_after_seconds=verdicts.retry_after(head),
            )
        if next_look < exchange.due:
            exchange.watch(now)

    def data(self, data: bytes | memoryview) -> None:
        is_first_message = self.awaits_message
        if is_first_message:
            self.awaits_message = False
            self._judge_head(self.answer)
        withheld = self._withheld
        if withheld is None:
            self.race.data(self, data)
            return
        exchange = self.race.story
        exchange.moved_at = exchange.service.clock()
        if not withheld.add(data) or is_first_message:
            self._hand_on()

    def _withhold(self, seconds: float) -> None:
        """Keep what follows: another try may better it."""
        service = self.race.story.service
        self._withheld = Withheld(service.loop, service.memory, service.clock(), seconds, self._hand_on)
        self.fails_at = self.started + self.allowed_seconds  # a limit on the head alone is kept

    def _hand_on(self) -> None:
        """The rest takes too long, or is too much, or there is no reason to keep it any more."""
        body = self.drop_withheld()
        self.race.head(self, self.answer)
        if body:
            self.race.data(self, body)
        self.race.flush(self)

    def drop_withheld(self) -> bytes:
        """What was kept, which is not any more."""
        withheld, self._withheld = self._withheld, None
        if withheld is None:
            return b""
        withheld.release()
        return bytes(withheld.body)

    def flush(self) -> None:
        if self._withheld is None:
            self.race.flush(self)

    def end(self, trailers: Sequence[Field]) -> None:
        self.is_whole = True
        self.trailers = trailers
        if self.race.story.request.traits.is_grpc:
            self.grpc_status = verdicts.told_grpc_status(self.answer, trailers)
        if self._withheld is not None:
            body = self.drop_withheld()
            if not self.race.left(self, self.answer, body):
                self.race.answered(self, self.answer, body)
            return
        self.race.completed(self)

    def answered(self, head: ResponseHead, body: bytes | memoryview, trailers: Sequence[Field] = ()) -> None:
        race = self.race
        self.status = head.status
        self.answer = head
        self.trailers = trailers
        self.is_whole = True
        if race.story.request.traits.is_grpc:
            self.grpc_status = verdicts.told_grpc_status(head, trailers)
            if self.route.policy.fallback is not None and self._falls_back():
                return
        elif head.status >= 500 and self._is_kept_from_client(head, body):
            return
        race.answered(self, head, body)

    def _is_kept_from_client(self, head: ResponseHead, body: bytes | memoryview) -> bool:
        """Whether somebody else answers in the place of a whole answer of 5xx."""
        return (head.status == 503 and self._falls_back()) or self.race.left(self, head, body)

    def _falls_back(self) -> bool:
        """The breaker of the next sidecar was open, and this route has a fallback: that serves, as it does where our
        own breaker is open. Any other 503 is the upstream's own answer."""
        if self.route.policy.fallback is None or not verdicts.is_refusal_below(self.answer, self.is_mesh):
            return False
        detail = f"the circuit breaker behind {self.upstream} is open"
        seconds = verdicts.retry_after(self.answer)
        self.race.failed(
            self, GivenUp(Reason.CIRCUIT_OPEN, detail, retry_after_seconds=seconds, is_below=True)
        )
        return True

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        self.status = 101
        self.answer = head
        self.rest = rest
        self.race.switched(self, head)

    def failed(self, reason: Reason, detail: str, processed: Processed) -> None:
        if reason is Reason.CONNECTION_RESET and self._is_past_told_deadline():
            self.race.failed(self, GivenUp(Reason.TIMEOUT, f"{detail}, at the deadline that it was told"))
            return
        is_stale = processed is Processed.MAYBE and self.is_stale
        # A certificate of ours that the upstream does not take says nothing of the upstream.
        is_uncounted = processed is Processed.NEVER and reason is Reason.TLS_ALERT
        error = GivenUp(reason, detail, is_stale=is_stale, processed=processed, is_uncounted=is_uncounted)
        self.race.failed(self, error)

    def _is_past_told_deadline(self) -> bool:
        """Whether a gRPC server had no time left by the `grpc-timeout` that it was told. Those of Java and Go end a
        call then by RST_STREAM, without a status."""
        story, seconds = self.race.story, self.sent_seconds
        if self.sent_ms is None or not story.request.traits.is_grpc:
            return False
        margin = seconds - with_margin(seconds, self.route.deadline.offset_seconds)
        ends_at = self.started + self.allowed_seconds - margin
        return story.service.clock() >= ends_at - _EARLY_SECONDS

    def declined(self, detail: str) -> None:
        self.race.failed(self, GivenUp(Reason.PROTOCOL_ERROR, detail, is_uncounted=True))

    def broken(self) -> None:
        self.race.failed(self, GivenUp(Reason.CONNECTION_RESET, "an error in the sidecar", is_ours=True))

    def blocked(self) -> None:
        if self.cause is not _HEDGE:  # whose body is all here: there is nobody to hold back
            self.race.blocked()

    def writable(self) -> None:
        if self.cause is not _HEDGE:
            self.race.writable()

    def hand_over(self, protocol: object) -> Channel:
        """After a switch: `protocol` hears what the upstream sends from now on."""
        assert self._lease is not None
        return self._lease.hand_over(protocol)
