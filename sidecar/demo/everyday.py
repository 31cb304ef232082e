"""What goes on while the demo stays, so that there is something to see: clients that call, and faults at times."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Final

from aiohttp import ClientError

from sidecar.demo.stage import Stage

GAP_SECONDS: Final = 0.08
ROUND: Final = ((25.0, "well"), (8.0, "errors"), (15.0, "well"), (4.0, "dead"))
"""Seconds, and how payments is meanwhile; then anew."""


async def everyday(stage: Stage) -> None:
    """Until cancelled; every call that it began has ended then."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_faults(stage))
        for number in itertools.count():
            group.create_task(_call(stage, number))
            await asyncio.sleep(GAP_SECONDS)


async def _call(stage: Stage, number: int) -> None:
    """Mostly what is quick; some are batches, some clients are in a hurry, some leave."""
    with contextlib.suppress(ClientError, OSError):  # somebody may have ended a sidecar, to see what happens
        if number % 23 == 0:
            await stage.get("/batch?size=3", timeout_ms=500)
        elif number % 61 == 0:
            await stage.get("/slow?seconds=1", leave_after=0.4)
        else:
            await stage.get("/fast", at=number % 2, timeout_ms=400 if number % 5 == 0 else None)


async def _faults(stage: Stage) -> None:
    for seconds, how in itertools.cycle(ROUND):
        stage.payments.faults.set(has_errors=how == "errors")
        if how == "dead":
            await stage.payments.stop()
        elif not stage.payments.is_alive:
            await stage.payments.start()
        await asyncio.sleep(seconds)
