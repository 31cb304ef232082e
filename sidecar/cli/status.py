"""`sidecar status [--watch] [--json]`: routes, breakers, upstreams and rates of a running sidecar."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from rich.console import Console
from rich.live import Live

from sidecar.cli import admin_client
from sidecar.cli.admin_client import AskFailed, Asking
from sidecar.cli.as_json import add_json, print_line, print_object
from sidecar.cli.status_picture import UNLIMITED, Reading, Room, picture
from sidecar.core.dataclass import dataclass
from sidecar.terminal import colours, pager

PERIOD_SECONDS = 1.0
RESOURCES = ("routes", "breakers", "upstreams")
LONGEST_LINE = 10_000
"""Characters, where no terminal limits them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to show it."""
    parser.add_argument("--watch", action="store_true", help="again each second, until Ctrl-C")
    parser.add_argument(
        "--since-start",
        action="store_true",
        help="totals and quantiles since the start; else of the last minute",
    )
    add_json(parser, "with --watch an object a line")
    pager.add_no_pager(parser)
    admin_client.add_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Show; the exit code is that of what was seen last."""
    try:
        ask = Asking(options.admin, options.token_file)
        reading = read(ask)
        if options.watch:
            return _watch(ask, reading, is_json=options.json, is_since_start=options.since_start)
        if options.json:
            with pager.paged(options):
                print_object(reading.state)
        else:
            with pager.paged(options):
                console = _console()
                console.print(picture(reading, room=_room(console), is_since_start=options.since_start))
    except AskFailed as failed:
        print(f"sidecar: {failed}", file=sys.stderr)
        return failed.exit_code
    return 0 if reading.is_well else 1


def read(ask: Asking) -> Reading:
    """Everything that is shown. Raises: AskFailed."""
    state: dict[str, Any] = {"status": ask.get("/status")}
    for name in RESOURCES:
        state[name] = ask.get(f"/{name}")[name]
    return Reading(state)


def _console() -> Console:
    """For a file or a pipe a line is as long as it has to be, unless `$COLUMNS` says otherwise."""
    console = colours.console()
    is_limited = console.is_terminal or "COLUMNS" in os.environ
    return console if is_limited else colours.console(LONGEST_LINE)


def _room(console: Console) -> Room:
    return UNLIMITED if console.width == LONGEST_LINE else Room(console.width)


@dataclass
class _Seen:
    """The last reading, and why there is no newer one."""

    reading: Reading
    trouble: str = ""

    @property
    def exit_code(self) -> int:
        return 0 if self.reading.is_well and not self.trouble else 1


def _watch(ask: Asking, first: Reading, *, is_json: bool, is_since_start: bool) -> int:
    """Until Ctrl-C, through restarts of what is watched."""
    seen = _Seen(first)
    try:
        if is_json:
            while True:
                print_line(seen.reading.state)
                _again(ask, seen)
        console = _console()
        if not console.is_terminal or console.is_dumb_terminal:
            while True:  # nothing can be drawn over: one below the other
                room = _room(console)
                console.print(picture(seen.reading, seen.trouble, room, is_since_start=is_since_start))
                _again(ask, seen)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                room = Room(console.width, console.height - 1)
                shown = picture(seen.reading, seen.trouble, room, is_since_start=is_since_start)
                live.update(shown, refresh=True)
                _again(ask, seen)
    except KeyboardInterrupt:
        return seen.exit_code


def _again(ask: Asking, seen: _Seen) -> None:
    time.sleep(PERIOD_SECONDS)
    try:
        seen.reading, seen.trouble = read(ask), ""
    except AskFailed as failed:
        seen.trouble = str(failed)
