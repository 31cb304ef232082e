"""How many cores this process may use: those that it may run on, and no more than its container's CPU limit pays for.

cgroup v2 says the limit in `cpu.max`, v1 in `cpu.cfs_quota_us` and `cpu.cfs_period_us` (kernel.org, cgroup-v2 and
sched-bwc). Of a limit that is no whole number, what is begun counts: 1.5 cores keep two processes busy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from sidecar.core.snapshot import MOST_WORKERS

_ROOT = Path("/sys/fs/cgroup")


def worker_count(workers: int | str) -> int:
    """How many to start: `auto` is one for each core."""
    return cores() if isinstance(workers, str) else workers


def cores(root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> int:
    """At least 1, at most as many as there may be workers."""
    allowed = len(os.sched_getaffinity(0))
    limit = min(_limits(root, membership), default=math.inf)
    return max(1, min(allowed, MOST_WORKERS, math.ceil(min(limit, allowed))))


def _limits(root: Path, membership: Path) -> Iterator[float]:
    """Of the own group and those around it, as far as they are seen."""
    for folder in _folders(root, membership):
        quota, period = _quota(folder)
        if quota > 0 and period > 0:
            yield quota / period


def _quota(folder: Path) -> tuple[float, float]:
    """A quota of 0: there is no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
            return (0.0, 0.0) if quota == "max" else (float(quota), float(period))
        quota = (folder / "cpu.cfs_quota_us").read_text()
        return float(quota), float((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return 0.0, 0.0


def _folders(root: Path, membership: Path) -> Iterator[Path]:
    """In a container the root is the own group."""
    yield from (root, root / "cpu", root / "cpu,cpuacct")
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        own = Path(group.lstrip("/"))
        for part in (own, *own.parents):
            if not controllers:
                yield root / part
            elif "cpu" in controllers.split(","):
                yield root / "cpu" / part
