"""One pod with several processes, from its configuration to its exit code: the supervisor, and what each child is.

Only `cli` calls it, since only there stands which event loop is used.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from sidecar.core.place import WorkerPlace
from sidecar.core.snapshot import Snapshot
from sidecar.runtime import memory
from sidecar.runtime.activation import Activated
from sidecar.runtime.actor import PartFailed
from sidecar.runtime.container import Container
from sidecar.runtime.file_limits import FileLimits
from sidecar.runtime.foundation import Ground
from sidecar.runtime.imports import import_protocols
from sidecar.runtime.upgrade import Predecessor
from sidecar.runtime.workers.child import CONTROL
from sidecar.runtime.workers.control_process import ControlProcess
from sidecar.runtime.workers.cores import worker_count
from sidecar.runtime.workers.inherited import Inherited
from sidecar.runtime.workers.lifeline import Lifeline
from sidecar.runtime.workers.supervisor import Supervisor
from sidecar.runtime.workers.worker_process import WorkerProcess
from sidecar.telemetry.identity import WORKER
from sidecar.telemetry.line_log import LineLog
from sidecar.telemetry.process_log import ProcessLog
from sidecar.transport.given import GIVEN

LOG_FD = 1
"""Where all processes of a pod write their log."""
SUPERVISOR = "supervisor"
"""Its name in lines of the log."""
RunLoop = Callable[[Coroutine[Any, Any, None]], None]
"""Runs a coroutine on a new event loop to its end."""


def serve(
    snapshot: Snapshot,
    path: str,
    limits: FileLimits,
    container: Container | None,
    activated: Activated,
    run_loop: RunLoop,
    predecessor: Predecessor,
) -> int:
    """Serve until told to end. Returns the exit code. `activated`: what systemd has opened. `predecessor`: whose
    place this one takes.

    Raises:
        OSError: an address cannot be bound.
    """
    inherited = Inherited.make(snapshot, worker_count(snapshot.workers), activated)
    lines = LineLog(snapshot.telemetry.access_log.format, LOG_FD, SUPERVISOR)
    own_log = ProcessLog(lines)

    def run_child(number: int, inherited: Inherited, lifeline: Lifeline) -> int:
        own_log.detach()
        environ = os.environ
        environ[WORKER] = "control" if number == CONTROL else str(number)
        predecessor.leave()
        if number == CONTROL:
            GIVEN.take_back(inherited.left_by_control)
        else:
            GIVEN.close()
            inherited.keep_of_control(())
        # Made here: what it draws by is no other process's.
        ground = Ground(environ, limits, container, secret=inherited.secret, log_level=inherited.log_level)

        async def live() -> None:
            if number == CONTROL:
                await ControlProcess(inherited, lifeline, ground, path).run()
            else:
                place = WorkerPlace(number, inherited.count)
                await WorkerProcess(place, inherited, lifeline, ground).run()

        try:
            run_loop(live())
        except asyncio.CancelledError:
            return 0
        except (PartFailed, OSError) as error:
            print(f"sidecar: {error}", file=sys.stderr)
            return 1
        return 0

    if threading.active_count() > 1:
        logging.getLogger("sidecar.runtime").warning(
            "a thread runs before the fork: it is lost in the children"
        )
    import_protocols(snapshot)  # here once, for all children
    memory.freeze_for_fork()
    drain = snapshot.drain
    own_log.attach()
    drain_seconds = drain.delay_seconds + drain.timeout_seconds
    return Supervisor(inherited, run_child, drain_seconds, predecessor, own_log.set_level).run()
