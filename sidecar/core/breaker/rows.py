"""Failures in a row: of calls, and of answers that broke after a good head.

Two rows, since an upstream that begins every answer well and breaks each long one has a head between any two of its
failures. A good head ends the first one at once; the second one ends with an attempt that ended well.

Connections that one endpoint loses at the same moment are one event, however many calls were on them: its
resets within 100 ms count once in a row, if their calls were under way when the first of them was lost. A call
that was sent after that is a new trial, and an endpoint that resets every call at once fills the row as quickly
as one that refuses.

Whose failures they are is kept, since those of an endpoint that turns out to be unusable are taken out of the rows,
and put back if in the end no endpoint is usable (SPEC-UPSTREAM, Ejection)."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

AT_ONCE_SECONDS: Final = 0.1
"""Resets of one endpoint within this time are one event."""
_MANY: Final = 64
"""Endpoints whose last reset is remembered; those that are too old to matter go first."""

MOST_ENDPOINTS: Final = 4096
"""Whose failures are told apart in a row; those of further ones are nobody's."""


class Rows:
    """The rows of one breaker in one state period. Times are monotonic seconds."""

    __slots__ = ("_resets", "is_begun", "late", "late_of", "longest", "plain", "plain_of")

    def __init__(self) -> None:
        self.plain = 0
        """Failures without a good head between them."""
        self.late = 0
        """Answers that broke after a good head, without one that ended well between them."""
        self.longest = 0
        """The longer of the two: what `consecutive_failures` is compared with."""
        self.is_begun = False
        """There is a failure in one of them, counted or not."""
        self.plain_of: dict[Hashable, int] = {}
        """Of each endpoint, counted or not."""
        self.late_of: dict[Hashable, int] = {}
        self._resets: dict[Hashable, float] | None = None

    def fail(self, endpoint: Hashable = None) -> None:
        """One more failure."""
        self.plain += 1
        self._note(self.plain_of, endpoint)

    def fail_late(self, endpoint: Hashable = None) -> None:
        """One more answer that broke after a good head."""
        self.late += 1
        self._note(self.late_of, endpoint)

    def _note(self, row: dict[Hashable, int], endpoint: Hashable) -> None:
        if endpoint not in row and len(row) >= MOST_ENDPOINTS:
            endpoint = None
        row[endpoint] = row.get(endpoint, 0) + 1
        self.longest = max(self.plain, self.late)
        self.is_begun = True

    def recount(self, counts: Callable[[Hashable], bool]) -> None:
        """Other endpoints are to be counted from now on."""
        self.plain = sum(count for endpoint, count in self.plain_of.items() if counts(endpoint))
        self.late = sum(count for endpoint, count in self.late_of.items() if counts(endpoint))
        self.longest = max(self.plain, self.late)

    def failed_in(self) -> dict[Hashable, int]:
        """Whose failures the longer one has."""
        return self.late_of if self.late > self.plain else self.plain_of

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
        if self.plain_of:
            self.plain_of = {}
        self.is_begun = bool(self.late_of)

    def end(self) -> None:
        """An attempt ended well: both rows end."""
        self.plain = self.late = self.longest = 0
        self.is_begun = False
        self.plain_of, self.late_of = {}, {}

    def clear(self) -> None:
        """A new state period."""
        self.end()
        self._resets = None
