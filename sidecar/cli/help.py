"""`sidecar help [COMMAND]`: what `sidecar COMMAND --help` shows too."""

from __future__ import annotations

import argparse
import sys

from sidecar.cli.commands import COMMANDS, parser_of, unknown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of which command."""
    parser.add_argument("topic", nargs="?", metavar="COMMAND", help="default: all of them, a line each")


def main(options: argparse.Namespace) -> int:
    """Print it; 2 for a command that there is not."""
    topic = options.topic
    if topic is not None and topic not in COMMANDS:
        print(unknown(topic), file=sys.stderr)
        return 2
    whole, parsers = parser_of(*([topic] if topic else []))
    (parsers[topic] if topic else whole).print_help()
    return 0
