"""What `sidecar status` shows: a few lines on all of it, and tables with as many rows as there is room for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sidecar.cli.tables import Column, fitted
from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import ORIGINAL

Data = dict[str, Any]
SHUT = frozenset({"open", "forced_open"})
_STYLES = {
    "closed": "green",
    "open": "bold red",
    "half_open": "yellow",
    "forced_open": "bold red",
    "forced_closed": "cyan",
    "disabled": "cyan",
}
_TABLE_LINES = 5
"""Of a table without rows: title, head, rule, the line for what is left out, an empty one."""
ENOUGH = 20
"""Requests, of which a quantile or a percentage means something."""
_MAX_PROBLEMS = 5
_MAX_PENDING = 5
_MAX_OPEN = 5
_MAX_PASSED = 10
_USUAL_WIDTH = 80
_DAY_SECONDS = 86_400
_SOON_SECONDS = 7 * _DAY_SECONDS
"""A certificate that is good for less is shown in another colour."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The state at one moment: `status`, `routes`, `breakers` and `upstreams` as the admin API tells them."""

    state: Data

    @property
    def is_well(self) -> bool:
        """No breaker is open, the last reload was good, and so are all certificates."""
        status = self.state["status"]
        is_bad = any(_certificate_trouble(one) for one in status.get("certificates", ()))
        is_reloaded: bool = status["config"]["is_last_reload_successful"]
        return not status["breakers"]["open_count"] and is_reloaded and not is_bad


@dataclass(frozen=True, slots=True)
class Room:
    """Of a terminal: characters and lines. None is no limit."""

    width: int | None = None
    height: int | None = None


UNLIMITED = Room()


def picture(
    reading: Reading, trouble: str = "", room: Room = UNLIMITED, *, is_since_start: bool = False
) -> RenderableType:
    """The state as tables; rates and quantiles of the last minute, or all since the start. `trouble`: why there is no
    newer state.

    With a height: as many rows as fit, those in trouble first. Without: all, in the order of the file.
    """
    state = reading.state
    head = _head(reading, trouble)
    rows = [state["routes"], state["breakers"], _endpoints(state["upstreams"])]
    if room.height is None:
        limits = [len(one) for one in rows]
    else:
        width = room.width or _USUAL_WIDTH
        lines = len(head.wrap(Console(width=width), width)) + _TABLE_LINES * len(rows)
        limits = _shares([len(one) for one in rows], room.height - lines)
        rows = [sorted(one, key=_urgency) for one in rows]
    makers: Sequence[Callable[[list[Data]], Table]] = (
        lambda some: _routes(some, room.width, is_since_start=is_since_start),
        lambda some: _breakers(some, room.width),
        lambda some: _upstreams(some, room.width),
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
    text.append(f", up {status['uptime_seconds']:.0f} s, requests under way: {status['exchanges']}, ")
    text.append(f"configuration {config['generation']}")
    _add_workers(text, status.get("workers", ()))
    if trouble:
        text.append(f"\nNO ANSWER, this is what was seen last: {trouble}", style="bold red")
    if status["breakers"]["open_count"]:
        shut = status["breakers"]["open"]
        text.append(_listed("OPEN", shut, status["breakers"]["open_count"]), style="bold red")
    held = [one for one in reading.state["breakers"] if one["is_overridden"] and one["state"] not in SHUT]
    if held:
        text.append(_listed("HELD BY HAND", held, len(held)), style="bold cyan")
    for told in _failovers(reading.state["upstreams"]):
        text.append(f"\n{told}", style="bold yellow")
    _add_adaptive(text, reading.state["upstreams"])
    if not config["is_last_reload_successful"]:
        text.append("\nThe last reload FAILED, the configuration before it stays:", style="bold red")
        for problem in config["problems"][:_MAX_PROBLEMS]:
            text.append(f"\n  {problem.splitlines()[0]}", style="red")
    if pending := status.get("pending_restart"):
        more = f" and {len(pending) - _MAX_PENDING} more" if len(pending) > _MAX_PENDING else ""
        text.append(f"\nat the next start: {', '.join(pending[:_MAX_PENDING])}{more}", style="yellow")
    for lost in status.get("telemetry_lost", ()):
        text.append(
            f"\nlost of telemetry: {lost['count']} of {lost['signal']} ({_lost(lost)})", style="yellow"
        )
    _add_certificates(text, status.get("certificates", ()))
    _add_fleet(text, status.get("fleet"), reading.state["breakers"])
    _add_passed(text, status.get("pass_through"))
    if untied := status.get("untied_calls"):
        text.append(f"\n{untied}", "yellow")
    text.append("\n")
    return text


def _add_workers(text: Text, workers: Sequence[Data]) -> None:
    """Those that are not there, and how often any has died."""
    if not workers:
        return
    away = [str(one["number"]) for one in workers if not one["is_there"]]
    deaths = sum(one["deaths"] for one in workers)
    text.append(f", workers {len(workers) - len(away)} of {len(workers)}", style="bold red" if away else "")
    if away:
        text.append(f" (not {', '.join(away)})", style="bold red")
    if deaths:
        text.append(f", deaths {deaths}", style="yellow")


def _lost(lost: Data) -> str:
    is_disk = lost["reason"] == "write_failed"
    return "write_failed: the disk is full, or nobody reads the log" if is_disk else str(lost["reason"])


def _add_fleet(text: Text, fleet: Data | None, breakers: Sequence[Data]) -> None:
    """How this replica stands to the others, and what they make of its breakers."""
    if not fleet:
        return
    if fleet["is_alone"]:
        text.append(
            f"\nfleet {fleet['name']}: ALONE, {fleet['reason']}: {fleet['told']}", style="bold yellow"
        )
    else:
        count = fleet["replicas"]
        text.append(f"\nfleet {fleet['name']}: one of {count} replica{'s' * (count != 1)}")
    if fleet["versions"] > 1:
        text.append(f", {fleet['versions']} versions", style="yellow")
    told = [(one, one["fleet"]["told"]) for one in breakers if one.get("fleet") and one["fleet"]["told"]]
    for one, words in told[:_MAX_OPEN] if not fleet["is_alone"] else ():
        text.append(f"\n  {one['route']}/{one['upstream']}: {words}", style="yellow")


def _add_passed(text: Text, passed: Data | None) -> None:
    """What to write routes for: the destinations without one, the most used first."""
    if not passed or not passed["destinations"]:
        return
    text.append(
        f"\n{passed['destinations']} destinations without a route, passed through {passed['passed']} times"
    )
    if passed["closed"]:
        text.append(f", {passed['closed']} times refused (closed addresses)", style="yellow")
    text.append(":")
    for one in sorted(passed["last"], key=lambda one: -one["count"])[:_MAX_PASSED]:
        text.append(f"\n  {one['destination']} {one['count']} times")
        if one["state"] in SHUT:
            text.append(f", breaker {one['state'].replace('_', ' ')}", style="bold red")
    if passed["destinations"] > _MAX_PASSED:
        text.append(f"\n  and {passed['destinations'] - _MAX_PASSED} more")


def _failovers(upstreams: Sequence[Data]) -> list[str]:
    """A line for each upstream that has given load away."""
    return [
        f"FAILOVER: {one['route']}/{upstream['name']} keeps {one['kept_share']:.0%} of its load,"
        f" {', '.join(upstream['failover']['to'])} takes over"
        for upstream in upstreams
        if upstream.get("failover")
        for one in upstream["failover"]["routes"]
        if one["phase"] != "home"
    ][:_MAX_OPEN]


def _add_adaptive(text: Text, upstreams: Sequence[Data]) -> None:
    """What adaptive limits allow: a line for each upstream that has one, those first that refuse the most."""
    limited = [(one["name"], one["adaptive"]) for one in upstreams if one.get("adaptive")]
    limited.sort(key=lambda one: -(one[1]["refused"] + one[1]["would_refuse"]))
    for name, adaptive in limited[:_MAX_OPEN]:
        is_observing = adaptive["mode"] == "observe"
        refused = (
            f"would have refused {adaptive['would_refuse']}"
            if is_observing
            else f"refused {adaptive['refused']}"
        )
        is_full = not is_observing and adaptive["in_flight"] >= adaptive["limit"]
        text.append(
            f"\nadaptive limit of {name}: {adaptive['in_flight']} of {adaptive['limit']} in flight, {refused}",
            style="bold yellow" if is_full else "",
        )
    if len(limited) > _MAX_OPEN:
        text.append(f"\n  and {len(limited) - _MAX_OPEN} more")


def _certificate_trouble(owner: Data) -> bool:
    """What its files hold is not used, or what is used has expired."""
    return bool(owner["problem"]) or any(one["expires_in_seconds"] <= 0 for one in owner["certificates"])


def _add_certificates(text: Text, owners: Sequence[Data]) -> None:
    """A line for each owner, with the one that expires first."""
    for owner in owners:
        first = min(owner["certificates"], key=itemgetter("expires_in_seconds"), default=None)
        soonest = None if first is None else first["expires_in_seconds"]
        file = "" if first is None else f" ({first['file']})"
        is_bad = _certificate_trouble(owner)
        style = "bold red" if is_bad else "yellow" if soonest is not None and soonest < _SOON_SECONDS else ""
        text.append(f"\ncertificate of {owner['owner']}: {_left(soonest)}{file}", style=style)
        if owner["problem"]:
            text.append(f"; what its files hold now is NOT USED: {owner['problem']}", style=style)


def _left(seconds: int | None) -> str:
    if seconds is None:
        return "none of its own"
    if seconds <= 0:
        return "EXPIRED"
    days = seconds // _DAY_SECONDS
    return f"good for {days} days" if days >= 2 else f"good for {seconds // 3600} hours"


def _listed(what: str, breakers: Sequence[Data], count: int) -> str:
    """How many there are, and a line for each of the first ones: what opened it, or who holds it."""
    lines = [f"\n{count} {what}:"]
    lines += [
        f"  {one['route']}/{one['upstream']} {one['why'] or one['told']}{_since(one)}"
        for one in breakers[:_MAX_OPEN]
    ]
    if count > _MAX_OPEN:
        lines.append(f"  and {count - _MAX_OPEN} more")
    return "\n".join(lines)


def _since(breaker: Data) -> str:
    """When its outage began; who holds it says so already."""
    since = breaker.get("since")
    return "" if since is None or " since " in breaker["why"] else f"; since {since[:19]}Z"


_ROUTES = (
    Column("route", is_name=True, is_number=False),
    Column("to", rank=4, is_name=True, is_number=False),
    Column("requests", "req"),
    Column("errors", "err"),
    Column("gone", rank=6),
    Column("p50 ms", "p50", rank=3),
    Column("p95 ms", "p95", rank=2),
    Column("p99 ms", "p99", rank=1),
    Column("active", "act", rank=5),
)
_RATES = (*_ROUTES[:2], Column("requests/s", "req/s"), *_ROUTES[3:])
_BREAKERS = (
    Column("route", is_name=True, is_number=False),
    Column("upstream", "to", rank=3, is_name=True, is_number=False),
    Column("state", is_number=False),
    Column("failure rate", "failed", rank=2),
    Column("in a row", "row", rank=4),
    Column("rejected", "rej", rank=1),
    Column("next"),
)
_UPSTREAMS = (
    Column("upstream", is_name=True, is_number=False),
    Column("endpoint", is_name=True, is_number=False),
    Column("state", is_number=False),
    Column("in flight", "act"),
    Column("connections", "conns", rank=2),
    Column("idle", rank=3),
    Column("pending", "wait", rank=1),
)


def _routes(rows: list[Data], width: int | None, *, is_since_start: bool) -> Table:
    cells = []
    for route in rows:
        seen = route if is_since_start else route["minute"]
        finished = seen["finished"]
        seconds = 0.0 if is_since_start else seen["seconds"]
        cells.append(
            [
                route["name"],
                ", ".join(route["upstreams"]) or f"({route['answers']})",
                f"{finished / seconds:.1f}" if seconds else str(finished),
                _share(seen["errors"], finished),
                _share(seen["gone"], finished),
                *(_quantile(seen, name) for name in ("p50", "p95", "p99")),
                str(route["active"]),
            ]
        )
    title = "Routes since the start" if is_since_start else "Routes in the last minute"
    return fitted(title, _ROUTES if is_since_start else _RATES, cells, width)


def _share(part: int, finished: int) -> str:
    """Of few, how many: a percentage of them says more than is known."""
    if not finished:
        return "-"
    return f"{part / finished:.1%}" if finished >= ENOUGH else f"{part} of {finished}"


def _quantile(seen: Data, name: str) -> str:
    if not seen["finished"]:
        return "-"
    return _ms(seen["duration_seconds"][name]) if seen["finished"] >= ENOUGH else "too few"


def _breakers(rows: list[Data], width: int | None) -> Table:
    cells: list[list[str | Text]] = []
    for one in rows:
        cells.append(
            [
                one["route"],
                one["upstream"],
                Text(one["told"], style=_STYLES[one["state"]]),
                f"{one['failure_rate']:.1%}",
                str(one["failure_count"]),
                str(one["rejected"]),
                _next(one),
            ]
        )
    return fitted("Breakers", _BREAKERS, cells, width)


def _next(breaker: Data) -> str:
    """What happens by itself, and when."""
    if breaker["is_overridden"]:
        left, what = breaker["override_seconds_left"], "auto"
    elif breaker["is_probe_due"]:
        return "at the next request"
    else:
        left, what = breaker["next_probe_seconds"], "probe"
    return "" if left is None else f"{what} in {left:.{0 if left >= 10 else 1}f} s"


def _endpoints(upstreams: list[Data]) -> list[Data]:
    """A row for each endpoint, and one for an upstream without."""
    found: list[Data] = []
    for upstream in upstreams:
        common = {"upstream": upstream["name"], "pending": upstream["pending"]}
        found += [{**common, **endpoint} for endpoint in upstream["endpoints"]]
        stale = [one["entry"] for one in upstream.get("lists", ()) if one["error"] is not None]
        found += [{**common, "address": entry, "state": "not listed"} for entry in stale]
        if not upstream["endpoints"] and not stale:
            # The endpoints of `original` come with its clients.
            is_original = upstream.get("configured") == [str(ORIGINAL)]
            none = "no client has come" if is_original else "no address is known"
            found.append({**common, "address": none})
    return found


def _upstreams(rows: list[Data], width: int | None) -> Table:
    counts = ("in_flight", "connections", "idle", "pending")
    cells: list[list[str | Text]] = [
        [one["upstream"], one["address"], _endpoint_state(one), *(str(one.get(name, "")) for name in counts)]
        for one in rows
    ]
    return fitted("Upstreams", _UPSTREAMS, cells, width)


def _endpoint_state(endpoint: Data) -> Text:
    """What is thought of it, and for how long it is left out."""
    state, left = endpoint.get("state", ""), endpoint.get("ejected_seconds_left")
    if state in ("", "usable"):
        return Text(f"{state}, this pod" if endpoint.get("own_pod") else state)
    return Text(state if left is None else f"{state}, {left:.0f} s left", style="bold yellow")


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"
