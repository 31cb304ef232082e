"""The live picture of the demo at one moment. Pure: state and the size of the terminal in, text out."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sidecar.demo.ledger import Ledger
from sidecar.demo.processes import Change
from sidecar.demo.services import Asked, Served, Service
from sidecar.demo.stage import ROUTE, Journal, Stage

SECONDS_SHOWN = 20.0
"""Of the breaker's life, in its time line."""
SLOW_SECONDS = 0.4
"""`slow_call_duration` of the template."""
MAX_LOG_LINES = 12
MAX_PROMISE_LINES = 2
NARROW_COLUMNS = 68
"""Below this there are no bars."""
STATES = {
    "closed": ("─", "green"),
    "open": ("█", "bold red"),
    "half_open": ("▒", "bold yellow"),
    "forced_closed": ("┄", "cyan"),
    "disabled": ("┄", "cyan"),
}
"""How each state is drawn: by its form first, so that colour is never the only sign."""
CALLS = {
    "good": ("✓", "green"),
    "slow": ("~", "yellow"),
    "failed": ("✗", "red"),
    "refused": ("⊘", "bold magenta"),
}
NOTHING = "–"


def picture(stage: Stage, breaker: dict[str, Any], now: float, width: int, height: int) -> RenderableType:
    """Everything, in at most `height` lines; what happened longest ago makes room."""
    journal, inner = stage.journal, max(20, width - 4)
    told = textwrap.wrap(journal.note_text or journal.promise, inner)[:MAX_PROMISE_LINES] or [""]
    head = _head(journal, told, stage, width)
    chain = _chain(stage, width)
    state = _state(stage, breaker, now, inner)
    left = height - (3 + len(told) + 3 + len(stage.row) + 5)
    claims = _claims(journal, inner, min(left - 2, 12))
    left -= len(claims) + 2
    parts: list[RenderableType] = [head, chain, state, _panel("measured", claims)]
    if left >= 3:
        calls = journal.calls[-min(MAX_LOG_LINES, left - 2) :]
        parts.append(_panel("log", [Text(_short(call)) for call in calls]))
    return Group(*parts)


def _head(journal: Journal, told: Sequence[str], stage: Stage, width: int) -> Panel:
    text = Text(journal.scene or "starting", style="bold", no_wrap=True, overflow="ellipsis")
    text.append("".join(f"\n{line}" for line in told), style="not bold")
    where = f"{stage.sidecars[1].admin}/"
    if width >= NARROW_COLUMNS:
        where = f"dashboard of orders: {where}"
    return Panel(text, title="sidecar demo", subtitle=where, subtitle_align="right")


def _chain(stage: Stage, width: int) -> Table:
    """The services in the order in which a call passes them, and what is left of its time at each."""
    is_narrow = width < NARROW_COLUMNS
    bar_columns = 0 if is_narrow else min(60, width - 58)
    table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1, 0, 0), show_edge=False)
    running = ("now", 3) if is_narrow else ("running", 12)
    for name, columns in (("client → …", 10), running, ("answered", 9)):
        table.add_column(name, no_wrap=True, min_width=columns)
    table.add_column("left" if is_narrow else "time left", justify="right", no_wrap=True, min_width=8)
    if not is_narrow:
        table.add_column("", no_wrap=True, width=bar_columns)
    calls = _newest(stage.row)
    longest = max([call.budget_ms or 0 for call in calls.values()] + [stage.given_ms or 0, 1])
    gave = "" if stage.given_ms is None else "gave"
    rows: list[tuple[str, str, str | Text, int | None]] = [("client", "", gave, stage.given_ms)]
    for service in stage.row:
        call = calls.get(service.name)
        count = f"{service.running:2}" + ("" if is_narrow else f" {'▪' * min(service.running, 9)}")
        rows.append((f"→ {service.name}", count, _answer(service, call), call.budget_ms if call else None))
    for name, count, answer, left_ms in rows:
        left, bar = _budget(left_ms, longest, bar_columns)
        table.add_row(name, count, answer, left, *([] if is_narrow else [bar]))
    return table


def _newest(services: Sequence[Service | Ledger]) -> dict[str, Served]:
    """The call that began last, at each service that it has reached."""
    last = {service.name: service.served[-1] for service in services if service.served}
    if not last:
        return {}
    newest = max(last.values(), key=lambda call: call.began)
    return {name: call for name, call in last.items() if call.trace_id == newest.trace_id}


def _budget(left_ms: int | None, longest_ms: int, columns: int) -> tuple[str, str]:
    if left_ms is None:
        return NOTHING, ""
    return f"{left_ms} ms", "█" * round(columns * left_ms / longest_ms)


def _answer(service: Service | Ledger, call: Served | None) -> Text:
    """How the newest call ended here, or that nobody is here."""
    if not service.is_alive:
        return Text("DEAD", style="bold red")
    if call is None:
        return Text(NOTHING)
    if call.status == 0:
        return Text("under way", style="yellow")
    if call.status == 499:
        return Text("CANCELLED", style="bold red")
    return Text(str(call.status), style="green" if call.status < 500 else "red")


def _state(stage: Stage, breaker: dict[str, Any], now: float, columns: int) -> Panel:
    """What the breaker is, what it was, and what became of the calls that it saw."""
    state = str(breaker.get("state", "unknown"))
    mark, style = STATES.get(state, ("?", "bold"))
    first = Text(f"{mark * 2} {state.upper()}", style=style)
    wait = breaker.get("next_probe_seconds")
    for name, value in (
        ("next probe in", None if wait is None else f"{wait:.1f} s"),
        ("refused", breaker.get("rejected", NOTHING)),
        ("failures in a row", breaker.get("failure_count", NOTHING)),
    ):
        if value is not None:
            first.append(f"   {name} {value}", style="none")
    life, name = Text(no_wrap=True), f"last {SECONDS_SHOWN:.0f} s "
    for one in _states_over(stage.journal.changes, now, columns - len(name)):
        life.append(*STATES.get(one, ("?", "bold")))
    legend = "   " + " ".join(f"{sign} {what}" for what, (sign, _) in CALLS.items())
    if columns < 2 * len(legend):
        legend = ""
    calls = Text("calls     ", no_wrap=True)
    for asked in stage.orders.asked[-(columns - len(calls) - len(legend)) :]:
        calls.append(*CALLS[_kind(asked)])
    calls.append(legend, style="dim")
    first.truncate(columns, overflow="ellipsis")
    return Panel(Group(first, Text(name) + life, calls), title="breaker of orders → payments")


def _states_over(changes: Sequence[Change], now: float, columns: int) -> list[str]:
    """The state at each column of the time line, the last of which is `now`."""
    own = [change for change in changes if change.route == ROUTE]
    states, state, index = [], own[0].from_state if own else "closed", 0
    for column in range(columns):
        at = now - SECONDS_SHOWN * (1 - (column + 1) / columns)
        seen = state
        while index < len(own) and own[index].at <= at:
            state = own[index].to_state
            # Half-open is often shorter than a column, and should be seen.
            seen = state if seen != "half_open" else seen
            index += 1
        states.append(seen)
    return states


def _kind(asked: Asked) -> str:
    if asked.reason == "circuit_open":
        return "refused"
    if asked.status != 200:
        return "failed"
    return "slow" if asked.seconds > SLOW_SECONDS else "good"


def _claims(journal: Journal, columns: int, lines: int) -> list[Text]:
    """The claims of this scene, wrapped, the newest for sure; before them one line for all earlier ones."""
    told: list[Text] = []
    for claim in journal.claims[journal.before :]:
        style = "green" if claim.holds else "bold red"
        for number, line in enumerate(textwrap.wrap(claim.text, columns - 5)):
            mark = ("ok   " if claim.holds else "FAIL ") if number == 0 else "     "
            told.append(Text.assemble((mark, style), line))
    before = journal.claims[: journal.before]
    if before:
        held = sum(claim.holds for claim in before)
        told.insert(0, Text(f"{held} of {len(before)} claims of the scenes before hold", style="dim"))
    return told[-lines:] if lines > 0 else []


def _short(call: Served) -> str:
    """A log line that fits: ids by their beginnings."""
    left = NOTHING if call.budget_ms is None else f"{call.budget_ms} ms"
    return (
        f"{call.service:8} {call.path:6} {call.status} {call.seconds * 1000:5.0f} ms  left {left:8} "
        f"{call.request_id[:9]} {call.user_id} trace {call.trace_id[:8]}"
    )


def _panel(title: str, lines: Sequence[Text]) -> Panel:
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Panel(Group(*lines), title=title)
