"""What `sidecar run` does once its loading process is on its way: serve until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys

import uvloop

from sidecar.cli import early_signals
from sidecar.config.problems import ConfigError
from sidecar.core.snapshot import Snapshot
from sidecar.runtime import container, file_limits, memory
from sidecar.runtime.activation import Activated
from sidecar.runtime.actor import PartFailed
from sidecar.runtime.container import Container
from sidecar.runtime.early_log import UntilLogged
from sidecar.runtime.file_limits import FileLimits
from sidecar.runtime.loader import Loader, LoaderFailed
from sidecar.runtime.memory_watch import most_routes, share_arenas
from sidecar.runtime.signals import hear
from sidecar.runtime.upgrade import Predecessor
from sidecar.runtime.workers.cores import worker_count

TURNS_TO_ASK = 3
"""Of the loop, until the question to the loading process is on its way: that one loads while this one imports."""


def serve(path: str, loading: subprocess.Popen[bytes] | None) -> int:
    """Load what is at `path` by that process, and serve; the exit code of `sidecar run`."""
    share_arenas()
    logging.basicConfig(
        level=logging.INFO, handlers=[UntilLogged()], format="%(levelname)s %(name)s: %(message)s"
    )
    logging.captureWarnings(True)
    limits, found = file_limits.raised(), container.find()
    try:
        predecessor = Predecessor(os.environ)
        activated = Activated.taken(os.environ)
        snapshot = uvloop.run(_serve(path, loading, limits, found, activated, predecessor))
        if snapshot is None:
            return 0
        from sidecar.runtime.workers import pod

        return pod.serve(snapshot, path, limits, found, activated, uvloop.run, predecessor)
    except asyncio.CancelledError:
        return 0
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (PartFailed, LoaderFailed, OSError) as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return 1


async def _serve(
    path: str,
    loading: subprocess.Popen[bytes] | None,
    limits: FileLimits,
    found: Container | None,
    activated: Activated,
    predecessor: Predecessor,
) -> Snapshot | None:
    """Load, and serve if one process is to do it all; else the snapshot, for several."""
    _take_signals()
    loader = Loader(most_routes(found), niceness=0, started=loading)
    try:
        with contextlib.suppress(OSError):  # `load` says it, if it is still so
            await loader.warm()
        asked = asyncio.create_task(loader.load(path, os.environ))
        try:
            for _ in range(TURNS_TO_ASK):
                await asyncio.sleep(0)
            with memory.imports():
                from sidecar.runtime.worker import Worker

            snapshot = await asked
        finally:
            asked.cancel()
    finally:
        await loader.close()
    if worker_count(snapshot.workers) > 1:
        early_signals.hold()
        return snapshot
    worker = Worker(snapshot, os.environ, path=path, limits=limits, container=found, activated=activated)
    await worker.run(predecessor)
    return None


def _take_signals() -> None:
    """Those of the time before there is a worker, which takes them over."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    hear(loop, signal.SIGTERM, task.cancel)
    hear(loop, signal.SIGHUP, lambda: None)  # the file is being read anyway
    hear(loop, signal.SIGUSR2, lambda: None)  # this process is as new as it can be
    early_signals.release()
