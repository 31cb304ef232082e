"""What the worst heads cost that a client can send within the limits: milliseconds of CPU for each, whole exchanges.

    python -m tests.bench.worst_heads [--only WORD]

Each head of `tests/support/worst.py` is sent to a listener whose callers are trusted and to one whose are not, in
front of fifty routes that compare paths, fields and parameters with regular expressions. The data path is driven by
hand, as in `path_cost`: what is measured is Python's time, the best of several rounds. SPEC 4 allows 2 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import time
from collections.abc import Callable

import uvloop

from sidecar.config.load import load_text
from sidecar.runtime.worker import Worker
from tests.support.heads_by_hand import HeadDriver
from tests.support.worst import FILE, HEADER, heads

ROUNDS = 7
LIMIT_MS = 2.0


def milliseconds(exchange: Callable[[], None]) -> float:
    """CPU time of one call."""
    before = time.process_time_ns()
    exchange()
    return (time.process_time_ns() - before) / 1e6


async def cost(driver: HeadDriver, head: bytes) -> tuple[float, int]:
    """Milliseconds of one exchange with this head, and its status."""
    found = []
    for _ in range(ROUNDS):
        found.append(driver.send(head, milliseconds))
        await asyncio.sleep(0)  # a turn of the loop has time for so many requests
    return min(found)


async def measure(log: int, only: str) -> None:
    worker = Worker(load_text(HEADER + FILE).snapshot, {}, log_fd=log, clock=time.monotonic)
    await worker.start()
    print(f"{'head':<46}{'trusted':>16}{'stranger':>16}   milliseconds, status")
    for name, head in heads().items():
        if only in name:
            cells = [await cost(HeadDriver(worker, listener), head) for listener in ("mesh", "street")]
            marks = "  over" if max(cell[0] for cell in cells) > LIMIT_MS else ""
            print(f"{name:<46}" + "".join(f"{cost:>12.3f} {status}" for cost, status in cells) + marks)
    worker.service.exchanges.clear()
    await worker.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.worst_heads")
    parser.add_argument("--only", default="", help="those whose name has this in it")
    gc.disable()
    log = os.open(os.devnull, os.O_WRONLY)
    try:
        uvloop.run(measure(log, parser.parse_args().only))
    finally:
        os.close(log)


if __name__ == "__main__":
    main()
