"""`sidecar certs DIR --for NAME…`: a small CA and certificates signed by it, for development and demos alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

DAYS = 90.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to, and for whom."""
    parser.add_argument("directory", metavar="DIR", help="is made if it is not there")
    parser.add_argument(
        "--for", dest="pairs", action="append", default=[], nargs="+", metavar="NAME", required=True,
        help="one certificate: a DNS name, IP address or SPIFFE ID, and others that it is for too; the first names "
        "the files. May be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--days", type=float, default=DAYS, metavar="N", help="how long they hold; default: %(default)g"
    )


def main(options: argparse.Namespace) -> int:
    """Write `ca.crt` and `ca.key`, unless they are there, and for each `--for` a `NAME.crt` and `NAME.key`.

    Returns:
        0 done, 1 if a file cannot be written or read, 2 for wrong use or without the package `cryptography`.
    """
    try:
        from sidecar.cli import dev_certificates
    except ImportError:
        message = "sidecar certs needs the package cryptography: pip install 'sidecar-proxy[certs]'"
        print(message, file=sys.stderr)
        return 2
    if not 0 < options.days <= dev_certificates.MAX_DAYS:
        print(
            f"--days {options.days:g}: from a part of a day to {dev_certificates.MAX_DAYS}", file=sys.stderr
        )
        return 2
    try:
        written = dev_certificates.write(Path(options.directory), options.pairs, options.days)
    except (OSError, ValueError) as error:
        print(f"sidecar certs: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(path)
    print("For development alone: whoever has ca.key can be anybody.", file=sys.stderr)
    return 0
