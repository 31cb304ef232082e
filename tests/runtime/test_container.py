"""The container's limit is found where it stands, and nothing is read where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.core.memory_budget import Held, MemoryBudget
from sidecar.core.snapshot import ProcessLimits
from sidecar.runtime.container import Container, Usage, find
from sidecar.runtime.memory_watch import (
    FIXED_BYTES,
    ROUTE_BYTES,
    SHORT_TRIM_SECONDS,
    TRIM_SECONDS,
    MemoryWatch,
    Trimming,
    budget_bytes,
    give_back,
    most_routes,
)

MIB = 1024 * 1024


def host(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """A file system with these cgroups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_version_2_in_a_container_of_its_own(tmp_path: Path) -> None:
    files = {
        "memory.max": f"{128 * MIB}\n",
        "memory.current": f"{100 * MIB}\n",
        "memory.stat": f"anon 1\nsock {5 * MIB}\ninactive_file {10 * MIB}\n",
    }
    container = find(host(tmp_path, "0::/\n", files))
    assert container is not None
    assert container.limit_bytes == 128 * MIB
    assert container.usage() == Usage(5 * MIB, 90 * MIB)
    assert not container.is_pressed(container.usage())
    assert container.is_pressed(Usage(0, 109 * MIB))


def test_the_least_limit_of_those_around_counts(tmp_path: Path) -> None:
    files = {
        "pod/memory.max": f"{256 * MIB}\n",
        "pod/one/memory.max": "max\n",
        "pod/one/deep/memory.max": f"{512 * MIB}\n",
    }
    container = find(host(tmp_path, "0::/pod/one/deep\n", files))
    assert container is not None
    assert container.limit_bytes == 256 * MIB


def test_version_1_with_the_hosts_path(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": f"{64 * MIB}\n",
        "memory/memory.usage_in_bytes": f"{30 * MIB}\n",
        "memory/memory.kmem.tcp.usage_in_bytes": f"{2 * MIB}\n",
        "memory/memory.stat": f"total_inactive_file {4 * MIB}\n",
    }
    container = find(host(tmp_path, "4:cpu,memory:/kubepods/burstable/pod1\n0::/\n", files))
    assert container is not None
    assert (container.limit_bytes, container.usage()) == (64 * MIB, Usage(2 * MIB, 26 * MIB))


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/\n", {}),
        ("0::/\n", {"memory.max": "max\n"}),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}),
        ("", {"memory.max": "1000"}),
    ],
)
def test_no_limit_is_no_container(cgroup: str, files: dict[str, str], tmp_path: Path) -> None:
    assert find(host(tmp_path, cgroup, files)) is None
    assert find(tmp_path / "nowhere") is None


def test_a_quarter_of_the_limit_is_for_connections(tmp_path: Path) -> None:
    container = Container(128 * MIB, tmp_path, True)
    assert budget_bytes(ProcessLimits(), container) == 32 * MIB
    assert budget_bytes(ProcessLimits(), None) == 64 * MIB
    assert budget_bytes(ProcessLimits(memory_bytes=7), container) == 7


def test_so_many_routes_fit(tmp_path: Path) -> None:
    assert most_routes(None) is None
    assert most_routes(Container(FIXED_BYTES + 10 * ROUTE_BYTES, tmp_path, True)) == 10
    assert most_routes(Container(MIB, tmp_path, True)) == 0


def test_memory_goes_back_after_a_burst_and_not_too_often() -> None:
    trimming = Trimming()
    assert not trimming.is_due(4 * MIB, 0, 0.0)
    assert not trimming.is_due(2 * MIB, 0, 1.0), "too little"
    assert not trimming.is_due(20 * MIB, 0, 2.0)
    assert not trimming.is_due(11 * MIB, 0, 3.0), "half of it is still needed"
    assert trimming.is_due(10 * MIB, 0, 4.0)
    assert not trimming.is_due(40 * MIB, 0, 5.0)
    assert not trimming.is_due(MIB, 0, 4.0 + TRIM_SECONDS - 0.1)
    assert trimming.is_due(MIB, 0, 4.0 + TRIM_SECONDS)
    assert not trimming.is_due(MIB, 0, 1000.0), "it has gone back already"


def test_memory_goes_back_while_connections_are_closed_for_it() -> None:
    """Although as much is used as before: others come in the place of those that were closed."""
    trimming = Trimming()
    assert not trimming.is_due(32 * MIB, 0, 0.0)
    assert trimming.is_due(32 * MIB, 1, 1.0)
    assert not trimming.is_due(32 * MIB, 500, 1.0 + SHORT_TRIM_SECONDS - 0.1)
    assert trimming.is_due(32 * MIB, 500, 1.0 + SHORT_TRIM_SECONDS)
    assert not trimming.is_due(32 * MIB, 500, 1000.0), "nobody was closed since"
    assert trimming.is_due(MIB, 500, 1001.0), "the burst is over"


def test_giving_back_does_no_harm() -> None:
    give_back()


async def test_what_the_container_says_reaches_the_budget_until_it_cannot_be_read(tmp_path: Path) -> None:
    files = {"memory.current": f"{125 * MIB}", "memory.stat": f"sock {3 * MIB}\ninactive_file 0"}
    root = host(tmp_path, "0::/\n", {"memory.max": f"{128 * MIB}", **files})
    budget = MemoryBudget(32 * MIB)
    container = find(root)
    assert container is not None
    watch = MemoryWatch(budget, container, lambda: 0.0, lambda *_: None)
    await watch.look(container)
    assert budget.used_bytes == 3 * MIB
    (root / "sys/fs/cgroup/memory.current").write_text("not a number")
    await watch.look(container)
    assert budget.used_bytes == 0


def test_what_was_closed_is_told_once_and_not_too_often() -> None:
    budget, told, now = MemoryBudget(32 * MIB), [], [0.0]
    watch = MemoryWatch(budget, None, lambda: now[0], lambda text, closed: told.append((text, closed)))
    watch.tell_closed()
    budget.closed[Held.HEAD] += 3
    watch.tell_closed()
    budget.closed[Held.HEAD] += 1
    budget.closed[Held.IDLE] += 1
    watch.tell_closed()
    text = "closed {} connections to give memory back; 33554432 bytes are for all"
    assert told == [(text.format(3), {"head": 3})]
    now[0] = 10.0
    watch.tell_closed()
    watch.tell_closed()
    assert told[1:] == [(text.format(2), {"head": 1, "idle": 1})]
