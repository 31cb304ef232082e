"""Failures in a row, counted by many: how often has the upstream failed since anybody has had a success?

A row has a number. A success where a failure is the last thing known begins the next one, and a failure counts in the
highest row that its process knows. What each process says is the number and how many failures it has put in; so rows
can be heard late, twice or out of order, and all come to the same sum without comparing clocks."""

from __future__ import annotations

from sidecar.core.fleet.messages import MOST_NUMBER, RowTotal


class SharedRow:
    """The part of this process."""

    __slots__ = ("count", "number")

    def __init__(self) -> None:
        self.number = 0
        self.count = 0
        """Failures of this process in it."""

    @property
    def told(self) -> RowTotal:
        return self.number, self.count

    def fail(self) -> None:
        self.count += 1

    def succeed(self) -> None:
        """Begin the next one."""
        self.number += 1
        self.count = 0

    def hear(self, told: RowTotal) -> bool:
        """The row of another process: a later one ends ours. Whether it has."""
        if self.number < told[0] <= MOST_NUMBER:
            self.number, self.count = told[0], 0
            return True
        return False


class RowsOfAll:
    """The row of the fleet, and that of the pod, as one process knows them."""

    __slots__ = ("fleet", "is_failing", "pod")

    def __init__(self) -> None:
        self.fleet = SharedRow()
        self.pod = SharedRow()
        self.is_failing = False
        """A failure is the last thing known in the fleet's."""

    def fail(self) -> bool:
        """One more failure here; whether it is the first of its row, as far as is known."""
        self.fleet.fail()
        self.pod.fail()
        is_first, self.is_failing = not self.is_failing, True
        return is_first

    def succeed(self) -> bool:
        """A success here; whether it ends a row."""
        if not self.is_failing:
            return False
        self.fleet.succeed()
        self.pod.succeed()
        self.is_failing = False
        return True

    def end(self) -> None:
        """The failures so far have led to a decision, or a good probe has ended them."""
        self.is_failing = False
        for row in (self.fleet, self.pod):
            if row.count:
                row.succeed()

    def hear(self, fleet: RowTotal, pod: RowTotal | None) -> bool:
        """What another process has put in (`pod`: one of the same pod). Whether a failure of its is the last thing
        known."""
        if self.fleet.hear(fleet):
            self.is_failing = False
        if pod is not None:
            self.pod.hear(pod)
        if fleet[0] == self.fleet.number and fleet[1]:
            self.is_failing = True
            return True
        return False
