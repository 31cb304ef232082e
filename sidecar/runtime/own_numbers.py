"""What this process takes of its host, by proc(5). Read by a collecting thread: to list ten thousand open files takes
milliseconds."""

from __future__ import annotations

import os
import resource
from functools import cache
from pathlib import Path

from sidecar.core.sources import ProcessNumbers

_PROC = Path("/proc")
_AFTER_NAME = 2
"""In `stat`, the number of the first field after the process's name, which may have spaces (counted from 0)."""
_USER_TICKS, _SYSTEM_TICKS, _START_TICKS, _VIRTUAL_BYTES, _RESIDENT_PAGES = 13, 14, 21, 22, 23


def process_numbers(proc: Path = _PROC) -> ProcessNumbers | None:
    """None where the system has no such files."""
    try:
        fields = (proc / "self/stat").read_text().rpartition(")")[2].split()
        open_files = len(os.listdir(proc / "self/fd"))
        started = _boot_seconds(proc)
    except OSError:
        return None
    ticks = os.sysconf("SC_CLK_TCK")

    def field(number: int) -> int:
        return int(fields[number - _AFTER_NAME])

    return ProcessNumbers(
        cpu_seconds=(field(_USER_TICKS) + field(_SYSTEM_TICKS)) / ticks,
        resident_bytes=field(_RESIDENT_PAGES) * os.sysconf("SC_PAGE_SIZE"),
        virtual_bytes=field(_VIRTUAL_BYTES),
        open_files=open_files,
        max_open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        started_at=started + field(_START_TICKS) / ticks,
    )


@cache
def _boot_seconds(proc: Path) -> int:
    """When the system started, in seconds since the epoch; once, since it moves with the wall clock."""
    for line in (proc / "stat").read_text().splitlines():
        if line.startswith("btime "):
            return int(line.split()[1])
    return 0
