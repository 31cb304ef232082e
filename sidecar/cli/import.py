"""`sidecar import FILE…`: routes of Gateway API, Istio or resilience4j in, a configuration of the sidecar out.

The result goes to stdout. What it does not say as the source did stands in it as comments, and on stderr with its
line. `-` is stdin.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sidecar.translate.render import printable
from sidecar.translate.source import SourceError
from sidecar.translate.translate import translate

STDIN = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files, and where their routes go."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="HTTPRoute, GRPCRoute, BackendTLSPolicy, XBackendTrafficPolicy, VirtualService, DestinationRule, or "
        "resilience4j's application.yml; - for stdin",
    )
    parser.add_argument(
        "--listener",
        default="outbound",
        choices=["inbound", "outbound"],
        help="whose requests the routes take: those to the app, or those of the app; default: %(default)s",
    )


def main(options: argparse.Namespace) -> int:
    """0 when the same requests are served as before, 1 when not (stderr says which), 2 for files that are none."""
    try:
        files = [(name if name != STDIN else "stdin", _text(name)) for name in options.files]
        text, losses = translate(files, options.listener)
    except (OSError, UnicodeDecodeError) as error:
        print(f"cannot read: {error}", file=sys.stderr)
        return 2
    except SourceError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    sys.stdout.write(text)
    for loss in losses:
        print(
            f"{printable(str(loss))}{' (other requests are served than before)' if loss.changes_reach else ''}",
            file=sys.stderr,
        )
    return 1 if any(loss.changes_reach for loss in losses) else 0


def _text(name: str) -> str:
    return sys.stdin.read() if name == STDIN else Path(name).read_text(encoding="utf-8-sig")
