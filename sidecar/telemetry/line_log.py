"""Events of a process that has neither threads nor a loop, as lines of the same log: each is written at once.

A reader that stalls holds up nobody: a line for which there is no room at that moment is lost, and the next one says
how many were.
"""

from __future__ import annotations

import select
import time
from collections.abc import Mapping
from typing import Any

from sidecar.core.snapshot import LogFormat
from sidecar.telemetry.access_log import write_all
from sidecar.telemetry.log_lines import Level, LogLine, as_json, as_text


class LineLog:
    """Of one process; owned by its only thread."""

    def __init__(self, log_format: LogFormat, fd: int, process: str) -> None:
        """`fd`: written to, and left open. `process`: which of several that write there this is, for each line."""
        self._write = as_text if log_format is LogFormat.TEXT else as_json
        self._fd = fd
        self._process = process
        self._lost = 0

    def event(self, level: Level, kind: str, message: str, fields: Mapping[str, Any], at: float) -> None:
        """Write a line. `fields` must be JSON values; `at` is monotonic seconds."""
        offset_ns = time.time_ns() - time.monotonic_ns()
        told = dict(fields) | ({"lines_lost": self._lost} if self._lost else {})
        line = LogLine(int(at * 1e9) + offset_ns, level, kind, told, message)
        try:
            is_written = self._has_room()
            if is_written:
                write_all(self._fd, self._write(line, self._process))
        except OSError:  # a full disk, or a reader that is gone for good
            is_written = False
        self._lost = 0 if is_written else self._lost + 1

    def _has_room(self) -> bool:
        """For a page, in a pipe: more than an event of the supervisor takes."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return any(seen & select.POLLOUT for _, seen in poll.poll(0))
