"""`sidecar help [COMMAND]`: what `sidecar COMMAND --help` shows too; or the table of all exit codes."""

from __future__ import annotations

import argparse
import sys

from sidecar.cli import exit_codes
from sidecar.cli.commands import COMMANDS, parser_of, unknown
from sidecar.terminal import pager


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of which command."""
    parser.add_argument(
        "topic",
        nargs="?",
        metavar="COMMAND",
        help=f"or {exit_codes.TOPIC}; default: all commands, a line each",
    )
    pager.add_no_pager(parser)


def main(options: argparse.Namespace) -> int:
    """Print it; 2 for a command that there is not."""
    topic = options.topic
    if topic is not None and topic not in (*COMMANDS, exit_codes.TOPIC):
        print(unknown(topic), file=sys.stderr)
        return 2
    with pager.paged(options):
        print(_text(topic), end="")
    return 0


def _text(topic: str | None) -> str:
    if topic == exit_codes.TOPIC:
        return "".join(f"{line}\n" for line in exit_codes.page())
    whole, parsers = parser_of(*([topic] if topic else []))
    return (parsers[topic] if topic else whole).format_help()
