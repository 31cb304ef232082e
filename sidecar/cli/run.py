"""`sidecar run [FILE]`: load the configuration and serve until told to stop.

The configuration is loaded by another process from the start (`runtime/loader.py`), so this one never holds the 12
MiB that reading and checking YAML takes.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys

import uvloop

from sidecar.cli import early_signals
from sidecar.config.files import chosen, how_to_begin
from sidecar.config.problems import ConfigError
from sidecar.runtime import container, core_dumps, file_limits
from sidecar.runtime.actor import PartFailed
from sidecar.runtime.file_limits import FileLimits
from sidecar.runtime.loader import Loader, LoaderFailed
from sidecar.runtime.memory_watch import most_routes, share_arenas
from sidecar.runtime.worker import Worker


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
    share_arenas()
    path = chosen(options.file, os.environ)
    if missing := how_to_begin(options.file, os.environ):
        print(f"sidecar: {missing}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        uvloop.run(_serve(path, file_limits.raised()))
    except asyncio.CancelledError:
        return 0
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (PartFailed, LoaderFailed, OSError) as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(path: str, limits: FileLimits) -> None:
    _take_signals()
    found = container.find()
    loader = Loader(most_routes(found))
    try:
        snapshot = await loader.load(path, os.environ)
    finally:
        await loader.close()
    await Worker(snapshot, os.environ, path=path, limits=limits, container=found).run()


def _take_signals() -> None:
    """Those of the time before there is a worker, which takes them over."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # the file is being read anyway
    early_signals.release()
