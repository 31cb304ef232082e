"""`sidecar healthcheck [FILE]`: does the sidecar that runs with this configuration pass its probe?

Asks the probes' own listener, as a kubelet would. Starts fast, since a container's health check is run each few
seconds: it reads the probes' address alone and imports neither the data path nor telemetry.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from sidecar.cli.admin_client import AskFailed, Asking, url_of
from sidecar.cli.as_json import add_json, print_object
from sidecar.config.chosen import chosen
from sidecar.config.schema.units import parse_duration
from sidecar.config.server_addresses import server_addresses_or_usual
from sidecar.core.snapshot import Address

PATHS = {"live": "/livez", "ready": "/readyz", "started": "/startupz"}
PERIOD_SECONDS = 0.1
"""Between two tries of `--wait`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The configuration, and what is asked."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="default: $SIDECAR_CONFIG, else sidecar.yaml")
    parser.add_argument("--probe", choices=PATHS, default="ready", help="default: %(default)s")
    parser.add_argument(
        "--timeout", default="2s", metavar="DURATION", help="of one try; default: %(default)s"
    )
    parser.add_argument(
        "--wait", default="0s", metavar="DURATION", help="try again for this long; default: not at all"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-q", "--quiet", action="store_true", help="tell by the exit code alone")
    add_json(how)


def main(options: argparse.Namespace) -> int:
    """Ask once, or until `--wait` is over.

    Returns:
        0 if the probe passes, 1 if it does not or nobody answers, 2 for wrong use or a configuration that cannot
        be read.
    """
    try:
        timeout_seconds, wait_seconds = parse_duration(options.timeout), parse_duration(options.wait)
    except ValueError as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return 2
    asked, problems = server_addresses_or_usual(chosen(options.file, os.environ), os.environ)
    try:
        ask = Asking(url_of(asked.probes), timeout_seconds=timeout_seconds)
        _passes(ask, PATHS[options.probe], wait_seconds)
    except AskFailed as failed:
        if options.json and not problems:
            print_object(_as_data(options.probe, asked.probes, str(failed)))
        else:
            print(problems or f"sidecar: {failed}", file=sys.stderr)
        return 2 if problems else 1
    if options.json:
        print_object(_as_data(options.probe, asked.probes))
    elif not options.quiet:
        print(f"{options.probe}: {ask.url}")
    return 0


def _as_data(probe: str, address: Address, trouble: str = "") -> dict[str, Any]:
    return {"probe": probe, "url": url_of(address), "is_passing": not trouble, "trouble": trouble}


def _passes(ask: Asking, path: str, wait_seconds: float) -> None:
    until = time.monotonic() + wait_seconds
    while True:
        try:
            return ask.probe(path)
        except AskFailed:
            if time.monotonic() >= until:
                raise
        time.sleep(PERIOD_SECONDS)
