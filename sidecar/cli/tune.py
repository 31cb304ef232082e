"""`sidecar tune ROUTE [--from access.log|URL]`: which policy would have done better, by what was seen of a route."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from sidecar.cli import admin_client
from sidecar.cli.admin_client import AskFailed, Asking
from sidecar.cli.as_json import add_json, print_object
from sidecar.config.chosen import chosen
from sidecar.config.load import ConfigError, load_file
from sidecar.terminal import pager
from sidecar.tuning.logs import MAX_LINE, read_log
from sidecar.tuning.pages import read_pages
from sidecar.tuning.present import Present, present_in, present_of
from sidecar.tuning.report import as_data, as_text
from sidecar.tuning.seen import Call, CannotTune
from sidecar.tuning.tune import tune

STDIN = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which route, and where its calls are."""
    parser.add_argument("route", metavar="ROUTE", help="its name")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FILE|URL",
        help="an access log with telemetry.access_log.attempts (- for stdin), or the admin address of a running "
        "sidecar; default: --admin",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="where the present policy is; default: with a log $SIDECAR_CONFIG, else sidecar.yaml; otherwise the "
        "running sidecar says it",
    )
    add_json(parser)
    pager.add_no_pager(parser)
    admin_client.add_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Find out and show."""
    try:
        calls, dropped, present = _read(options)
        found = tune(options.route, calls, present.policy, present.ejections, _progress)
    except (ConfigError, CannotTune, OSError, UnicodeDecodeError, ValueError) as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return 2
    except AskFailed as failed:
        print(f"sidecar: {failed}", file=sys.stderr)
        return 2
    with pager.paged(options):
        if options.json:
            print_object(as_data(found, dropped))
        else:
            sys.stdout.write(as_text(found, dropped))
    return 0 if found.changes else 1


def _read(options: argparse.Namespace) -> tuple[list[Call], int, Present]:
    source, route = options.source, options.route
    is_url = source is None or source.startswith(("http://", "unix:"))
    present = None
    if options.config is not None or not is_url:
        present = present_in(load_file(chosen(options.config, os.environ)).snapshot, route)
    if not is_url:
        assert present is not None
        return *read_log(_lines(source), route, present.home), present
    asking = Asking(source or options.admin, options.token_file)
    calls, dropped = read_pages(asking.get, route)
    return calls, dropped, present or present_of(asking.get, route)


def _lines(name: str) -> Iterator[str]:
    """One at a time: a log may be longer than memory."""
    if name == STDIN:
        yield from _pieces(sys.stdin)
        return
    with Path(name).open(encoding="utf-8") as file:
        yield from _pieces(file)


def _pieces(file: TextIO) -> Iterator[str]:
    """Its lines; of one that is too long, as much as tells so."""
    return iter(lambda: file.readline(MAX_LINE + 1), "")


def _progress(done: int, of: int) -> None:
    """Tell a terminal how far it is; a file or a pipe hears nothing."""
    if sys.stderr.isatty():
        end = "\r" if done + 1 < of else "\r\033[K"
        print(f"{done + 1} of {of} policies", end=end, file=sys.stderr, flush=True)
