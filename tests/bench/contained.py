"""cgroups (v1 or v2) of a bench's own: a memory limit for a whole sidecar, a share of a core for one process.

`python -m tests.bench.contained FOLDER FILE` is `sidecar run FILE` in the cgroup FOLDER, which exists already (see
`made`). The process joins it before anything else, as a container's does.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PERIOD_US = 20_000
"""In each of which a process has its share of a core: short, so that answers do not wait long for the next."""


@dataclass(frozen=True)
class Group:
    """A memory cgroup below the one that this process is in."""

    folder: Path
    is_v2: bool

    def most_bytes(self) -> tuple[int, int]:
        """The most that was used at any time: in all, and of sockets (v1: beside the limit; v2: not known, 0)."""
        if self.is_v2:
            return self._number("memory.peak"), 0
        return self._number("memory.max_usage_in_bytes"), self._number("memory.kmem.tcp.max_usage_in_bytes")

    def kills(self) -> int:
        text = (self.folder / ("memory.events" if self.is_v2 else "memory.oom_control")).read_text()
        found = re.search(r"^oom_kill (\d+)", text, re.MULTILINE)
        return int(found[1]) if found is not None else 0

    def _number(self, name: str) -> int:
        return int((self.folder / name).read_text())


@contextlib.contextmanager
def made(limit_bytes: int) -> Iterator[Group]:
    """One with that limit, while the block runs; who is in it must have ended by then.

    Raises:
        OSError: this system has no memory cgroup that may be divided; v2 also wants that nobody is in the parent.
    """
    parent, is_v2 = _own("memory")
    group = Group(parent / f"bench-{os.getpid()}", is_v2)
    group.folder.mkdir()
    try:
        name = "memory.max" if is_v2 else "memory.limit_in_bytes"
        (group.folder / name).write_text(str(limit_bytes))
        if not is_v2:  # sockets are counted from the first limit on; theirs is their own
            (group.folder / "memory.kmem.tcp.limit_in_bytes").write_text(str(1 << 40))
        yield group
    finally:
        group.folder.rmdir()


@contextlib.contextmanager
def share_of_core(pid: int, share: float) -> Iterator[None]:
    """The kernel gives this process, with all its threads, at most so much of one core while the block runs.

    Raises:
        OSError: this system has no CPU cgroup that may be divided; v2 also wants that nobody is in the parent.
    """
    parent, is_v2 = _own("cpu")
    folder = parent / f"bench-{os.getpid()}-{pid}"
    quota_us = round(PERIOD_US * share)
    folder.mkdir()
    try:
        if is_v2:
            (folder / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
        (folder / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        (parent / "cgroup.procs").write_text(str(pid))
        folder.rmdir()


def _own(controller: str) -> tuple[Path, bool]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}"), False
        if number == "0" and Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return Path("/sys/fs/cgroup" + path), True
    raise OSError(f"no {controller} cgroup here")


if __name__ == "__main__":
    from sidecar.__main__ import main

    (Path(sys.argv[1]) / "cgroup.procs").write_text("0")
    sys.exit(main(["run", *sys.argv[2:]]))
