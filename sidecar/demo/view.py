"""How the demo is watched: a live picture in a terminal, plain lines anywhere else."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import ClientError
from rich.console import Console
from rich.live import Live

from sidecar.demo.picture import picture
from sidecar.demo.stage import Journal, Stage

PERIOD_SECONDS = 0.1
MARKS = {"scene": "\n==", "change": "  breaker", "claim": " ", "note": "  ·", "log": "  log"}


def print_lines(journal: Journal, console: Console, *, has_log: bool) -> None:
    """Print each thing as it happens."""
    started = time.monotonic()

    def on_line(kind: str, text: str) -> None:
        if kind == "log" and not has_log:
            return
        stamp = "" if kind == "scene" else f"{time.monotonic() - started:6.2f} "
        console.print(f"{stamp}{MARKS[kind]} {text}", markup=False, highlight=False, soft_wrap=True)

    journal.on_line = on_line


async def show(stage: Stage, console: Console) -> None:
    """Draw the picture until cancelled, on the terminal's other screen: what stood there before comes back."""
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            width, height = console.size
            seen = picture(stage, await _breaker(stage), time.monotonic(), width, height - 1)
            live.update(seen, refresh=True)
            await asyncio.sleep(PERIOD_SECONDS)


async def _breaker(stage: Stage) -> dict[str, Any]:
    try:
        return await stage.breaker()
    except (ClientError, OSError):
        return {}
