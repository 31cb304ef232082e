"""`sidecar tap [ROUTE] [--open] [--slow 200ms] [-H 'k: v']`: requests as they end, a line each."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Any

from sidecar.cli import admin_client
from sidecar.cli.admin_client import AskFailed, Asking
from sidecar.cli.as_json import add_json, print_line

Data = dict[str, Any]
NO_ROUTE = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which requests, and how to show them."""
    parser.add_argument("route", nargs="?", metavar="ROUTE", help="default: all")
    parser.add_argument("--open", action="store_true", help="only while their breaker is not closed")
    parser.add_argument("--slow", metavar="DURATION", help="only those that took at least so long: 200ms")
    parser.add_argument(
        "-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="only with this field"
    )
    parser.add_argument("-n", "--count", type=int, metavar="N", help="end after so many; default: at Ctrl-C")
    add_json(parser, "an object a line")
    admin_client.add_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Show them until there were enough, Ctrl-C, or the end of the sidecar."""
    if options.count is not None and options.count < 1:
        print(f"sidecar: --count {options.count}: say at least 1", file=sys.stderr)
        return 2
    try:
        lines = Asking(options.admin, options.token_file).lines(_path(options))
        return _show(_events(lines), options.count, is_json=options.json)
    except AskFailed as failed:
        print(f"sidecar: {failed}", file=sys.stderr)
        return failed.exit_code
    except KeyboardInterrupt:
        return 0


def _path(options: argparse.Namespace) -> str:
    query = [("header", one) for one in options.header]
    query += [(name, text) for name, text in (("route", options.route), ("slow", options.slow)) if text]
    if options.open:
        query.append(("open", "true"))
    return "/tap" + (f"?{urllib.parse.urlencode(query)}" if query else "")


def _events(lines: Iterable[str]) -> Iterator[tuple[str, Data]]:
    """Kind and data of each server-sent event; comments, which only keep the connection alive, are left out."""
    kind = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            try:
                data = json.loads(value)
            except ValueError:
                raise AskFailed("what came is no event of a sidecar; is the address right?") from None
            yield kind, data


def _show(events: Iterable[tuple[str, Data]], count: int | None, *, is_json: bool) -> int:
    shown = 0
    for kind, data in events:
        if kind == "lost":
            print(f"… {data['count']} more were too many to show", file=sys.stderr, flush=True)
            continue
        if is_json:
            print_line(data)
        else:
            print(line_of(data), flush=True)
        shown += 1
        if shown == count:
            return 0
    print("sidecar: it has ended", file=sys.stderr)
    return 1


def line_of(request: Data) -> str:
    """One request for people: when, what came of it after how long, and what stood behind that."""
    parts = [
        request["at"][11:23],
        f"{request['status']}",
        f"{request['duration_ms']:9.1f} ms",
        f"{request.get('route', NO_ROUTE)}",
        _printable(f"{request['method']} {request['host']}{request['path']}"),
    ]
    if "budget_ms" in request:
        parts.append(f"budget {request['budget_ms']} ms ({request['budget_source']})")
    if request.get("breaker", "closed") != "closed":
        parts.append(f"breaker {request['breaker']}")
    for key in ("grpc_status", "reason", "fallback"):
        if key in request:
            parts.append(f"{key} {request[key]}")
    if request["attempts"] > 1:
        parts.append(f"{request['attempts']} attempts")
    if "endpoint" in request:
        parts.append(f"→ {request['endpoint']}")
    return "  ".join(parts)


def _printable(text: str) -> str:
    """What clients wrote, without what would move a terminal's cursor."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "�" for one in text)
