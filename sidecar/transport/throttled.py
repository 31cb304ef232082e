"""How often the kernel has stopped this process because its CPU limit was used up (cgroups, `cpu.stat`).

cgroup v2: one hierarchy, the file of the own group, which a container sees at the root. v1: the `cpu` controller's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
_KEY: Final = b"nr_throttled "


def counter(root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> Callable[[], int]:
    """What reads the count (10 µs); always 0 where there is no such file, as without a limit."""
    for path in _candidates(root, membership):
        if _KEY in _text(path):
            return lambda: _count(_text(path))
    return int


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # there is none, or the group is gone
        return b""


def _count(text: bytes) -> int:
    _, _, rest = text.partition(_KEY)
    return int(rest.split(maxsplit=1)[0]) if rest else 0


def _candidates(root: Path, membership: Path) -> list[Path]:
    """The own group's file first, the root's behind it: within a container the root is the own group."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    found = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            found.append(root / group.lstrip("/") / "cpu.stat")
        elif "cpu" in controllers.split(","):
            found += [root / name / group.lstrip("/") / "cpu.stat" for name in ("cpu", "cpu,cpuacct")]
    return [*found, root / "cpu.stat", root / "cpu" / "cpu.stat"]
