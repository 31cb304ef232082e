"""Who this process is among those that act as one, and how far it is heard at present."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import log
from typing import Final
from zlib import crc32

INTERVAL_SECONDS: Final = 0.1
"""Between two writes of a process, as long as there are no more than `FULL_RATE` replicas."""
FULL_RATE: Final = 100
"""Replicas; with ten times as many each writes a tenth as often."""
MOST_SCALE: Final = 100.0
"""At so many times as rarely it ends, however many replicas are said to be there: who else writes to a fleet's Redis
must not silence it."""
ASKS_PER_SECOND: Final = 1000.0
"""What all together say at the same moment is spread so that about so many speak in a second, over ten seconds at
most."""
MOST_SPREAD_SECONDS: Final = 10.0
SPREADS: Final = 3.0
"""Times that spread: in what time everybody has a turn to say what one has to say for all. These are three of a
large fleet's intervals; an interval is how late one hears that another has said it."""
SAMPLED: Final = 200
"""Processes of a large fleet that tell what they see of one breaker."""


class Reach(Enum):
    """Who hears this process."""

    ALONE = "alone"
    POD = "pod"
    """The other workers of its pod."""
    FLEET = "fleet"
    """The other replicas, too."""


class FleetMember:
    """One process. Written by `Fleet` alone."""

    __slots__ = ("has_siblings", "process", "reach", "replica", "replicas", "wake")

    def __init__(self, process: str, replica: str, *, has_siblings: bool) -> None:
        self.process = process
        self.replica = replica
        self.has_siblings = has_siblings
        """The pod has other processes: its own decisions are told, which nobody else heeds."""
        self.reach = Reach.ALONE
        self.replicas = 1
        """How many are in the fleet, as far as is known; at least 1."""
        self.wake: Callable[[], None] = _nobody

    @property
    def scale(self) -> float:
        return scale_of(self.replicas)

    @property
    def interval_seconds(self) -> float:
        return INTERVAL_SECONDS * self.scale

    def delay_seconds(self, of: str) -> float:
        """How long this process waits with something that all might say at the same moment: its place in the spread.
        Another one for each breaker, so that no process is always the first."""
        return self._place(of) * self._spread_seconds

    def turn_seconds(self, of: str) -> float:
        """How long this process waits with something that all know, and that one has to say: on average one of all
        does not wait, and many have late turns, so that most hear of it before theirs has come. Of n about the third
        root of n speak. If turns were spread evenly over the time that hearing takes, nearly all would, and each
        process would have to read it n times."""
        if self.replicas == 1:
            return 0.0
        place = max(self._place(of), 1.0 / 2**32)
        share = max(0.0, 1.0 + log(place) / log(self.replicas))
        return share * SPREADS * self._spread_seconds

    @property
    def _spread_seconds(self) -> float:
        return min(MOST_SPREAD_SECONDS, self.replicas / ASKS_PER_SECOND)

    def is_sampled(self, of: str) -> bool:
        """Whether this process tells what it sees of this breaker although nobody needs it to. Of a large fleet about
        `SAMPLED` do, others of each breaker: what these see is as good as what all see."""
        return self.replicas <= SAMPLED or self._place(of) * self.replicas < SAMPLED

    def _place(self, of: str) -> float:
        return crc32(f"{self.process} {of}".encode()) / 2**32


def scale_of(replicas: int) -> float:
    """How many times more rarely than in a small fleet everybody speaks."""
    return min(MOST_SCALE, max(1.0, replicas / FULL_RATE))


def _nobody() -> None:
    """Nobody waits to be woken."""
