"""What a breaker has seen in its present state period, and whether that is reason to open.

Keeps the window and the rows; knows no state. Each attempt stands in the window once, wherever its mark comes
from: it is marked slow while it runs, judged by its head, judged at its end, or turned into a failure after all.

With several endpoints it is also known whose each failure is, and what `Peers` say of that endpoint decides whether
it counts (SPEC-UPSTREAM, Ejection):

* what an unusable endpoint did counts in neither row nor rate while another is usable;
* a row, and a rate, need failures of half of the usable endpoints, and of two where there are two; for a rate those
  are enough that were asked lately, where they fail in part, so that they are not ejected;
* neither is judged as long as a usable endpoint that has no failure in it has a young attempt in flight, which may
  show at any moment that the upstream is well.

So one bad endpoint never opens the breaker of a good upstream, and a bad upstream does. A rule with nothing but "one
endpoint alone never fills a row" opened it for two of ten that refuse in 24 of 40 runs."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Final

from sidecar.core.breaker.excuses import Excuses
from sidecar.core.breaker.permit import BreakerPermit
from sidecar.core.breaker.rows import Rows
from sidecar.core.breaker.sharing import Sharing, WatchedRows
from sidecar.core.breaker.triggers import Triggers
from sidecar.core.breaker.window import FAILED, PENDING, SILENT, SLOW, Window, new_window
from sidecar.core.ejection.peers import Peers
from sidecar.core.outcome import Kind, Verdict
from sidecar.core.snapshot import BreakerPolicy
from sidecar.core.transition import TransitionReason, WindowNumbers

_SUCCESS: Final = Verdict.SUCCESS
_FAILURE: Final = Verdict.FAILURE


class Evidence:
    """The window, the rows and the thresholds they are compared with."""

    __slots__ = ("_excuses", "peers", "rows", "triggers", "window")

    def __init__(self, policy: BreakerPolicy, now: float, peers: Peers | None = None) -> None:
        """`peers`: the upstream's endpoints; None: nobody tells them apart.

        Raises:
            ValueError: the window's size is out of bounds.
        """
        self.peers = peers
        self._excuses: Excuses | None = None
        """From the first failure on, where endpoints are told apart."""
        self.window: Window = new_window(policy.window, now)
        self.rows: Rows = Rows()
        self.triggers = Triggers(policy)

    def adopt(self, policy: BreakerPolicy, old: BreakerPolicy, now: float) -> None:
        """Go on under other thresholds, with an empty window if its type or size is another.

        Raises:
            ValueError: the window's size is out of bounds; nothing has changed then.
        """
        if policy.window != old.window:
            self.window = new_window(policy.window, now)
            self._excuses = None
        self.triggers = Triggers(policy)

    def watch(self, sharing: Sharing | None) -> None:
        """Tell of failures and successes in a row from now on. What is in a row is forgotten: one more failure than
        otherwise may be needed at the moment when a process joins or leaves others."""
        self.rows = Rows() if sharing is None else WatchedRows(sharing)

    @property
    def is_row_wide(self) -> bool:
        """Whether the endpoints in the row of failures are so many that it says something of the upstream."""
        return self._is_wide(self.rows.failed_in())

    def clear(self, now: float) -> None:
        """A new state period."""
        self.window.clear(now)
        self.rows.clear()
        self._excuses = None

    def numbers(self, now: float) -> WindowNumbers:
        window = self.window
        window.expire(now)
        return WindowNumbers(window.total, window.failed, window.slow, self.rows.longest, window.silent)

    def check(self) -> TransitionReason | None:
        """Why to open now, or None; `says_too_little` may be against it."""
        row = self.rows.longest if self._is_wide(self.rows.failed_in()) else 0
        return self.triggers.check(self.window, row)

    # Whose failures they are.

    def counts(self, endpoint: Hashable) -> bool:
        """Whether what this endpoint does is counted."""
        peers = self.peers
        return peers is None or not peers.is_judging or peers.counts(endpoint)

    def settle(self, now: float) -> None:
        """Endpoints may have become unusable or usable: count what is to be counted now."""
        peers, excuses = self.peers, self._excuses
        if peers is not None and excuses is not None and excuses.settle(peers, self.window, now):
            self.rows.recount(peers.counts)

    def _is_wide(self, failing: Collection[Hashable]) -> bool:
        """Whether so many of the usable endpoints are among these that it says something of the upstream."""
        peers = self.peers
        if peers is None or not peers.is_judging or not peers.usable:
            return True
        needed = max((peers.usable + 1) // 2, min(2, peers.usable))
        if len(failing) < needed:
            return False
        return sum(one in peers.members and peers.counts(one) for one in failing) >= needed

    def _is_wide_among_asked(self, failing: Collection[Hashable], now: float) -> bool:
        """The same of the endpoints that were asked lately. Those of a later priority, of another zone or of weight 0
        have no failure since they have no request, and would keep a rate from opening for ever. Those that fail all
        they get do not count here: they are ejected soon, and the others take over."""
        peers = self.peers
        assert peers is not None
        since = now - peers.policy.interval_seconds
        partly = sum(self._fails_in_part(one, peers, since) for one in failing)
        asked = 0
        for endpoint, standing in peers.members.items():
            if asked > 2 * partly:  # of a thousand endpoints few are looked at
                return False
            asked += standing.was_asked(since) and peers.counts(endpoint)
        return partly > 0 and partly >= max((asked + 1) // 2, min(2, asked))

    @staticmethod
    def _fails_in_part(endpoint: Hashable, peers: Peers, since: float) -> bool:
        standing = peers.members.get(endpoint)
        if standing is None or not standing.fails_in_part:
            return False
        return standing.was_asked(since) and peers.counts(endpoint)

    def says_too_little(self, reason: TransitionReason, now: float, seconds: float) -> bool:
        """Whether a trigger holds by too few endpoints, or a usable one without a failure has an attempt in flight
        that is younger than `seconds`. Looks at all endpoints: asked only where a trigger holds."""
        peers = self.peers
        if peers is None or not peers.is_judging:
            return False
        if reason is TransitionReason.CONSECUTIVE_FAILURES:
            failing: Collection[Hashable] = self.rows.failed_in()
        elif reason is TransitionReason.FAILURE_RATE and self._excuses is not None:
            failing = self._excuses.failing(self.window)
            if not self._is_wide(failing) and not self._is_wide_among_asked(failing, now):
                return True
        else:
            return False
        since = now - seconds
        return any(
            endpoint not in failing and standing.has_young(since) and peers.counts(endpoint)
            for endpoint, standing in peers.members.items()
        )

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
                self.rows.fail_late(permit.endpoint)
            else:
                self.rows.fail(permit.endpoint)

    def take_late(self, permit: BreakerPermit, kind: Kind, now: float) -> bool:
        """It had counted as good, and has failed: turn it into a failure. False if it has left the window."""
        if permit.window is not self.window:
            return False
        mark = permit.mark | FAILED
        if not self.window.change(permit.place, permit.mark, mark, now):
            return False
        self._note(permit, permit.mark, mark)
        permit.mark = mark
        if not self._is_echo(permit, kind, now):
            self.rows.fail_late(permit.endpoint)
        return True

    def _is_echo(self, permit: BreakerPermit, kind: Kind, now: float) -> bool:
        """It was lost with another one that has been counted."""
        return kind is Kind.RESET and self.rows.is_echo(permit.endpoint, permit.sent_at, now)

    def _put(self, permit: BreakerPermit, mark: int, now: float) -> None:
        window = self.window
        if permit.window is not window or not window.change(permit.place, permit.mark, mark, now):
            permit.place = window.add(now, mark)
            permit.window = window
            self._note(permit, 0, mark)
        else:
            self._note(permit, permit.mark, mark)
        permit.mark = mark

    def _note(self, permit: BreakerPermit, before: int, mark: int) -> None:
        """Keep whose call it is, where that may matter."""
        peers = self.peers
        if peers is None or not (before or mark) or not peers.is_judging:
            return
        excuses = self._excuses
        if excuses is None:
            excuses = self._excuses = Excuses()
        if before:
            excuses.change(permit.endpoint, permit.place, before)
        if mark:
            excuses.note(permit.endpoint, permit.place, mark, self.window)
