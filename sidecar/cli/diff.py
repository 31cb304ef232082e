"""`sidecar diff OLD NEW`: what a reload from one configuration to the other would change."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator

from sidecar.cli.as_json import add_json, print_object
from sidecar.config.load import ConfigError, load_file
from sidecar.config.tell.diff import Diff, Item, Kind, diff
from sidecar.terminal import pager

_MARKS = {Kind.ADDED: "+", Kind.REMOVED: "-", Kind.CHANGED: "~"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two configurations."""
    parser.add_argument("old", metavar="OLD", help="file or directory")
    parser.add_argument("new", metavar="NEW", help="file or directory")
    add_json(parser)
    pager.add_no_pager(parser)


def main(options: argparse.Namespace) -> int:
    """Print what differs; 0, or 2 when one of them is bad."""
    try:
        found = diff(load_file(options.old).snapshot, load_file(options.new).snapshot)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    with pager.paged(options):
        if options.json:
            print_object(as_data(found))
        else:
            print("\n".join(lines(found)))
    return 0


def as_data(found: Diff) -> dict[str, object]:
    """The diff as JSON values."""
    data: dict[str, object] = json.loads(
        json.dumps(dataclasses.asdict(found), default=lambda kind: kind.value)
    )
    data["pending_restart"] = [str(change) for change in found.pending_restart]
    return data


def lines(found: Diff) -> Iterator[str]:
    """The diff for people."""
    if not found:
        yield "nothing changes"
        return
    for kind, items in (
        ("listener", found.listeners),
        ("upstream", found.upstreams),
        ("route", found.routes),
    ):
        for item in items:
            yield from _item(kind, item)
    for change in found.process:
        pending = "   (at the next start)" if change in found.pending_restart else ""
        yield f"~ {change}{pending}"
    if found.is_order_changed:
        yield "~ the order of the routes, which decides between equally specific ones"
    yield f"breakers: {found.breakers_kept} kept, {found.breakers_reset} reset"


def _item(kind: str, item: Item) -> Iterator[str]:
    yield f"{_MARKS[item.kind]} {kind} {item.name}"
    for told in (*item.changes, *item.breakers):
        yield f"    {told}"
