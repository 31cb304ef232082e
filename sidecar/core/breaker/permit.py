"""What a breaker answers to one attempt: a permit with the moments of that attempt's life, or a refusal.

    sent      the request goes to an endpoint: the upstream's time begins
    turn      it is the client's turn (it sends its body, or takes no more of the answer), or the upstream's again
    head      a final head has come
    look      `next_look` has come: slow while it runs, or time to judge an answer that has begun well
    judge     it has ended
    late      it has ended after it was judged by its head
    close     nothing more will come; always, exactly once. Without a verdict nothing was learned

A permit belongs to one attempt and knows how long it was the upstream's turn; what follows from that is the breaker's
to say. A closed breaker hands out a `Door` instead (`door.py`), one for all.

No method suspends or reads a clock: `now` is monotonic seconds. A change of state is returned, for the caller
to report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from enum import Enum
from math import inf
from typing import Final

from sidecar.core.breaker.window import Window
from sidecar.core.breaker.words import told
from sidecar.core.contract import SLOTTED
from sidecar.core.history import Culprit
from sidecar.core.outcome import Kind, Outcome, Verdict, judge_status
from sidecar.core.path_dataclass import dataclass
from sidecar.core.snapshot import BreakerPolicy
from sidecar.core.transition import State, Transition

NO_GENERATION: Final = -1
"""Of a permit that takes no part in the state machine: its outcome is counted and changes nothing."""


class Turn(Enum):
    """Whose move it is."""

    OURS = "ours"
    """In our own queue."""
    UPSTREAM = "upstream"
    CLIENT = "client"


# Members are read from module globals in the hot path: the enum's own lookup costs 50 ns each time.
_OURS: Final = Turn.OURS
_UPSTREAM: Final = Turn.UPSTREAM
_CLIENT: Final = Turn.CLIENT


@dataclass(eq=False, **SLOTTED)
class BreakerRefusal:
    """The breaker does not let the attempt go. Not frozen, since a frozen one takes 0.9 µs to make, this one 0.2."""

    state: State
    """CLOSED where a ramp admits only a share."""
    retry_after_seconds: float
    """Until the next request has a chance, as far as the breaker knows."""
    transition: Transition | None = None
    """The change of state that this very question caused; the caller reports it."""
    refused_by: Transition | None = None
    """What opened the breaker. None if it was configured open."""
    ramp_share: float | None = None
    """What share a ramp admits at present."""
    is_postponed: bool = False
    """It may be a probe, but not before its body is whole: ask again then. It has been counted nowhere."""

    is_admitted = False
    is_probe = False
    is_waved_through = False

    @property
    def told(self) -> str:
        """The state in words, for the answer: `open`, or `closed, ramping 35 %`."""
        return told(self.state, self.ramp_share)


class Keeper(ABC):
    """What a permit asks and tells its breaker."""

    __slots__ = ()

    @property
    @abstractmethod
    def slow_seconds(self) -> float: ...
    @property
    @abstractmethod
    def avoid(self) -> tuple[Hashable, ...]: ...
    @property
    @abstractmethod
    def policy(self) -> BreakerPolicy: ...
    @abstractmethod
    def succeed_apart(self, generation: int, seconds: float, now: float) -> Transition | None: ...
    @abstractmethod
    def check_rates(self, now: float) -> Transition | None: ...
    @abstractmethod
    def heard_head(self, permit: BreakerPermit, verdict: Verdict) -> None: ...
    @abstractmethod
    def is_running_slow(
        self, permit: BreakerPermit, now: float, culprit: Culprit | None
    ) -> Transition | None: ...
    @abstractmethod
    def take(
        self, permit: BreakerPermit, outcome: Outcome, now: float, culprit: Culprit | None, *, is_early: bool
    ) -> Transition | None: ...
    @abstractmethod
    def take_late(
        self, permit: BreakerPermit, outcome: Outcome, now: float, culprit: Culprit | None
    ) -> Transition | None: ...


class BreakerPermit:
    """The right to make one attempt, and what has become of it so far. Only the breaker writes what is not
    moments."""

    __slots__ = (
        "_due", "_had", "_head_seconds", "_is_closed", "_keeper", "_retry_after", "_since", "_turn", "endpoint",
        "generation", "is_bad_head", "is_check", "is_firm", "is_probe", "is_slow", "is_stream", "mark", "place",
        "refused_by", "sent_at", "state", "status", "transition", "twin", "verdict", "window",
    )  # fmt: skip

    is_admitted = True

    def __init__(
        self,
        keeper: Keeper,
        generation: int,
        state: State,
        *,
        transition: Transition | None = None,
        twin: BreakerPermit | None = None,
    ) -> None:
        self._keeper = keeper
        self.generation = generation
        """The state period that admitted it, or NO_GENERATION."""
        self.state = state
        """At admission; HALF_OPEN for the first probe, too."""
        self.transition = transition
        """The change of state that this very admission caused; the caller reports it."""
        self.twin = twin
        """That of a second policy, which hears all that is said of the attempt."""
        self.is_probe = False
        self.is_firm = True
        """Its timeout could count."""
        self.is_check = False
        """A probe by the sidecar itself."""
        self.refused_by: Transition | None = None
        """Of one waved through: what opened the breaker."""
        self.endpoint: Hashable = None
        self.sent_at = 0.0
        """When it was sent last, in monotonic seconds."""
        self.status = 0
        self.is_bad_head = False
        self.verdict: Verdict | None = None
        self.is_slow = False
        """It has been counted as slow."""
        self.is_stream = False
        """It was judged by its head, and its answer went on."""
        self.mark = 0
        self.place = 0
        self.window: Window | None = None
        """Where it stands with its mark; None: nowhere yet."""
        self._due = inf
        self._turn = _OURS
        self._since = 0.0
        self._had = 0.0
        self._head_seconds = -1.0
        self._retry_after = 0.0
        self._is_closed = False

    def __repr__(self) -> str:
        kind = "probe" if self.is_probe else "permit"
        return f"<{kind} of generation {self.generation}, {self._turn.value}'s turn, {self.verdict}>"

    @property
    def next_look(self) -> float:
        """When `look` is to be called, in monotonic seconds, or `inf`; to be read again after each moment."""
        return self._due if self.twin is None else min(self._due, self.twin.next_look)

    @property
    def is_waved_through(self) -> bool:
        """The state machine refused it, but the policy only measures, so it was admitted."""
        return self.generation == NO_GENERATION

    @property
    def is_clients_turn(self) -> bool:
        return self._turn is _CLIENT

    @property
    def has_head(self) -> bool:
        return self._head_seconds >= 0.0

    @property
    def head_seconds(self) -> float:
        """Of the upstream's time until the final head; below 0 before it."""
        return self._head_seconds

    @property
    def avoid(self) -> tuple[Hashable, ...]:
        """For a probe: the endpoints that failed lately, the last one last, which others are to be preferred to."""
        return self._keeper.avoid if self.is_probe else ()

    def seconds(self, now: float) -> float:
        """How long it was the upstream's turn."""
        return self._had + now - self._since if self._turn is _UPSTREAM else self._had

    def client_seconds(self, now: float) -> float:
        """How long it has been the client's turn without a break."""
        return now - self._since if self._turn is _CLIENT else 0.0

    def own(self) -> BreakerPermit:
        """Itself; a `Door` makes a new permit."""
        return self

    # The moments.

    def sent(self, endpoint: Hashable, now: float) -> None:
        """The request goes there now, or a connection for it is being opened: the upstream's time begins."""
        self.endpoint = endpoint
        self.sent_at = now
        if self.twin is not None:
            self.twin.endpoint = endpoint
            self.twin.sent_at = now
        self.turn(_UPSTREAM, now)

    def catch_up(
        self, endpoint: Hashable, sent_at: float, head_at: float | None = None, status: int = 200
    ) -> None:
        """Of a permit that a `Door` has just made: what has happened to the attempt so far. It was the
        upstream's turn all the time, and the door was told of the head."""
        if self.twin is not None:
            self.twin.catch_up(endpoint, sent_at, head_at, status)
        self.endpoint = endpoint
        self._turn = _UPSTREAM
        self._since = self.sent_at = sent_at
        if head_at is None:
            self._look_for_slowness()
        else:
            self.status = status
            self._head_seconds = head_at - sent_at
            self._due = head_at + self._keeper.policy.judge_after_seconds

    def turn(self, whose: Turn, now: float) -> None:
        """It is somebody else's turn from now on."""
        if self.twin is not None:
            self.twin.turn(whose, now)
        if self._turn is _UPSTREAM:
            self._had += now - self._since
        self._turn = whose
        self._since = now
        if not self.has_head:
            self._look_for_slowness()

    def head(
        self, status: int, now: float, *, has_failure_header: bool = False, retry_after_seconds: float = 0.0
    ) -> None:
        """A final head has come. For gRPC: the first message; trailers-only is the end."""
        if self.twin is not None:
            self.twin.head(
                status, now, has_failure_header=has_failure_header, retry_after_seconds=retry_after_seconds
            )
        breaker = self._keeper
        self.status = status
        self.is_bad_head = has_failure_header
        self._retry_after = retry_after_seconds
        self._head_seconds = self.seconds(now)
        if self.verdict is None:
            self._due = now + breaker.policy.judge_after_seconds
        breaker.heard_head(self, judge_status(status, has_failure_header, breaker.policy))

    def look(self, now: float, culprit: Culprit | None = None) -> Transition | None:
        """Do what is due: count a call that runs too long as slow, or judge one by its head."""
        if self.twin is not None:
            self.twin.look(now)
        if now < self._due:
            return None
        self._due = inf
        if not self.has_head:
            return self._keeper.is_running_slow(self, now, culprit)
        outcome = Outcome(
            Kind.ANSWERED,
            self.status,
            has_failure_header=self.is_bad_head,
            retry_after_seconds=self._retry_after,
            error_type="" if self.status < 400 else str(self.status),
        )
        self.is_stream = True
        return self._keeper.take(self, outcome, now, culprit, is_early=True)

    def judge(self, outcome: Outcome, now: float, culprit: Culprit | None = None) -> Transition | None:
        """It has ended so; at most once. What was judged by its head is late.

        The culprit's ids are copied only if the outcome may matter later.
        """
        if self.twin is not None:
            self.twin.judge(outcome, now)
        if self.verdict is not None:
            return self._keeper.take_late(self, outcome, now, culprit)
        self._due = inf
        return self._keeper.take(self, outcome, now, culprit, is_early=False)

    def late(self, outcome: Outcome, now: float, culprit: Culprit | None = None) -> Transition | None:
        """The end of an attempt that was judged by its head: what `judge` does then."""
        return self.judge(outcome, now, culprit)

    def succeed(self, seconds: float, now: float) -> Transition | None:
        """What `Door.succeed` does, for an attempt that has a permit of its own."""
        self.spend(seconds)
        transition = self.judge(_SUCCESS, now)
        self.close(now)
        return transition

    def spend(self, seconds: float) -> None:
        """The upstream has had that much time in all."""
        self._turn, self._had = _OURS, seconds
        if self.twin is not None:
            self.twin.spend(seconds)

    def close(self, now: float) -> None:
        """Nothing more will come. Without a verdict a probe goes back uncounted. A second call changes nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._due = inf
        if self.twin is not None:
            self.twin.close(now)
        if self.verdict is None:
            self._keeper.take(self, _NOTHING, now, None, is_early=False)

    def _look_for_slowness(self) -> None:
        slow_seconds = self._keeper.slow_seconds
        if slow_seconds < inf:
            is_due = self._turn is _UPSTREAM and not self.is_slow and self.verdict is None
            self._due = self._since + slow_seconds - self._had if is_due else inf


_SUCCESS: Final = Outcome(Kind.ANSWERED, 200)
_NOTHING: Final = Outcome(Kind.ABANDONED)
