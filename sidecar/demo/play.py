"""The demo from its start to its end: signals, the view, the summary."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from rich.console import Console

from sidecar.demo import fleet_story, grpc_story, tls_story, tour
from sidecar.demo.everyday import everyday
from sidecar.demo.fleet_stage import running_fleet
from sidecar.demo.ledger import INSTALL, IS_POSSIBLE
from sidecar.demo.processes import DemoFailed
from sidecar.demo.stage import Journal, Stage, running_stage
from sidecar.demo.story import play, play_these, summary
from sidecar.demo.view import print_lines, show
from sidecar.terminal import colours

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
    if options.grpc and not IS_POSSIBLE:
        print(f"sidecar demo: {INSTALL}", file=sys.stderr)
        return 1
    is_told_in_lines = options.grpc or options.tls or options.tour
    play = _run_fleet if options.fleet else _run_in_lines if is_told_in_lines else _run
    try:
        return asyncio.run(_until_told(options, play))
    except (DemoFailed, OSError) as error:
        print(f"sidecar demo: {error}", file=sys.stderr)
        return 1


async def _until_told(
    options: argparse.Namespace, run: Callable[[argparse.Namespace], Awaitable[int]]
) -> int:
    """Run, and on the first signal unwind; later ones find the ending under way, which is short."""
    work = asyncio.ensure_future(run(options))
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
    console = colours.console()
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
            does_hold = _tell_summary(journal, console, started)
            if not IS_POSSIBLE:
                console.print(INSTALL, markup=False, highlight=False, soft_wrap=True)
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


def _lines(options: argparse.Namespace) -> tuple[Console, Journal, float]:
    """Where a story is told line by line, and the seconds between two of its scenes."""
    console, journal = colours.console(), Journal()
    print_lines(journal, console, has_log=options.log)
    return console, journal, options.pause if options.pause is not None else PAUSE_SECONDS


async def _run_in_lines(options: argparse.Namespace) -> int:
    """The tour, or the part of the story that is gRPC's or TLS's; in lines, once."""
    console, journal, pause = _lines(options)
    console.print("Services in a row, a sidecar beside each. They start …")
    started = time.monotonic()
    async with running_stage(
        journal, breaker_mode=options.breaker_mode, otlp=options.otlp, has_tls=options.tls
    ) as stage:
        if options.tour:
            await tour.play(stage, pause, lambda text: console.print(text, highlight=False))
        else:
            await play_these(grpc_story.SCENES if options.grpc else tls_story.SCENES, stage, pause)
        does_hold = _tell_summary(journal, console, started)
        if options.serve:
            await _serve(stage, console)
        return 0 if does_hold else 1


async def _run_fleet(options: argparse.Namespace) -> int:
    """Three replicas and a Redis; in lines, once."""
    console, journal, pause = _lines(options)
    console.print("Three replicas call payments, a sidecar beside each, and meet by a Redis. They start …")
    started = time.monotonic()
    async with running_fleet(journal, options.otlp) as stage:
        await fleet_story.play(stage, pause)
        does_hold = _tell_summary(journal, console, started)
        if options.serve:
            console.print("\nCtrl-C ends it. The dashboards:")
            for sidecar in stage.sidecars:
                console.print(f"replica {sidecar.name}: {sidecar.admin}/", soft_wrap=True)
            await asyncio.Event().wait()
        return 0 if does_hold else 1


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


def _tell_summary(journal: Journal, console: Console, started: float) -> bool:
    lines, does_hold = summary(journal.claims, started)
    console.print("\nWhat happened", style="bold")
    for line in lines:
        if console.is_terminal:
            line = textwrap.fill(line, console.width, subsequent_indent="     ", break_on_hyphens=False)
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return does_hold


def _tell_addresses(stage: Stage, console: Console) -> None:
    for sidecar in stage.sidecars:
        console.print(
            f"{sidecar.name}: {sidecar.inbound}  dashboard {sidecar.admin}/  {sidecar.file}", soft_wrap=True
        )
    first, second, *_ = stage.sidecars
    path = "/slow?timeout=500ms"
    call = f"curl -i '{first.inbound}{path}'"
    if stage.secured is not None:
        call = stage.secured.curl(first.name, first.ports.inbound, path)
    console.print(f"a call of your own: {call}", soft_wrap=True, markup=False, highlight=False)
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
