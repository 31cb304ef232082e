"""The command `sidecar`: one sub-command a file in `cli/`, imported only when it is called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 the thing checked says no, 2 wrong use."""
    options = _parser().parse_args(arguments)
    command: str = options.command
    if command == "run":
        from sidecar.cli import run

        return run.run(options.file)
    from sidecar.cli import check

    return check.run(options.files)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sidecar",
        description="A reverse proxy beside your service, with a circuit breaker for each route.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="serve")
    run.add_argument("file", nargs="?", help="default: $SIDECAR_CONFIG, else sidecar.yaml")
    check = commands.add_parser("check", help="validate configuration files")
    check.add_argument("files", nargs="+", metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
