"""When a process tells what it sees of one breaker, and what it says.

Nothing if nothing has changed. While nobody has seen a failure, it tells now and then that it calls the upstream at
all; in trouble as soon as it may, and the same again, in case that somebody has not heard it."""

from __future__ import annotations

from math import inf
from typing import Final

from sidecar.core.breaker import Breaker
from sidecar.core.fleet.decided import Decided
from sidecar.core.fleet.member import FleetMember
from sidecar.core.fleet.messages import SLOTS, BreakerReport
from sidecar.core.fleet.rows import RowsOfAll
from sidecar.core.statechart import SHUT
from sidecar.core.transition import State

REFRESH_SECONDS: Final = 0.5
"""Times the fleet's scale: how often a breaker that is not simply closed is told again."""
TROUBLE_SECONDS: Final = 5.0
"""After a decision it is told again for so long."""
ALERT_SECONDS: Final = 5.0
"""For so long after any failure of anybody all tell what they see as soon as they may."""
CALM_SECONDS: Final = 5.0
"""Times the fleet's scale: between two reports where nobody has seen a failure. They tell who calls at all; a hundred
breakers of fifty replicas that say ten times a second that all is well would take half a core of each."""


class Telling:
    """Of one breaker. Times are monotonic seconds."""

    __slots__ = (
        "_alert_until", "_breaker", "_is_behind", "_is_known", "_key", "_member", "_reported", "_reported_at",
        "_revision", "is_dirty", "is_urgent",
    )  # fmt: skip

    def __init__(self, key: str, breaker: Breaker, member: FleetMember) -> None:
        self._key = key
        self._breaker = breaker
        self._member = member
        self.is_dirty = True
        """A report is to be written when its time has come."""
        self.is_urgent = False
        """It is to be written sooner."""
        self._is_behind = False
        """Somebody has spoken of a decision that was not heard here."""
        self._is_known = False
        """Others know that this process calls the upstream at all."""
        self._reported: tuple[int, ...] = ()
        self._reported_at = self._alert_until = -inf
        self._revision = 0

    def be_urgent(self) -> None:
        """What has happened is to be told soon."""
        self.is_dirty = self.is_urgent = True

    def be_behind(self) -> None:
        """Somebody knows more: say what is known here, so that he says it again."""
        self.is_dirty = self.is_urgent = self._is_behind = True

    def be_alert(self, now: float) -> None:
        """Somebody has seen a failure."""
        self._alert_until = now + ALERT_SECONDS

    def wants_to_report(self, decided: Decided, decided_at: float, now: float, *, is_probing: bool) -> bool:
        """Whether there is anything that others do not know and should. `is_probing`: what becomes of its probe is of
        interest to all."""
        if not (is_probing or self._is_behind or self._member.is_sampled(self._key)):
            return False
        if self.is_dirty:
            return True
        age, scale = now - self._reported_at, self._member.scale
        if self._reported != self._seen():
            window = self._breaker.machine.evidence.window
            is_calm = self._is_known and now >= self._alert_until and not (window.failed or window.slow)
            return not is_calm or age >= CALM_SECONDS * scale
        is_troubled = decided.current.state in SHUT or now < decided_at + TROUBLE_SECONDS
        return is_troubled and age >= REFRESH_SECONDS * scale

    def told(self, now: float) -> None:
        """A report is written now."""
        self.is_dirty = self.is_urgent = self._is_behind = False
        self._reported, self._reported_at = self._seen(), now
        self._is_known = self._breaker.machine.evidence.window.total > 0
        self._revision += 1

    def report(
        self,
        decided: Decided,
        rows: RowsOfAll,
        now: float,
        *,
        is_refusing: bool,
        is_dissenting: bool,
        has_failed: bool,
    ) -> BreakerReport:
        """What this process sees now."""
        machine, member = self._breaker.machine, self._member
        fleet, pod = decided.current.number
        is_half_open = machine.state is State.HALF_OPEN
        return BreakerReport(
            self._key,
            member.process,
            member.replica,
            self._revision,
            fleet,
            pod,
            machine.evidence.window.slots(SLOTS, now),
            rows.fleet.told,
            rows.pod.told,
            is_refusing,
            is_dissenting,
            machine.good_probes if is_half_open else 0,
            machine.probes_in_flight if is_half_open else 0,
            has_failed,
        )

    def _seen(self) -> tuple[int, ...]:
        tally = self._breaker.tally
        return tally.successful, tally.failed, tally.slow, self._breaker.generation


def is_bad_news(report: BreakerReport) -> bool:
    """Whether it may be reason to open, so that all are to be looked at."""
    return bool(
        report.is_open or report.has_failed or report.row[1] or any(failed for _, failed, _ in report.window)
    )
