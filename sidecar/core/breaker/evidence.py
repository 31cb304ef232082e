"""What a breaker has seen in its present state period, and whether that is reason to open.

Keeps the window and the rows; knows no state. Each attempt stands in the window once, wherever its mark comes
from: it is marked slow while it runs, judged by its head, judged at its end, or turned into a failure after
all."""

from __future__ import annotations

from typing import Final

from sidecar.core.breaker.permit import BreakerPermit
from sidecar.core.breaker.rows import Rows
from sidecar.core.breaker.triggers import Triggers
from sidecar.core.breaker.window import FAILED, PENDING, SILENT, SLOW, Window, new_window
from sidecar.core.outcome import Kind, Verdict
from sidecar.core.snapshot import BreakerPolicy
from sidecar.core.transition import TransitionReason, WindowNumbers

_SUCCESS: Final = Verdict.SUCCESS
_FAILURE: Final = Verdict.FAILURE


class Evidence:
    """The window, the rows and the thresholds they are compared with."""

    __slots__ = ("rows", "triggers", "window")

    def __init__(self, policy: BreakerPolicy, now: float) -> None:
        """Raises ValueError where the window's size is out of bounds."""
        self.window: Window = new_window(policy.window, now)
        self.rows = Rows()
        self.triggers = Triggers(policy)

    def adopt(self, policy: BreakerPolicy, old: BreakerPolicy, now: float) -> None:
        """Go on under other thresholds, with an empty window if its type or size is another.

        Raises:
            ValueError: the window's size is out of bounds; nothing has changed then.
        """
        if policy.window != old.window:
            self.window = new_window(policy.window, now)
        self.triggers = Triggers(policy)

    def clear(self, now: float) -> None:
        """A new state period."""
        self.window.clear(now)
        self.rows.clear()

    def numbers(self, now: float) -> WindowNumbers:
        window = self.window
        window.expire(now)
        return WindowNumbers(window.total, window.failed, window.slow, self.rows.longest, window.silent)

    def check(self) -> TransitionReason | None:
        return self.triggers.check(self.window, self.rows.longest)

    # One attempt.

    def mark_running(self, permit: BreakerPermit, now: float) -> None:
        """It has run for `slow_call_duration` without a head, or its caller left after that."""
        self._put(permit, SLOW | PENDING, now)

    def take(
        self, permit: BreakerPermit, verdict: Verdict, kind: Kind, now: float, *, is_early: bool
    ) -> None:
        """Its verdict; a slow one is known as such by now. Nothing is checked."""
        slow = SLOW if permit.is_slow else 0
        if verdict is _SUCCESS:
            self._put(permit, slow, now)
            if is_early:
                self.rows.head()
            else:
                self.rows.end()
            return
        if verdict is Verdict.SILENCE:
            if not slow:
                self._put(permit, SILENT, now)
            elif not permit.mark:
                self.mark_running(permit, now)
            return
        self._put(permit, FAILED | slow, now)
        if verdict is _FAILURE and not self._is_echo(permit, kind, now):
            if permit.has_head and kind is not Kind.ANSWERED:
                self.rows.fail_late()
            else:
                self.rows.fail()

    def take_late(self, permit: BreakerPermit, kind: Kind, now: float) -> bool:
        """It had counted as good, and has failed: turn it into a failure. False if it has left the window."""
        if permit.window is not self.window:
            return False
        mark = permit.mark | FAILED
        if not self.window.change(permit.place, permit.mark, mark, now):
            return False
        permit.mark = mark
        if not self._is_echo(permit, kind, now):
            self.rows.fail_late()
        return True

    def _is_echo(self, permit: BreakerPermit, kind: Kind, now: float) -> bool:
        """It was lost with another one that has been counted."""
        return kind is Kind.RESET and self.rows.is_echo(permit.endpoint, permit.sent_at, now)

    def _put(self, permit: BreakerPermit, mark: int, now: float) -> None:
        window = self.window
        if permit.window is not window or not window.change(permit.place, permit.mark, mark, now):
            permit.place = window.add(now, mark)
            permit.window = window
        permit.mark = mark
