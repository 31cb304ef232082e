"""The ring of a cluster: at once where it is small, in a thread where it is large, and never half of one."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sidecar.core import ring
from sidecar.core.ring import Ring
from sidecar.upstream import ring_keeper
from sidecar.upstream.ring_keeper import AT_ONCE, RingKeeper


def members(count: int, first: int = 0) -> dict[str, int]:
    return {f"10.0.{n // 250}.{n % 250}:80": 1 for n in range(first, first + count)}


class Used:
    """What was put in place, with a way to wait for it."""

    def __init__(self) -> None:
        self.rings: list[Ring | None] = []
        self._changed = asyncio.Event()

    def __call__(self, new: Ring | None) -> None:
        self.rings.append(new)
        self._changed.set()

    async def count(self, wanted: int) -> None:
        while len(self.rings) < wanted:
            self._changed.clear()
            await self._changed.wait()


async def test_a_small_ring_is_there_at_once() -> None:
    used = Used()
    keeper = RingKeeper(used)
    keeper.keep(members(AT_ONCE))
    keeper.keep(dict(members(AT_ONCE)))  # the same: nothing to do
    assert [len(one.names) for one in used.rings if one is not None] == [AT_ONCE]
    keeper.keep({})
    assert used.rings[-1] is None


async def test_a_large_one_is_made_in_a_thread_and_what_came_meanwhile_is_made_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[int, bool]] = []
    go_on = threading.Event()
    real = ring.build

    def build(of: dict[str, int], pause: object = None) -> Ring:
        go_on.wait(30)
        made.append((len(of), threading.current_thread() is threading.main_thread()))
        return real(of)

    monkeypatch.setattr(ring_keeper.ring, "build", build)
    used = Used()
    keeper = RingKeeper(used)
    for count in (100, 101, 102):
        keeper.keep(members(count))
        await asyncio.sleep(0)
    assert used.rings == []
    go_on.set()
    await used.count(2)
    assert made == [(100, False), (102, False)]
    assert [len(one.names) for one in used.rings if one is not None] == [100, 102]
    keeper.keep(members(AT_ONCE))
    assert len(used.rings) == 3


async def test_a_cluster_that_goes_builds_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    used = Used()
    keeper = RingKeeper(used)
    keeper.keep(members(100))
    keeper.close()
    await asyncio.sleep(0.1)
    assert used.rings == []
    assert "builds" not in repr(keeper)
