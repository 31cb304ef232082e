"""`sidecar run [FILE]`: load the configuration and serve until told to stop.

The configuration is loaded by another process from the start (`runtime/loader.py`), so this one never holds the 12
MiB that reading and checking YAML takes. That process is started before anything else is imported here, since each of
the two takes a third of a second to import what it needs.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from sidecar.cli import early_signals
from sidecar.config.chosen import chosen, how_to_begin
from sidecar.runtime import core_dumps, first_loading

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The configuration."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="default: $SIDECAR_CONFIG, else sidecar.yaml")


def main(options: argparse.Namespace) -> int:
    """Run with FILE, `$SIDECAR_CONFIG` or `sidecar.yaml`.

    Returns:
        0 after a drain, or a SIGTERM before anything was served; 1 if an address cannot be bound or a part
        crashed too often; 2 if the configuration is bad (problems on stderr).
    """
    core_dumps.forbid()
    path = chosen(options.file, os.environ)
    if missing := how_to_begin(options.file, os.environ):
        print(f"sidecar: {missing}", file=sys.stderr)
        return 2
    with early_signals.interrupts_wait():
        loading = first_loading.start()
        from sidecar.cli.serving import serve
    return serve(path, loading)
