"""`sidecar status [--watch] [--json]`: routes, breakers, upstreams and rates of a running sidecar."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sidecar.cli import asking
from sidecar.cli.asking import AskFailed, Asking

PERIOD_SECONDS = 1.0
_STYLES = {
    "closed": "green",
    "open": "bold red",
    "half_open": "yellow",
    "forced_open": "bold red",
    "disabled": "cyan",
}

Data = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to show it."""
    parser.add_argument("--watch", action="store_true", help="again each second, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="as JSON, once")
    asking.add_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Show; 0 when all is well, 1 when a breaker is open, the last reload failed or nobody answers, 2 for a wrong
    address."""
    try:
        ask = Asking(options.admin, options.token_file)
    except ValueError as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return 2
    try:
        state = read(ask)
        if options.json:
            print(json.dumps(state, indent=2, ensure_ascii=False))
        elif options.watch:
            state = _watch(ask, state)
        else:
            Console().print(picture(state, None))
    except AskFailed as failed:
        print(f"sidecar: {failed}", file=sys.stderr)
        return 1
    return 0 if is_well(state) else 1


def read(ask: Asking) -> Data:
    """Everything that is shown, from four resources. Raises: AskFailed."""
    state: Data = {"read_at": time.monotonic(), "status": ask.get("/status")}
    for name in ("routes", "breakers", "upstreams"):
        state[name] = ask.get(f"/{name}")[name]
    return state


def is_well(state: Data) -> bool:
    """No breaker is open, and the last reload was good."""
    status = state["status"]
    return not status["breakers"]["open_count"] and status["config"]["is_last_reload_successful"]


def _watch(ask: Asking, state: Data) -> Data:
    try:
        with Live(picture(state, None), screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(PERIOD_SECONDS)
                before, state = state, read(ask)
                live.update(picture(state, before), refresh=True)
    except KeyboardInterrupt:
        return state


def picture(state: Data, before: Data | None) -> Group:
    """The state as tables; rates since `before`, or totals without one."""
    return Group(_head(state), _routes(state, before), _breakers(state), _upstreams(state))


def _head(state: Data) -> Text:
    status = state["status"]
    config = status["config"]
    ready = "ready" if status["is_ready"] else "draining" if status["is_draining"] else "not ready"
    reload = "" if config["is_last_reload_successful"] else "; the last reload FAILED: the old one stays"
    name = f"{status['service'] or 'sidecar'} {status['version']} pid {status['pid']}"
    text = f"{name}: {ready}, up {status['uptime_seconds']:.0f} s, {status['exchanges']} exchanges under way,"
    return Text(
        f"{text} configuration {config['generation']}{reload}", style="" if is_well(state) else "bold"
    )


def _routes(state: Data, before: Data | None) -> Table:
    then = {route["name"]: route for route in before["routes"]} if before else {}
    seconds = state["read_at"] - before["read_at"] if before else 0.0
    unit = "requests/s" if before else "requests"
    table = _table("Routes", ("route", "to"), (unit, "errors", "p50 ms", "p95 ms", "p99 ms", "active"))
    for route in state["routes"]:
        finished, errors = route["finished"], route["errors"]
        old = then.get(route["name"])
        if old is not None and seconds > 0:
            finished, errors = finished - old["finished"], errors - old["errors"]
        rate = f"{finished / seconds:.1f}" if before and seconds > 0 else str(finished)
        share = f"{errors / finished:.1%}" if finished else "-"
        quantiles = [_ms(route["duration_seconds"][name]) for name in ("p50", "p95", "p99")]
        table.add_row(
            route["name"], ", ".join(route["upstreams"]), rate, share, *quantiles, str(route["active"])
        )
    return table


def _breakers(state: Data) -> Table:
    table = _table(
        "Breakers", ("route", "upstream", "state"), ("failure rate", "in a row", "rejected", "next")
    )
    for one in state["breakers"]:
        told = one["state"] + (" (forced)" if one["is_overridden"] else "")
        left = one["override_seconds_left"] if one["is_overridden"] else one["next_probe_seconds"]
        table.add_row(
            one["route"],
            one["upstream"],
            Text(told, style=_STYLES[one["state"]]),
            f"{one['failure_rate']:.1%}",
            str(one["failure_count"]),
            str(one["rejected"]),
            "" if left is None else f"{left:.1f} s",
        )
    return table


def _upstreams(state: Data) -> Table:
    table = _table("Upstreams", ("upstream", "endpoint"), ("in flight", "connections", "idle", "pending"))
    for upstream in state["upstreams"]:
        pending = str(upstream["pending"])
        if not upstream["endpoints"]:
            table.add_row(upstream["name"], "no address is known", "", "", "", pending)
        for one in upstream["endpoints"]:
            counts = (one["in_flight"], one["connections"], one["idle"])
            table.add_row(upstream["name"], one["address"], *map(str, counts), pending)
    return table


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", expand=True)
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right")
    return table


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"
