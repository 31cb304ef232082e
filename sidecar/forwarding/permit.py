"""The right to make one attempt: breaker and limits hear of it together, from one place, exactly once.

Assumes abandonment: whatever happens to an attempt, `close` gives back what it held, and without a verdict the
breaker is told that nothing was learned, so that a probe's place comes free. Each attempt has its own. A closed
breaker's answer is one `Door` for all; what is beyond a plain answer is said to a permit of the breaker's own,
which is made when it is first needed."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import TYPE_CHECKING, Final

from sidecar.core.breaker.door import Door
from sidecar.core.breaker.permit import BreakerPermit, Turn
from sidecar.core.errors import Reason
from sidecar.core.outcome import Judged, Kind, Outcome, Verdict
from sidecar.core.transition import State, Transition

if TYPE_CHECKING:
    from sidecar.core.ejection.standing import Standing
    from sidecar.core.history import Culprit
    from sidecar.core.snapshot import Endpoint
    from sidecar.upstream.cluster import Cluster

# Read from module globals in the hot path: an enum's own lookup costs 15 to 50 ns each time.
_CLIENT: Final = Turn.CLIENT
_UPSTREAM: Final = Turn.UPSTREAM
_PLAIN: Final = Outcome(Kind.ANSWERED, 200)


class Refusal:
    """Why an attempt may not be made."""

    __slots__ = (
        "detail", "is_postponed", "reason", "refused_by", "retry_after_seconds", "state", "transition",
    )  # fmt: skip

    def __init__(
        self,
        reason: Reason,
        detail: str,
        retry_after_seconds: float,
        state: State,
        transition: Transition | None,
        refused_by: Transition | None = None,
        *,
        is_postponed: bool = False,
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self.state = state
        """The breaker's."""
        self.transition = transition
        """The change of state that asking has caused; the caller reports it."""
        self.refused_by = refused_by
        """What opened the breaker."""
        self.is_postponed = is_postponed
        """It may be a probe, but not before its body is whole: ask again then."""


class Permit:
    """Held by one attempt. `judge` at most once, `close` exactly once. Times are those of the loop's clock.

    `Destination.admit` alone makes it, and `begin` sets all of it.
    """

    __slots__ = (
        "_client_since",
        "_cluster",
        "_door",
        "_endpoint",
        "_is_judged",
        "_status",
        "head_at",
        "own",
        "sent_at",
        "state",
        "transition",
    )

    state: State
    """The breaker's, at admission."""
    _cluster: Cluster
    _door: Door | None
    own: BreakerPermit | None
    """The breaker's permit for this very attempt; None: nothing but a plain answer has come of it."""
    _endpoint: Endpoint | None
    transition: Transition | None
    """The change of state that this very admission caused; the caller reports it."""
    _client_since: float
    """Since when it has been the client's turn, before the head; infinite if it is not."""
    sent_at: float
    """When the upstream's time began, infinite before; later than it was by the client's turns before the head."""
    head_at: float
    """When a good final head came before the rest of its answer, infinite where it did not."""
    _is_judged: bool
    _status: int
    """Of the head; set with `head_at`."""

    def begin(self, cluster: Cluster, state: State, door: Door | None, own: BreakerPermit | None) -> None:
        """Set all of it but the status; comes first. The breaker's answer is one of the two."""
        self._cluster = cluster
        self._door = door
        self.own = own
        self.transition = None if own is None else own.transition  # no door's admission changes a state
        self.state = state
        self._endpoint = None
        self._client_since = inf
        self.sent_at = inf
        self.head_at = inf
        self._is_judged = False

    def __repr__(self) -> str:
        told = "judged" if self._is_judged else self.own or self._door
        return f"<Permit for {self._cluster.name}: {told}>"

    @property
    def is_probe(self) -> bool:
        return not self._is_judged and self.own is not None and self.own.is_probe

    def upstream_seconds(self, now: float) -> float:
        """How long it has been at the upstream."""
        if self.own is not None:
            return self.own.seconds(now)
        return 0.0 if self.sent_at == inf else now - self.sent_at

    @property
    def is_clients_turn(self) -> bool:
        own = self.own
        return self._client_since < inf if own is None else own.is_clients_turn

    @property
    def avoid(self) -> tuple[Hashable, ...]:
        """The endpoints that a probe does not go to while there are others, the last that failed last."""
        return () if self.own is None else self.own.avoid

    def judged(self, ended: float) -> Judged:
        """What the breaker has said of it. It ended then."""
        own, sent_at = self.own, self.sent_at
        if own is not None:
            head = own.head_seconds if own.has_head else None
            sent = None if sent_at == inf else own.sent_at
            return Judged(own.verdict or Verdict.IGNORED, self.state, sent, head, own.seconds(ended))
        head = (ended if self.head_at == inf else self.head_at) - sent_at
        return Judged(Verdict.SUCCESS, self.state, sent_at, head, ended - sent_at)

    def be_own(self) -> None:
        """Something of this very attempt is of interest: its endpoint is watched."""
        if not self._is_judged:
            self._needed()

    # The moments of the attempt

    def sent(self, endpoint: Endpoint | None, now: float) -> bool:
        """The upstream's time begins: a connection to it is being opened, or the request is sent. Returns whether
        `next_look` is to be asked."""
        door, own = self._door, self.own
        if own is None and door is not None and self.sent_at == inf:  # the usual case: 0.05 µs less
            self._endpoint = endpoint
            self.sent_at = now
            return door.is_looking
        if self.sent_at == inf or self.head_at < inf or self._endpoint != endpoint:
            # Else the connection that was being opened is there.
            self._endpoint = endpoint
            self.sent_at = now
            self._client_since = inf
            if own is not None:
                own.sent(endpoint, now)
        return door is None or own is not None or door.is_looking

    def turn(self, whose: Turn, now: float) -> bool:
        """It is the client's turn from now on, or the upstream's again. Returns whether `next_look` is to be
        asked."""
        if self._is_judged or self.sent_at == inf:
            return False
        door = self._door
        if self.own is not None or door is None or self.head_at < inf:
            self._needed().turn(whose, now)
            return True
        if whose is _CLIENT:
            if now < self._client_since:  # `min` takes 0.1 µs more
                self._client_since = now
        elif self._client_since < inf:
            self.sent_at += now - self._client_since
            self._client_since = inf
        return door.is_looking

    def head(
        self, status: int, now: float, *, is_marked: bool = False, retry_after_seconds: float = 0.0
    ) -> float:
        """A final head has come, and the rest of the answer has not. `is_marked`: a header field makes it a
        failure. Returns `next_look`."""
        if self._is_judged:
            return inf  # a loser's
        door = self._door
        if self.own is None and door is not None and status < 400 and not is_marked:
            if self._client_since < inf:
                self.turn(_UPSTREAM, now)
            self.head_at = now
            self._status = status
            door.head(now)
            return now + door.judge_after_seconds
        own = self._needed()
        own.head(status, now, has_failure_header=is_marked, retry_after_seconds=retry_after_seconds)
        return own.next_look

    @property
    def next_look(self) -> float:
        """When `look` is to be called; infinite for never."""
        own, door = self.own, self._door
        if own is not None or door is None:
            return inf if own is None else own.next_look
        if self.head_at < inf:
            return self.head_at + door.judge_after_seconds
        return door.next_look(self.sent_at) if self._client_since == inf else inf

    def look(self, now: float, cause: Culprit | None = None) -> Transition | None:
        """What is due: a call that runs too long is slow, a stream is judged by its head."""
        if self._is_judged:
            return None
        own = self._needed()
        was_stream = own.is_stream
        transition = own.look(now, cause)
        if own.is_stream and not was_stream:
            self._cluster.in_flight_limit.streams += 1
            if self._cluster.adaptive is not None:
                self._time_head(own, now, is_good=own.status < 400)
        return transition

    def judge(self, outcome: Outcome, now: float, cause: Culprit | None) -> Transition | None:
        """Tell the breaker how the attempt ended. Returns the change of state that this made."""
        if self._is_judged:
            return None
        own = self._needed()
        self._is_judged = True
        is_new = own.verdict is None
        transition = own.judge(outcome, now, cause)
        if is_new and self._cluster.adaptive is not None:
            self._time_head(own, now, is_good=outcome.status < 400 and not outcome.grpc_status)
        return transition

    def succeed(self, standing: Standing, now: float, cause: Culprit | None) -> Transition | None:
        """`judge` and `close` in one, for a whole answer with a status below 400: the usual case. `standing`: of its
        endpoint, which nobody watches."""
        self._cluster.in_flight -= 1
        self._is_judged = True
        door, own = self._door, self.own
        if own is None and door is not None:
            standing.good += 1
            upstream_until = now if self._client_since == inf else self._client_since
            return door.succeed(upstream_until - self.sent_at, now)
        own = self._needed()
        is_new = own.verdict is None
        transition = own.judge(_PLAIN, now, cause)
        if is_new and self._cluster.adaptive is not None:
            self._time_head(own, now, is_good=True)
        self._cluster.in_flight_limit.streams -= own.is_stream
        own.close(now)
        return transition

    def _time_head(self, own: BreakerPermit, now: float, *, is_good: bool) -> None:
        """The adaptive limit learns from good answers. Those of 4xx, and what a gRPC server says in their place, tell
        nothing of a line: to refuse is quick."""
        adaptive = self._cluster.adaptive
        if adaptive is not None and is_good and own.verdict is Verdict.SUCCESS:
            adaptive.record(own.head_seconds if own.has_head else own.seconds(now), now)

    def close(self, now: float) -> None:
        """The attempt is over: limits are free again, and what was not judged taught nothing."""
        own = self._needed()
        self._cluster.in_flight -= 1
        self._cluster.in_flight_limit.streams -= own.is_stream
        self._is_judged = True
        own.close(now)

    def _needed(self) -> BreakerPermit:
        """The breaker's permit for this very attempt."""
        own, door = self.own, self._door
        if own is None:
            assert door is not None
            own = self.own = door.own()
            if self.sent_at < inf:
                head_at = None if self.head_at == inf else self.head_at
                own.catch_up(self._endpoint, self.sent_at, head_at, 0 if head_at is None else self._status)
                if self._client_since < inf:
                    own.turn(_CLIENT, self._client_since)
        return own
