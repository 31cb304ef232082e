"""The kill list: python -m tests.bench.kill_list [--rate 100] [SCENE ...].

A real sidecar for each scene, under a steady open-loop load; a fault begins after 2 s, lasts about 4 s, and ends.
Prints a table: how many requests failed, how many of them needlessly (somebody could have answered), and how many
since the breaker's wait was not over when the upstream was back; how long it took until none failed any more, the
slowest good answer, resident memory before, at most and after, and what the log said. SCENE: only those with this
text in their name.

With one of two stopped, what had been sent there when it stopped, and what tries it again, gets no answer: whether
it was processed cannot be known, and `retry.attempts` is 0.

The wall clock is moved within the process: to set the real one would change it for the whole machine. As root an
unreadable file is a socket, since root may read everything. Exit code 1 if a scene could not be played to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import uvloop

from tests.bench.kill_list.load import Load
from tests.bench.kill_list.scenes import SCENES, Scene, collector, no_collector
from tests.bench.kill_list.told import HEAD, Row, row, said
from tests.bench.kill_list.world import World, world

BEFORE_SECONDS = 2.0
AFTER_SECONDS = 4.0
LOOK_SECONDS = 0.1


async def _look(one: World, found: list[float]) -> None:
    while True:
        found.append(one.mebibytes())
        await asyncio.sleep(LOOK_SECONDS)


async def played(scene: Scene, one: World, rate: float) -> Row:
    """The scene, with load before, within and after it."""
    loop = asyncio.get_running_loop()
    await collector(0.001)(one)
    load = Load(one.ports["inbound"], rate, scene.path)
    mebibytes = [one.mebibytes()]
    tasks = [asyncio.create_task(load.run()), asyncio.create_task(_look(one, mebibytes))]
    try:
        await asyncio.sleep(BEFORE_SECONDS)
        mebibytes[0] = one.mebibytes()
        began = loop.time()
        await scene.begin(one)
        await asyncio.sleep(max(0.0, began + scene.seconds - loop.time()))
        await scene.end(one)
        ended = loop.time()
        await asyncio.sleep(AFTER_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await load.last()
        await no_collector(one)
    mebibytes.append(one.mebibytes())
    dropped = await one.metric("sidecar_telemetry_dropped_total")
    log = said(one.log.read_text(errors="replace")) + (f"; {dropped:.0f} dropped, counted" if dropped else "")
    return row(scene.name, load.calls, (began, ended), mebibytes, log, is_outage=scene.is_outage)


def _stdout(scene: Scene) -> tuple[Any, int]:
    """Where the sidecar writes, and what is kept open for it (-1: nothing)."""
    if scene.stdout == "full":
        return os.open("/dev/full", os.O_WRONLY), -1
    if scene.stdout == "stalled":
        reader, writer = os.pipe()
        return writer, reader
    return None, -1


async def play(scene: Scene, rate: float) -> bool:
    """Print its row; False if it could not be played."""
    output, kept = _stdout(scene)
    with tempfile.TemporaryDirectory(prefix="sidecar-kill-") as name:
        try:
            async with world(Path(name), output) as one:
                print((await played(scene, one, rate)).line(), flush=True)
            return True
        except (OSError, TimeoutError, ValueError) as error:
            traceback.print_exception(error)
            print(f"| {scene.name} | could not be played: {error!r} |", flush=True)
            return False
        finally:
            for descriptor in (output, kept):
                if isinstance(descriptor, int) and descriptor >= 0:
                    os.close(descriptor)


async def run(options: argparse.Namespace) -> int:
    print(HEAD, flush=True)
    chosen = [
        scene for scene in SCENES if not options.scenes or any(part in scene.name for part in options.scenes)
    ]
    return int(not all([await play(scene, options.rate) for scene in chosen]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", nargs="*", metavar="SCENE")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    return uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
