"""Deadlines are kept to the millisecond, wherever they fall between two sweeps."""

import asyncio

from sidecar.forwarding.sweep import Expiring, Sweep


class Item:
    def __init__(self, due: float) -> None:
        self.due = due
        self.bucket: set[Expiring] | None = None
        self.expired_at: float | None = None

    def expire(self, now: float) -> None:
        self.expired_at = now


async def test_no_deadline_is_early_or_late():
    loop = asyncio.get_running_loop()
    sweep = Sweep(loop, loop.time)
    start = loop.time()
    items = [Item(start + number * 0.0037) for number in range(200)]
    for item in items:
        sweep.add(item, start)
    await asyncio.sleep(1)
    assert all(item.expired_at is not None for item in items)
    assert max(abs((item.expired_at or 0) - item.due) for item in items) < 0.001
    assert len(sweep) == 0


async def test_a_removed_item_does_not_expire():
    loop = asyncio.get_running_loop()
    sweep = Sweep(loop, loop.time)
    near, far = Item(loop.time() + 0.05), Item(loop.time() + 0.5)
    for item in (near, far):
        sweep.add(item, loop.time())
        sweep.remove(item)
    await asyncio.sleep(1)
    assert (near.expired_at, far.expired_at, len(sweep)) == (None, None, 0)
