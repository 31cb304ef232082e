"""`sidecar breaker open|close|auto ROUTE [--for 5m] [--fleet]`: an operator's override on a running sidecar."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import socket
import sys
import urllib.parse
from typing import Any

from sidecar.cli import admin_client
from sidecar.cli.admin_client import AskFailed, Asking
from sidecar.cli.as_json import add_json, print_object

_ALONE = "sidecar: this replica is alone at present: the others hear of it as soon as it is linked again"
MAX_BY = 128
"""Characters of a name that the admin API takes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do with which route."""
    parser.add_argument(
        "action",
        choices=["open", "close", "auto"],
        help="open: refuse everything; close: let everything through; auto: end the override",
    )
    parser.add_argument("route", metavar="ROUTE", help="its name")
    parser.add_argument(
        "--for",
        dest="duration",
        metavar="TIME",
        help="end it after this long, such as 5m, or `ever` for not before `auto`; default: 30m",
    )
    parser.add_argument(
        "--by", metavar="WHO", help="who does it, for those who find it; default: $SIDECAR_BY, else user@host"
    )
    parser.add_argument("--upstream", metavar="NAME", help="of several: this one alone; also the fallback's")
    parser.add_argument(
        "--fleet", action="store_true", help="of all replicas, where the breaker has `scope: fleet`"
    )
    add_json(parser)
    admin_client.add_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """Override; 0 when done, 1 when the sidecar cannot be asked, 2 for a wrong route, time, name or address."""
    by = options.by if options.by is not None else os.environ.get("SIDECAR_BY") or whoami()
    given = {"for": options.duration, "by": by, "upstream": options.upstream}
    given["fleet"] = "true" if options.fleet else None
    query = urllib.parse.urlencode({key: value for key, value in given.items() if value is not None})
    path = f"/breakers/{urllib.parse.quote(options.route, safe='')}/{options.action}?{query}"
    try:
        told = Asking(options.admin, options.token_file).post(path)
    except AskFailed as failed:
        print(f"sidecar: {failed}", file=sys.stderr)
        return failed.exit_code
    if options.json:
        print_object(told)
    else:
        for one in told["breakers"]:
            print(f"{one['route']}/{one['upstream']}: {_result(one)}")
    if options.fleet and any(
        one["fleet"] is not None and one["fleet"]["is_alone"] for one in told["breakers"]
    ):
        print(_ALONE, file=sys.stderr)
    return 0


def whoami() -> str:
    """`user@host` of who runs this command, also by `sudo`; what is not printable ASCII is a `?`."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in many containers
        user = f"uid-{os.getuid()}"
    return re.sub(r"[^!-~]", "?", f"{user}@{socket.gethostname()}")[:MAX_BY]


def _result(breaker: dict[str, Any]) -> str:
    if not breaker["is_overridden"]:
        return f"{breaker['told']}, automatic"
    left = breaker["override_seconds_left"]
    return str(breaker["why"]) + (f" ({left:g} s left)" if left is not None else "")
