"""`sidecar run [FILE]`: load the configuration and serve until told to stop."""

from __future__ import annotations

import argparse
import logging
import os
import sys

import uvloop

from sidecar.config.load import ConfigError, load_file
from sidecar.core.snapshot import Snapshot
from sidecar.runtime.actor import PartFailed

DEFAULT_FILE = "sidecar.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The configuration."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="default: $SIDECAR_CONFIG, else sidecar.yaml")


def main(options: argparse.Namespace) -> int:
    """Run with FILE, `$SIDECAR_CONFIG` or `sidecar.yaml`.

    Returns:
        0 after a drain, 1 if an address cannot be bound or a part crashed too often, 2 if the configuration
        is bad (problems on stderr).
    """
    path = options.file or os.environ.get("SIDECAR_CONFIG") or DEFAULT_FILE
    try:
        snapshot = load_file(path, os.environ).snapshot
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        uvloop.run(_serve(snapshot, path))
    except PartFailed as failure:
        print(f"sidecar: {failure}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(snapshot: Snapshot, path: str) -> None:
    from sidecar.runtime.worker import Worker

    await Worker(snapshot, os.environ, path=path).run()
