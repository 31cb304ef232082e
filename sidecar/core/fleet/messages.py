"""What the processes of a fleet tell each other about their breakers: immutable values, and nothing of how they
travel.

Every message may be lost, late, doubled or out of order. So none of them says what has changed, only what is: a
report replaces all older ones of its process, a decision stands by its number, an override too. A time is always
relative ("so many seconds are left"), since no two machines' clocks are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.core.override import Override
from sidecar.core.transition import State

SLOTS: Final = 8
"""Parts of a time window that a report tells apart, so that whoever has it may let the old ones go."""
MAX_ITEMS: Final = 256
"""Of one batch."""
MAX_NAME: Final = 200
"""Characters of a breaker's key, and of who asked for an override."""

MOST_NUMBER: Final = 2**47
"""Of decisions and rows. No fleet gets there, so who says more is not believed: whatever follows it could not be
said."""

Slot = tuple[int, int, int]
"""Calls, failures, slow calls."""
RowTotal = tuple[int, int]
"""The number of a row, and how many failures of this process are in it."""

_OPENNESS: Final = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}


@dataclass(frozen=True, slots=True)
class BreakerReport:
    """What one process has seen of one upstream in its present period: totals, never differences."""

    breaker: str
    process: str
    replica: str
    revision: int
    """Of two reports of a process the one with the higher number holds; numbers grow while the process lives."""
    fleet: int
    """The number of the fleet's decision that the process knew: the period that this belongs to."""
    pod: int
    """That of its pod's own decision since."""
    window: tuple[Slot, ...] = ()
    """The youngest slot first, `SLOTS` at most. Of a window of calls there is one slot, and it does not age."""
    row: RowTotal = (0, 0)
    """Failures since anybody of the fleet has had a success."""
    pod_row: RowTotal = (0, 0)
    """Failures since anybody of the pod has had a success."""
    is_open: bool = False
    """It refuses by the evidence of its own pod."""
    is_dissenting: bool = False
    """It lets calls go by the evidence of its own pod, although the fleet does not."""
    good: int = 0
    """Good probes of a half-open period."""
    probes: int = 0
    """Probes under way."""
    has_failed: bool = False
    """A probe of its own has failed in this half-open period."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The state of a breaker from now on, for the whole fleet, or (`pod` above 0) for one pod that differs from
    it."""

    breaker: str
    fleet: int
    """One more than the highest that the decider knew. 0: nobody has decided anything yet."""
    pod: int
    """How many decisions of its own the pod has made since; these never leave it."""
    state: State
    """CLOSED, OPEN or HALF_OPEN."""
    decider: str
    """The process."""
    replica: str
    left_seconds: float = 0.0
    """Of an OPEN one: until the wait is over."""
    wait_seconds: float = 0.0
    """Of an OPEN one: how long the wait is in all."""
    doublings: int = 0
    """How often the wait has been doubled."""

    @property
    def number(self) -> tuple[int, int]:
        return self.fleet, self.pod

    @property
    def rank(self) -> tuple[int, int, int, str]:
        """The higher one holds: the later, then the more open one, then anything that all compare alike."""
        return self.fleet, self.pod, _OPENNESS[self.state], self.decider


@dataclass(frozen=True, slots=True)
class FleetOrder:
    """An operator's override, for all."""

    breaker: str
    sequence: int
    decider: str
    action: Override
    left_seconds: float | None
    """Until it ends; None: when somebody says so. Of an AUTO always None."""
    by: str
    """Who asked for it."""

    @property
    def rank(self) -> tuple[int, str]:
        """The higher one holds."""
        return self.sequence, self.decider


@dataclass(frozen=True, slots=True)
class PermitAsk:
    """A process wants to hold `number` of the permits of half-open for `seconds`; asked again it is a renewal."""

    breaker: str
    process: str
    number: int
    most: int
    """How many there are for all together."""
    seconds: float
    number_of_ask: int
    """Grows with each ask of the process."""


@dataclass(frozen=True, slots=True)
class PermitAnswer:
    """How many permits the process holds from now on; 0: none can be had at present."""

    breaker: str
    process: str
    number: int
    number_of_ask: int
    """The ask that this answers: one that was answered or given up before is not heard."""


@dataclass(frozen=True, slots=True)
class PermitReturn:
    """The process needs its permits no longer."""

    breaker: str
    process: str
    number_of_ask: int
    """The last one that it made: what was lent for a later one is not given back by this."""


FleetItem = BreakerReport | Decision | FleetOrder | PermitAsk | PermitAnswer | PermitReturn


@dataclass(frozen=True, slots=True)
class FleetBatch:
    """What travels at once."""

    sender: str
    """The process, whose life this id belongs to: a new process has a new one."""
    replica: str
    """Its pod."""
    items: tuple[FleetItem, ...]


def batches_of(sender: str, replica: str, items: Sequence[FleetItem]) -> tuple[FleetBatch, ...]:
    """All of them, in as few batches as may be."""
    return tuple(
        FleetBatch(sender, replica, tuple(items[start : start + MAX_ITEMS]))
        for start in range(0, len(items), MAX_ITEMS)
    )
