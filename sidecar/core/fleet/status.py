"""The fleet at one moment, as plain values for whoever shows them."""

from __future__ import annotations

from copy import copy

from sidecar.core.dataclass import dataclass
from sidecar.core.fleet.member import Reach
from sidecar.core.transition import State


class FleetCounts:
    """Since the process began."""

    __slots__ = ("received", "refused", "sent", "unheard", "unshared")

    def __init__(self) -> None:
        self.sent = 0
        """Batches."""
        self.received = 0
        self.refused = 0
        """Messages that were no batch of this version."""
        self.unheard = 0
        """Reports of processes beyond the limit."""
        self.unshared = 0
        """Breakers beyond the limit."""

    def copy(self) -> FleetCounts:
        return copy(self)


@dataclass(frozen=True, slots=True)
class SharedStatus:
    """One breaker."""

    key: str
    sequence: int
    """How often the fleet has decided, as far as is known."""
    state: State
    """That of the fleet; this replica's own may differ."""
    decider: str
    """The replica that has decided it."""
    failing: int
    """Replicas that see it failing: they refuse by their own evidence."""
    callers: int
    """Replicas that called it within the window, or see it failing."""
    is_refusing: bool
    """This one refuses by its own evidence, whatever the fleet does."""
    is_dissenting: bool
    """This one lets calls go by its own evidence, although the fleet does not."""
    dissenting: int
    """Replicas that do."""
    permits: int
    """That this process holds."""
    versions: int
    """Of route and upstream; more than 1 in a rolling deploy."""


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """One process, and all its breakers."""

    process: str
    replica: str
    reach: Reach
    replicas: int
    breakers: tuple[SharedStatus, ...]
    counts: FleetCounts

    @property
    def is_alone(self) -> bool:
        return self.reach is Reach.ALONE
