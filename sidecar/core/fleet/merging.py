"""The windows of many processes as one. Of each process the newest report is kept, and ages here by the clock of who
keeps it: a process that has ended, or cannot be heard any more, leaves the window like any old call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Final

from sidecar.core.breaker.window import Counts
from sidecar.core.dataclass import dataclass
from sidecar.core.fleet.messages import SLOTS, BreakerReport
from sidecar.core.snapshot import WindowPolicy, WindowType

MAX_REPORTS: Final = 4096
"""Processes of whom one breaker keeps a report; those beyond are not heard, and counted."""
SILENT_SECONDS: Final = 30.0
"""Times the fleet's scale: a process of which nothing was heard for so long has no say in anything."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A report, and when it was true by our own clock."""

    report: BreakerReport
    at: float


@dataclass(slots=True)
class Merged:
    """What many replicas have seen together. Each set holds replicas."""

    counts: Counts = field(default_factory=Counts)
    row: int = 0
    in_row: set[str] = field(default_factory=set)
    callers: set[str] = field(default_factory=set)
    """That called it within the window."""
    failing: set[str] = field(default_factory=set)
    succeeding: set[str] = field(default_factory=set)
    refusing: set[str] = field(default_factory=set)
    """By their own evidence."""
    dissenting: set[str] = field(default_factory=set)


class Reports:
    """The newest report of each other process."""

    __slots__ = ("_heard", "unheard")

    def __init__(self) -> None:
        self._heard: dict[str, Heard] = {}
        self.unheard = 0
        """Reports of processes beyond the limit."""

    def __iter__(self) -> Iterator[Heard]:
        return iter(self._heard.values())

    def __len__(self) -> int:
        return len(self._heard)

    def hear(self, report: BreakerReport, at: float) -> bool:
        """Keep it if it is newer than what is known of that process; whether it is."""
        known = self._heard.get(report.process)
        if known is None:
            if len(self._heard) >= MAX_REPORTS:
                self.unheard += 1
                return False
        elif known.report.revision >= report.revision:
            return False
        self._heard[report.process] = Heard(report, at)
        return True

    def forget(self, before: float) -> None:
        """Let go of whoever was not heard since."""
        self._heard = {process: heard for process, heard in self._heard.items() if heard.at >= before}

    def clear(self) -> None:
        self._heard.clear()


def merge(heard: Iterable[Heard], policy: WindowPolicy, now: float) -> Merged:
    """All of them together, as of `now`."""
    merged = Merged()
    number = 0
    for one in heard:
        report = one.report
        replica, counts = report.replica, merged.counts
        total, failed, slow = window_of(one, policy, now)
        if total:
            counts.total += total
            counts.failed += failed
            counts.slow += slow
            merged.callers.add(replica)
            if failed:
                merged.failing.add(replica)
            if total > failed:
                merged.succeeding.add(replica)
        if report.row[0] > number:
            number, merged.row, merged.in_row = report.row[0], 0, set()
        if report.row[0] == number and report.row[1]:
            merged.row += report.row[1]
            merged.in_row.add(replica)
        if report.is_open:
            merged.refusing.add(replica)
        if report.is_dissenting:
            merged.dissenting.add(replica)
    return merged


def window_of(heard: Heard, policy: WindowPolicy, now: float) -> tuple[int, int, int]:
    """Calls, failures and slow calls of a report that are still within the window."""
    slots = heard.report.window
    if not slots:
        return 0, 0, 0
    if policy.type is WindowType.COUNT:
        return slots[0]
    left = SLOTS - int(max(0.0, now - heard.at) * SLOTS / policy.size)
    total = failed = slow = 0
    for one in slots[: max(0, left)]:
        total += one[0]
        failed += one[1]
        slow += one[2]
    return total, failed, slow
