"""What a breaker that acts as one with those of other processes asks and tells (`core/fleet`). A breaker alone has no
such thing, and none of this costs it anything."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable

from sidecar.core.breaker.rows import Rows
from sidecar.core.contract import NO_SLOTS
from sidecar.core.transition import Transition


class Sharing(ABC):
    """The other processes, as a breaker knows them. Called from within the breaker's own methods: none of these may
    change the breaker; what they bring about comes by its `follow` later."""

    __slots__ = NO_SLOTS

    @abstractmethod
    def permits(self, now: float) -> int | None:
        """How many of the permits of half-open this process holds; None: nobody lends any, so the policy's own
        number."""

    @abstractmethod
    def wanted(self) -> None:
        """Somebody was refused for want of such a permit."""

    @property
    @abstractmethod
    def good_elsewhere(self) -> int:
        """Good probes of others in this half-open period."""

    @abstractmethod
    def doubles(self) -> bool:
        """Whether a failed recovery doubles the wait at once."""

    @abstractmethod
    def entered(self, transition: Transition) -> None:
        """The breaker has changed its state."""

    @abstractmethod
    def failed(self) -> None:
        """One more failure in a row."""

    @abstractmethod
    def succeeded(self) -> None:
        """A success, where a failure was the last thing known."""


class WatchedRows(Rows):
    """Rows that tell of each failure, and of the first success after one, be it a failure of somebody else."""

    __slots__ = ("_is_watching", "_sharing")

    def __init__(self, sharing: Sharing) -> None:
        super().__init__()
        self._sharing = sharing
        self._is_watching = False

    def watch(self) -> None:
        """A failure is the last thing known: tell of the next success. A door looks at `is_begun` alone."""
        self._is_watching = self.is_begun = True

    def fail(self, endpoint: Hashable = None) -> None:
        super().fail(endpoint)
        self._is_watching = True
        self._sharing.failed()

    def fail_late(self, endpoint: Hashable = None) -> None:
        super().fail_late(endpoint)
        self._is_watching = True
        self._sharing.failed()

    def head(self) -> None:
        super().head()
        self._tell()

    def end(self) -> None:
        super().end()
        self._tell()

    def clear(self) -> None:
        self._is_watching = False
        super().clear()

    def _tell(self) -> None:
        if self._is_watching:
            self._is_watching = False
            self._sharing.succeeded()
