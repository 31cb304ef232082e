"""What stands between the workers of a pod: the control process has one.

It passes on what it hears, remembers what a worker that starts later has to know, and lends the permits of half-open.
It decides nothing. Breakers of several pods never pass through here: each worker meets those by its own link."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.core.fleet.decided import Decided
from sidecar.core.fleet.lending import Lender
from sidecar.core.fleet.merging import SILENT_SECONDS, Reports
from sidecar.core.fleet.messages import (
    BreakerReport,
    Decision,
    FleetBatch,
    FleetItem,
    FleetOrder,
    PermitAnswer,
    PermitAsk,
    PermitReturn,
    batches_of,
)
from sidecar.core.fleet.orders import LastOrder

MAX_REMEMBERED: Final = 4096
"""Breakers of which something is remembered; of those beyond a worker that starts later hears with the next
change."""
FRESH_SECONDS: Final = 2.5
"""So long what a worker had in its window is told as if it were of now: a quarter of the built-in window. A worker
that has had no call since tells nothing new, so what it said last may be of any age."""


class _Remembered:
    """Of one breaker."""

    __slots__ = ("order", "reports", "standing")

    def __init__(self, breaker: str) -> None:
        self.standing = Decided(breaker)
        self.reports = Reports()
        self.order = LastOrder()


@dataclass(frozen=True, slots=True)
class Relayed:
    """What becomes of a batch from a worker."""

    others: tuple[FleetBatch, ...]
    """For the other workers of the pod."""
    back: tuple[FleetBatch, ...]
    """For the worker itself."""


class Relay:
    """Owned by the loop of the control process. Times are monotonic seconds."""

    __slots__ = ("_lender", "_process", "_remembered", "_replica")

    def __init__(self, process: str, replica: str) -> None:
        self._process = process
        self._replica = replica
        self._remembered: dict[str, _Remembered] = {}
        self._lender = Lender()

    def heard(self, batch: FleetBatch, now: float) -> Relayed:
        """A worker's batch."""
        others, back = [], []
        for item in batch.items:
            if isinstance(item, PermitAsk):
                back.append(self._lender.ask(item, now))
            elif isinstance(item, PermitReturn):
                self._lender.give_back(item)
            else:
                others.append(item)
                self._remember(item, now)
        return Relayed(
            batches_of(batch.sender, self._replica, others), batches_of(self._process, self._replica, back)
        )

    def joined(self, now: float) -> tuple[FleetBatch, ...]:
        """What a worker that has just started has to know."""
        return batches_of(self._process, self._replica, list(self._all(now)))

    def left(self, process: str) -> None:
        """A worker has ended: what was lent to it is free."""
        self._lender.gone(process)

    def _all(self, now: float) -> Iterator[FleetItem]:
        for known in self._remembered.values():
            standing = known.standing
            if standing.fleet.fleet:
                yield standing.told(standing.fleet, now)
            if standing.pod is not None:
                yield standing.told(standing.pod, now)
            order = known.order.told(now)
            if order is not None:
                yield order
            known.reports.forget(now - SILENT_SECONDS)
            for heard in known.reports:
                is_fresh = heard.at >= now - FRESH_SECONDS
                yield heard.report if is_fresh else replace(heard.report, window=())

    def _remember(self, item: BreakerReport | Decision | FleetOrder | PermitAnswer, at: float) -> None:
        if isinstance(item, PermitAnswer):
            return
        known = self._remembered.get(item.breaker)
        if known is None:
            if len(self._remembered) >= MAX_REMEMBERED:
                return
            known = self._remembered[item.breaker] = _Remembered(item.breaker)
        if isinstance(item, Decision):
            known.standing.hear(item, at)
        elif isinstance(item, FleetOrder):
            known.order.hear(item, at)
        else:
            known.reports.hear(item, at)
