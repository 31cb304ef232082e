"""What the container says of its memory: its limit, and what is used of it (cgroup v2, and v1 where that is mounted).

Kubernetes kills what passes the limit. Without one, as on a plain host, there is nothing to keep to, and what is read
would be other processes' too: then nothing is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sidecar.core.dataclass import dataclass

NO_LIMIT_BYTES: Final = 1 << 60
"""cgroup v1 says a number of this size where there is no limit."""
PRESSED_SHARE: Final = 0.85
"""Of the limit; from here on connections have to give memory back, whoever uses it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """At one moment, in bytes."""

    sockets: int
    """What the kernel holds for sockets."""
    working_set: int
    """All that counts against the limit and cannot simply be dropped: without the pages of files not used lately."""


@dataclass(frozen=True, slots=True)
class Container:
    """The cgroup that this process runs in, if it has a limit of memory."""

    limit_bytes: int
    _folder: Path
    _is_v2: bool

    def is_pressed(self, usage: Usage) -> bool:
        """Whether the limit is close."""
        return usage.working_set > self.limit_bytes * PRESSED_SHARE

    def usage(self) -> Usage:
        """Read it now: some 100 µs, for a thread.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        stat = dict(line.split(" ", 1) for line in (self._folder / "memory.stat").read_text().splitlines())
        if self._is_v2:
            current = int((self._folder / "memory.current").read_text())
            return Usage(int(stat.get("sock", 0)), current - int(stat.get("inactive_file", 0)))
        current = int((self._folder / "memory.usage_in_bytes").read_text())
        sockets = int((self._folder / "memory.kmem.tcp.usage_in_bytes").read_text())
        return Usage(sockets, current - int(stat.get("total_inactive_file", 0)))


def find(root: Path = Path("/")) -> Container | None:
    """The cgroup with the least limit, of ours and those around it; None where no limit is found."""
    found = [container for container in _all(root) if container.limit_bytes < NO_LIMIT_BYTES]
    return min(found, key=lambda container: container.limit_bytes, default=None)


def _all(root: Path) -> Iterator[Container]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield from _upwards(root / "sys/fs/cgroup", path, "memory.max", is_v2=True)
        elif "memory" in controllers.split(","):
            yield from _upwards(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes", is_v2=False)


def _upwards(top: Path, path: str, name: str, *, is_v2: bool) -> Iterator[Container]:
    """From ours to the outermost that is mounted. In a container `path` may be the host's, and not be there."""
    folder = top / path.lstrip("/")
    while True:
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            text = "max"
        if text.isdigit():
            yield Container(int(text), folder, is_v2)
        if folder == top or top not in folder.parents:
            return
        folder = folder.parent
