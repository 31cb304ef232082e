"""Which of a pod's workers a process is. Known from before its first instruction, and the same after a restart."""

from __future__ import annotations

from sidecar.core.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """One worker among all."""

    number: int = 1
    """From 1 on. Who comes in a dead worker's stead has its number."""
    count: int = 1
    """How many there are."""

    @property
    def is_alone(self) -> bool:
        """One process does it all."""
        return self.count == 1

    def share(self, whole: int) -> int:
        """Its part of a limit that is for all: the parts add up to the whole, but each is at least 1."""
        return max(1, whole // self.count + (self.number <= whole % self.count))


ALONE = WorkerPlace()
