"""What is seen of the demo: a live picture in a terminal, plain lines anywhere else."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import ClientError
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sidecar.demo.stage import Journal, Stage

PERIOD_SECONDS = 0.1
LINES = 8
STYLES = {"closed": "green", "open": "bold red", "half_open": "yellow", "disabled": "cyan"}


def print_lines(journal: Journal, console: Console, *, has_log: bool) -> None:
    """Print each thing as it happens."""
    started = time.monotonic()

    def on_line(kind: str, text: str) -> None:
        if kind == "log" and not has_log:
            return
        mark = {"scene": "\n==", "change": "  breaker", "claim": " ", "note": "  ·", "log": "  log"}[kind]
        stamp = "" if kind == "scene" else f"{time.monotonic() - started:6.2f} "
        console.print(f"{stamp}{mark} {text}", markup=False, highlight=False, soft_wrap=True)

    journal.on_line = on_line


async def show(stage: Stage, console: Console) -> None:
    """Draw the picture until cancelled."""
    with Live(picture(stage, {}), console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(picture(stage, await _breaker(stage)), refresh=True)
            await asyncio.sleep(PERIOD_SECONDS)


async def _breaker(stage: Stage) -> dict[str, Any]:
    try:
        return await stage.breaker()
    except (ClientError, OSError):
        return {}


def picture(stage: Stage, breaker: dict[str, Any]) -> RenderableType:
    """Everything at this moment."""
    journal = stage.journal
    return Group(
        Panel(Text(journal.scene or "starting", style="bold"), title="sidecar demo"),
        _chain(stage),
        _state(journal, breaker),
        _claims(journal),
        Panel(Text("\n".join(journal.lines[-LINES:]), no_wrap=True, overflow="ellipsis"), title="log"),
    )


def _chain(stage: Stage) -> Table:
    table = Table(title="client → frontend → orders → payments", title_justify="left", expand=True)
    table.add_column("service")
    for name in ("is", "running", "served", "cancelled", "last budget"):
        table.add_column(name, justify="right")
    for service in stage.services:
        last = service.served[-1].budget_ms if service.served else None
        cancelled = sum(call.status == 499 for call in service.served)
        table.add_row(
            service.name,
            Text("alive") if service.is_alive else Text("DEAD", style="bold red"),
            f"{service.running} {'▪' * min(service.running, 12)}",
            str(len(service.served)),
            str(cancelled),
            "-" if last is None else f"{last} ms {'█' * min(20, last // 100)}",
        )
    return table


def _state(journal: Journal, breaker: dict[str, Any]) -> Panel:
    state = str(breaker.get("state", "unknown"))
    text = Text.assemble(
        "orders → payments: ",
        (state.upper(), STYLES.get(state, "bold")),
        f"   in a row {breaker.get('failure_count', '-')}   refused {breaker.get('rejected', '-')}",
    )
    wait = breaker.get("next_probe_seconds")
    if wait is not None:
        text.append(f"   next probe in {wait:.1f} s")
    for change in journal.changes[-4:]:
        text.append(f"\n  {change.from_state} → ")
        text.append(change.to_state, style=STYLES.get(change.to_state, "bold"))
        text.append(f"  {change.reason}")
    return Panel(text, title="breaker")


def _claims(journal: Journal) -> Panel:
    text = Text(overflow="fold")
    for claim in journal.claims[-LINES:]:
        text.append("ok   " if claim.holds else "FAIL ", style="green" if claim.holds else "bold red")
        text.append(f"{claim.text}\n")
    text.rstrip()
    return Panel(text, title="measured")
