"""What `sidecar status` shows: tables, as they are or as many rows as there is room for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

Data = dict[str, Any]
SHUT = frozenset({"open", "forced_open"})
_STYLES = {
    "closed": "green",
    "open": "bold red",
    "half_open": "yellow",
    "forced_open": "bold red",
    "disabled": "cyan",
}
_TABLE_LINES = 5
"""Of a table without rows: title, head, rule, the line for what is left out, an empty one."""
_MAX_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class Reading:
    """The state at one moment: `status`, `routes`, `breakers` and `upstreams` as the admin API tells them."""

    state: Data
    at: float
    """Monotonic seconds."""

    @property
    def is_well(self) -> bool:
        """No breaker is open, and the last reload was good."""
        status = self.state["status"]
        return not status["breakers"]["open_count"] and status["config"]["is_last_reload_successful"]


@dataclass(frozen=True, slots=True)
class Room:
    """Of a terminal: characters and lines."""

    width: int
    height: int


def picture(
    reading: Reading, before: Reading | None = None, trouble: str = "", room: Room | None = None
) -> RenderableType:
    """The state as tables; rates since `before`, or totals without one. `trouble`: why there is no newer state.

    With `room`: as many rows as fit, those in trouble first. Without: all, in the order of the file.
    """
    state = reading.state
    head = _head(reading, trouble)
    rows = [state["routes"], state["breakers"], _endpoints(state["upstreams"])]
    if room is None:
        limits = [len(one) for one in rows]
    else:
        lines = len(head.wrap(Console(width=room.width), room.width)) + _TABLE_LINES * len(rows)
        limits = _shares([len(one) for one in rows], room.height - lines)
        rows = [sorted(one, key=_urgency) for one in rows]
    makers: Sequence[Callable[[list[Data]], Table]] = (
        lambda some: _routes(some, reading, before),
        _breakers,
        _upstreams,
    )
    parts: list[RenderableType] = [head]
    for make, all_rows, limit in zip(makers, rows, limits, strict=True):
        parts.append(make(all_rows[:limit]))
        left = len(all_rows) - limit
        parts.append(Text(f"  and {left} more\n" if left else "", style="dim"))
    return Group(*parts)


def _shares(wanted: Sequence[int], lines: int) -> list[int]:
    """How many rows each table gets: an equal share, and what another does not want; at least one."""
    given = [0] * len(wanted)
    left = max(lines, len(wanted))
    hungry = [index for index, count in enumerate(wanted) if count]
    while left > 0 and hungry:
        for index in list(hungry):
            if left > 0:
                given[index] += 1
                left -= 1
            if given[index] >= wanted[index]:
                hungry.remove(index)
    return given


def _urgency(row: Data) -> tuple[bool, int, int]:
    """What sorts first: something open, then errors, then what is in use."""
    states = [row["state"]] if "state" in row else [one["state"] for one in row.get("breakers", ())]
    failed = row.get("errors", 0) + row.get("failed", 0) + row.get("rejected", 0)
    return (
        not SHUT & set(states),
        -failed,
        -(row.get("finished", 0) + row.get("total", 0) + row.get("in_flight", 0)),
    )


def _head(reading: Reading, trouble: str) -> Text:
    status = reading.state["status"]
    config = status["config"]
    ready = "ready" if status["is_ready"] else "draining" if status["is_draining"] else "not ready"
    name = f"{status['service'] or 'sidecar'} {status['version']} pid {status['pid']}"
    text = Text(f"{name}: ")
    text.append(ready, style="green" if status["is_ready"] else "bold yellow")
    text.append(f", up {status['uptime_seconds']:.0f} s, {status['exchanges']} requests under way, ")
    text.append(f"configuration {config['generation']}")
    if trouble:
        text.append(f"\nNO ANSWER, this is what was seen last: {trouble}", style="bold red")
    if status["breakers"]["open_count"]:
        names = ", ".join(f"{one['route']}/{one['upstream']}" for one in status["breakers"]["open"][:5])
        text.append(f"\n{status['breakers']['open_count']} OPEN: {names}", style="bold red")
    if not config["is_last_reload_successful"]:
        text.append("\nThe last reload FAILED, the configuration before it stays:", style="bold red")
        for problem in config["problems"][:_MAX_PROBLEMS]:
            text.append(f"\n  {problem.splitlines()[0]}", style="red")
    text.append("\n")
    return text


def _routes(rows: list[Data], reading: Reading, before: Reading | None) -> Table:
    then = {route["name"]: route for route in before.state["routes"]} if before else {}
    seconds = reading.at - before.at if before else 0.0
    unit = "requests/s" if seconds else "requests"
    table = _table("Routes", ("route", "to"), (unit, "errors", "p50 ms", "p95 ms", "p99 ms", "active"))
    for route in rows:
        finished, errors = route["finished"], route["errors"]
        old = then.get(route["name"])
        if (
            old is not None and old["finished"] <= finished
        ):  # else another life of it: all of its calls are new
            finished, errors = finished - old["finished"], errors - old["errors"]
        rate = f"{finished / seconds:.1f}" if seconds else str(finished)
        share = f"{errors / finished:.1%}" if finished else "-"
        quantiles = [_ms(route["duration_seconds"][name]) for name in ("p50", "p95", "p99")]
        upstreams = ", ".join(route["upstreams"])
        table.add_row(route["name"], upstreams, rate, share, *quantiles, str(route["active"]))
    return table


def _breakers(rows: list[Data]) -> Table:
    columns = ("failure rate", "in a row", "rejected", "next")
    table = _table("Breakers", ("route", "upstream", "state"), columns)
    for one in rows:
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


def _endpoints(upstreams: list[Data]) -> list[Data]:
    """A row for each endpoint, and one for an upstream without."""
    found: list[Data] = []
    for upstream in upstreams:
        common = {"upstream": upstream["name"], "pending": upstream["pending"]}
        found += [{**common, **endpoint} for endpoint in upstream["endpoints"]]
        if not upstream["endpoints"]:
            found.append({**common, "address": "no address is known"})
    return found


def _upstreams(rows: list[Data]) -> Table:
    table = _table("Upstreams", ("upstream", "endpoint"), ("in flight", "connections", "idle", "pending"))
    for one in rows:
        counts = [str(one.get(name, "")) for name in ("in_flight", "connections", "idle", "pending")]
        table.add_row(one["upstream"], one["address"], *counts)
    return table


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", expand=True, box=box.SIMPLE_HEAD)
    table.show_edge = False
    for name in left:
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"
