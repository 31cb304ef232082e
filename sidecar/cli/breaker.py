"""`sidecar breaker open|close|auto ROUTE [--for 5m]`: an operator's override on a running sidecar."""

from __future__ import annotations

import argparse
import sys
import urllib.parse

from sidecar.cli import admin_client
from sidecar.cli.admin_client import AskFailed, Asking


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do with which route."""
    parser.add_argument(
        "action",
        choices=["open", "close", "auto"],
        help="open: refuse everything; close: let everything through; auto: end the override",
    )
    parser.add_argument("route", metavar="ROUTE")
    parser.add_argument("--for", dest="duration", metavar="TIME", help="end it after this long, such as 5m")
    parser.add_argument("--upstream", metavar="NAME", help="of several: this one alone; also the fallback's")
    admin_client.add_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Override; 0 when done, 1 when the sidecar cannot be asked, 2 for a wrong route, time or address."""
    given = {"for": options.duration, "upstream": options.upstream}
    query = urllib.parse.urlencode({key: value for key, value in given.items() if value is not None})
    path = f"/breakers/{urllib.parse.quote(options.route, safe='')}/{options.action}"
    try:
        told = Asking(options.admin, options.token_file).post(f"{path}?{query}" if query else path)
    except ValueError as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return 2
    except AskFailed as failed:
        print(f"sidecar: {failed}", file=sys.stderr)
        return failed.exit_code
    for one in told["breakers"]:
        left = one["override_seconds_left"]
        until = f" until {one['override_until']} ({left:g} s left)" if left is not None else ""
        how = "forced" if one["is_overridden"] else "automatic"
        print(f"{one['route']}/{one['upstream']}: {one['state']}, {how}{until}")
    return 0
