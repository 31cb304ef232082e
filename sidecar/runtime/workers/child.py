"""One child of the supervisor: its lives, what it is owed, and how it ended."""

from __future__ import annotations

import os
import signal

from sidecar.runtime.restarts import Restarts
from sidecar.runtime.workers.lifeline import Lifeline

CONTROL = 0
"""The number of the control process; workers have theirs from 1 on."""


class Child:
    """A place that is filled by one process after another."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0
        """0: there is none now."""
        self.lifeline: Lifeline | None = None
        self.began = 0.0
        self.due: float | None = 0.0
        """When it is to be started, on the monotonic clock; None: it is there, or is not wanted any more."""
        self.is_serving = False
        self.has_served = False
        """In any of its lives."""
        self.is_killed_by_us = ""
        """Why it was."""
        self.lives = 0
        self.restarts = Restarts()

    def __repr__(self) -> str:
        return f"<Child {self.name} pid={self.pid} lives={self.lives}>"

    @property
    def name(self) -> str:
        return "control" if self.number == CONTROL else f"worker {self.number}"

    def started(self, pid: int, lifeline: Lifeline, now: float) -> None:
        self.pid, self.lifeline, self.began, self.due = pid, lifeline, now, None
        self.lives += 1

    def ended(self, status: int, now: float) -> str:
        """It has ended with this wait status: how, in words."""
        told = f"{_how(status)} after {now - self.began:.1f} s"
        if self.is_killed_by_us:
            told += f", since {self.is_killed_by_us}"
        if self.lifeline is not None:
            self.lifeline.close()
        self.pid, self.lifeline, self.is_serving, self.is_killed_by_us = 0, None, False, ""
        return told

    def kill(self, why: str) -> None:
        """End it at once; the supervisor reaps it as any other."""
        if self.pid:
            self.is_killed_by_us = why
            os.kill(self.pid, signal.SIGKILL)


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"
