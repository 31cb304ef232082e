"""The demo from its start to its end: signals, the view, the summary."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console

from sidecar.demo.everyday import everyday
from sidecar.demo.ledger import INSTALL, IS_POSSIBLE
from sidecar.demo.processes import DemoFailed
from sidecar.demo.stage import Journal, Stage, running_stage
from sidecar.demo.story import play, summary
from sidecar.demo.view import print_lines, show

INTERRUPTED = 130
"""128 and SIGINT, as shells have it."""
LIVE_PAUSE_SECONDS = 2.0
"""After each scene, to read what was measured."""
PAUSE_SECONDS = 0.3
REST_SECONDS = 8.0
"""Between two plays in the live view, to read the summary."""
FORGET_SECONDS = 10.0


def run(options: argparse.Namespace) -> int:
    """Play; the exit code. All processes that it started have ended when it returns."""
    try:
        return asyncio.run(_until_told(options))
    except (DemoFailed, OSError) as error:
        print(f"sidecar demo: {error}", file=sys.stderr)
        return 1


async def _until_told(options: argparse.Namespace) -> int:
    """Run, and on the first signal unwind; later ones find the ending under way, which is short."""
    work = asyncio.ensure_future(_run(options))
    is_told = False

    def tell() -> None:
        nonlocal is_told
        if not is_told:
            is_told = True
            work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, tell)
    try:
        return await work
    except asyncio.CancelledError:
        return INTERRUPTED if options.once else 0


async def _run(options: argparse.Namespace) -> int:
    console = Console()
    journal = Journal()
    is_live = console.is_terminal and not console.is_dumb_terminal and not options.plain
    if not is_live:
        print_lines(journal, console, has_log=options.log)
    pause = options.pause if options.pause is not None else LIVE_PAUSE_SECONDS if is_live else PAUSE_SECONDS
    row = "client → frontend → orders → payments" + (" → ledger (gRPC)" if IS_POSSIBLE else "")
    console.print(
        f"Services in a row, a sidecar beside each: {row}. They start …", soft_wrap=not console.is_terminal
    )
    started = time.monotonic()
    async with running_stage(journal, breaker_mode=options.breaker_mode, otlp=options.otlp) as stage:
        if options.serve:
            _tell_addresses(stage, console)
        while True:
            async with _shown(stage, console, is_live=is_live):
                await play(stage, pause)
            does_hold = _tell_summary(stage, console, started)
            if options.once:
                return 0 if does_hold else 1
            if options.serve:
                await _serve(stage, console)
            if is_live:
                console.print(
                    f"The story begins anew in {REST_SECONDS:.0f} s. Ctrl-C ends it.", highlight=False
                )
                await asyncio.sleep(REST_SECONDS)
            started = time.monotonic()
            stage.forget()


@asynccontextmanager
async def _shown(stage: Stage, console: Console, *, is_live: bool) -> AsyncIterator[None]:
    """The live view while the block runs."""
    if not is_live:
        yield
        return
    view = asyncio.create_task(show(stage, console))
    try:
        yield
    finally:
        view.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await view


def _tell_summary(stage: Stage, console: Console, started: float) -> bool:
    lines, does_hold = summary(stage, started)
    console.print("\nWhat happened", style="bold")
    for line in lines:
        if console.is_terminal:
            line = textwrap.fill(line, console.width, subsequent_indent="     ", break_on_hyphens=False)
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not IS_POSSIBLE:
        console.print(INSTALL, markup=False, highlight=False, soft_wrap=True)
    return does_hold


def _tell_addresses(stage: Stage, console: Console) -> None:
    for sidecar in stage.sidecars:
        console.print(
            f"{sidecar.name}: {sidecar.inbound}  dashboard {sidecar.admin}/  {sidecar.file}", soft_wrap=True
        )
    first, second, *_ = stage.sidecars
    console.print(f"a call of your own: curl -i '{first.inbound}/slow?timeout=500ms'", soft_wrap=True)
    console.print(f"from another terminal: sidecar status --watch --admin {second.admin}", soft_wrap=True)


async def _serve(stage: Stage, console: Console) -> None:
    """Stay until told to end, with traffic to look at."""
    console.print("\nCtrl-C ends it. Until then clients go on calling, and payments is not always well.")
    _tell_addresses(stage, console)
    async with asyncio.TaskGroup() as group:
        group.create_task(everyday(stage))
        while True:
            await asyncio.sleep(FORGET_SECONDS)
            stage.forget()
