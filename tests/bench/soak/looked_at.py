"""`sidecar run FILE` in a process that also tells what it holds, to this bench alone.

Run: python -m tests.bench.soak.looked_at FILE. It listens at the UNIX socket $SOAK_LOOK, in a thread of its own, and
answers each connection with one JSON object: how many tasks the loop has, how many bytes its outcomes take and, if
asked, how many objects there are of each type. The sidecar itself has no such door.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import resource
import socket
import sys
import threading
import traceback
import tracemalloc
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop

from sidecar.__main__ import main
from sidecar.core.outcomes.store import OutcomeStore

TOLD_TYPES: Final = 400
TOLD_DEAD: Final = 8
WITH_TYPES: Final = b"t"
_MALLINFO: Final = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip
TOLD_LINES: Final = 14
TRIES: Final = 5
_snapshots: list[tracemalloc.Snapshot] = []
_loops: list[asyncio.AbstractEventLoop] = []
_stores: list[OutcomeStore] = []


def held(*, is_whole: bool) -> dict[str, Any]:
    """Tasks; and the objects that the collector tracks, with those that `gc.freeze` has put away.

    To be listed these are thawed for a moment. `dead` are those that only a collection of all would have freed:
    cycles that were put away when they were dead already. The look itself frees them, so a next one counts anew.
    """
    tasks = asyncio.all_tasks(_loops[-1]) if _loops else set()
    told: dict[str, Any] = {"tasks": len(tasks), "outcomes": sum(one.used_bytes for one in _stores)}
    if is_whole:
        told["frozen"] = gc.get_freeze_count()
        gc.unfreeze()
        before = _types()
        told["dead"] = gc.collect()
        after = _types()
        gc.freeze()
        told |= memory()
        told["lines"] = _lines() if tracemalloc.is_tracing() else []
        told["dead_types"] = dict((before - after).most_common(TOLD_DEAD))
        told["types"] = dict(after.most_common(TOLD_TYPES))
        told["task_names"] = sorted(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)
    return told


def _lines() -> list[str]:
    """The lines of code that hold more than at the last look."""
    now = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, tracemalloc.__file__)])
    found = [str(one) for one in now.compare_to(_snapshots[-1], "lineno")[:TOLD_LINES]] if _snapshots else []
    _snapshots[:] = [now]
    return found


class _Mallinfo(ctypes.Structure):
    """What mallinfo2(3) tells, of all arenas together."""

    _fields_ = [(name, ctypes.c_size_t) for name in _MALLINFO]


def memory() -> dict[str, int]:
    """Python's blocks in use; bytes that malloc has given out, those that it keeps (both 0 without glibc 2.33), and
    what is resident."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", _Mallinfo)
    ask.restype = _Mallinfo
    found = ask()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return {
        "blocks": sys.getallocatedblocks(),
        "malloc": found.uordblks + found.hblkhd,
        "kept": found.fordblks,
        "resident": resident,
    }


def _types() -> Counter[str]:
    return Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())


def _serve(door: socket.socket) -> None:
    while True:
        asker, _ = door.accept()
        with asker:
            is_whole = asker.recv(1) == WITH_TYPES
            for _ in range(TRIES):
                try:
                    told = held(is_whole=is_whole)
                except (
                    Exception
                ):  # the loop goes on beside this thread, and what is walked over may change meanwhile
                    traceback.print_exc()
                else:
                    asker.sendall(json.dumps(told).encode())
                    break


def _noted() -> asyncio.AbstractEventLoop:
    """Each loop that is made is kept: once it is frozen, no list of the collector has it."""
    _loops.append(uvloop.new_event_loop())
    return _loops[-1]


def _note_stores() -> None:
    """Each store of outcomes that is made is kept."""
    made = OutcomeStore.__init__

    def noted(self: OutcomeStore, *given: int) -> None:
        made(self, *given)
        _stores.append(self)

    OutcomeStore.__init__ = noted  # type: ignore[method-assign]


if __name__ == "__main__":
    _note_stores()
    door = socket.socket(socket.AF_UNIX)
    door.bind(os.environ["SOAK_LOOK"])
    door.listen()
    threading.Thread(target=_serve, args=(door,), daemon=True).start()
    uvloop.run = partial(uvloop.run, loop_factory=_noted)
    sys.exit(main(["run", *sys.argv[1:]]))
