"""`sidecar run FILE` in a memory cgroup of its own, to benches alone: python -m tests.bench.contained FOLDER FILE.

FOLDER is a cgroup (v1 or v2) that exists already, see `made`. The process joins it before anything else, as a
container's does.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


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
    parent, is_v2 = _own()
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


def _own() -> tuple[Path, bool]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory" + path), False
        if number == "0" and Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return Path("/sys/fs/cgroup" + path), True
    raise OSError("no memory cgroup here")


if __name__ == "__main__":
    from sidecar.__main__ import main

    (Path(sys.argv[1]) / "cgroup.procs").write_text("0")
    sys.exit(main(["run", *sys.argv[2:]]))
