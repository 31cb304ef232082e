"""Failures in a row: of calls, and of answers that broke after a good head.

Two rows, since an upstream that begins every answer well and breaks each long one has a head between any two of its
failures. A good head ends the first one at once; the second one ends with an attempt that ended well.

Connections that one endpoint loses at the same moment are one event, however many calls were on them: its
resets within 100 ms count once in a row, if their calls were under way when the first of them was lost. A call
that was sent after that is a new trial, and an endpoint that resets every call at once fills the row as quickly
as one that refuses."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

AT_ONCE_SECONDS: Final = 0.1
"""Resets of one endpoint within this time are one event."""
_MANY: Final = 64
"""Endpoints whose last reset is remembered; those that are too old to matter go first."""


class Rows:
    """The rows of one breaker in one state period. Times are monotonic seconds."""

    __slots__ = ("_resets", "late", "longest", "plain")

    def __init__(self) -> None:
        self.plain = 0
        """Failures without a good head between them."""
        self.late = 0
        """Answers that broke after a good head, without one that ended well between them."""
        self.longest = 0
        """The longer of the two: what `consecutive_failures` is compared with."""
        self._resets: dict[Hashable, float] | None = None

    def fail(self) -> None:
        """One more failure."""
        self.plain += 1
        self.longest = max(self.plain, self.late)

    def fail_late(self) -> None:
        """One more answer that broke after a good head."""
        self.late += 1
        self.longest = max(self.plain, self.late)

    def is_echo(self, endpoint: Hashable, sent_at: float, now: float) -> bool:
        """Whether a reset of this endpoint belongs to one that has been counted already; if not, it is noted.
        `sent_at` is when the call was sent."""
        if endpoint is None:
            return False
        resets = self._resets
        if resets is None:
            self._resets = {endpoint: now}
            return False
        last = resets.get(endpoint)
        if last is not None and sent_at < last and now - last <= AT_ONCE_SECONDS:
            return True
        if len(resets) >= _MANY:
            self._resets = resets = {
                one: at for one, at in resets.items() if now - at <= AT_ONCE_SECONDS and one != endpoint
            }
        resets[endpoint] = now
        return False

    def head(self) -> None:
        """A good head: it ends the row of failures."""
        self.plain = 0
        self.longest = self.late

    def end(self) -> None:
        """An attempt ended well: both rows end."""
        self.plain = self.late = self.longest = 0

    def clear(self) -> None:
        """A new state period."""
        self.plain = self.late = self.longest = 0
        self._resets = None
