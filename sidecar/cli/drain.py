"""`sidecar drain [FILE]`: tell the sidecar that runs with this configuration that its end is near.

A preStop hook: from now on `/readyz` fails and each answer ends its connection, while everything is still served.
The hooks of all containers of a pod run at once, before any of them gets SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from sidecar.cli.admin_client import AskFailed, Asking, url_of
from sidecar.config.chosen import chosen
from sidecar.config.schema.units import parse_duration
from sidecar.config.server_addresses import server_addresses_or_usual


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The configuration, and how long the hook lasts."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="default: $SIDECAR_CONFIG, else sidecar.yaml")
    parser.add_argument(
        "--hold",
        default="0s",
        metavar="DURATION",
        help="return only then: it holds back the SIGTERM that follows a preStop hook; default: %(default)s",
    )


def main(options: argparse.Namespace) -> int:
    """Say it, and hold.

    Returns:
        0, 1 if nobody hears it, 2 for wrong use, or if nobody hears it and the configuration cannot be read. It holds
        all the same: an app may need the time.
    """
    try:
        hold_seconds = parse_duration(options.hold)
    except ValueError as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return 2
    asked, problems = server_addresses_or_usual(chosen(options.file, os.environ), os.environ)
    code = 0
    try:
        Asking(url_of(asked.admin), asked.token_file).post("/drain")
    except (AskFailed, OSError) as failed:
        print(problems or f"sidecar: {failed}", file=sys.stderr)
        code = 2 if problems else 1
    time.sleep(hold_seconds)
    return code
