"""Requests and calls of the app go by any of several workers: deadlines and cancellation reach them all the same."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from tests.bench.crossing import stage

pytestmark = pytest.mark.process

CALLS = 40
"""That all of them, and the requests they are made for, meet the same of three workers happens once in 3^79 times."""


async def test_calls_end_with_their_clients_and_with_their_time_whatever_worker_they_leave_by(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, workers=3) as on:
        cancelled = await on.cancelled(CALLS)
        expired = await on.expired([1.0] * CALLS)
        told = await on.told()

    assert cancelled.ended == CALLS
    assert cancelled.answers == {b"503": CALLS}
    assert all(call.given_ms < 1000 for call in expired.calls.values()), "not the 60 s of a call of nobody"
    assert expired.ended == expired.arrived
    assert told == 2 * CALLS


async def test_calls_below_a_worker_that_is_killed_end_and_no_others(tmp_path: Path) -> None:
    async with stage(tmp_path, workers=2) as on:
        this, clients = await on.hanging(CALLS)
        log = await on.running.logged('"process.started"', times=3)
        started = [line for line in log.splitlines() if '"process.started"' in line]
        pids = {told["worker"]: told["pid"] for told in map(json.loads, started)}

        os.kill(pids["1"], signal.SIGKILL)
        await on.running.logged('"process.started"', times=4)
        lost = {number for number, (reader, _) in enumerate(clients) if reader.at_eof()}
        async with asyncio.timeout(100):
            while not all(this.calls[number].ended for number in lost):
                this.moved.clear()
                await this.moved.wait()

        kept = [call for number, call in this.calls.items() if number not in lost and not call.ended]
        assert len(lost) > 0
        assert len(kept) > 0, "requests and calls of the other worker go on"
        for _, writer in clients:
            writer.close()
        await this.until("ended", CALLS)
