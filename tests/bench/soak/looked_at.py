"""`sidecar run FILE` in a process that also tells what it holds, to this bench alone.

Run: python -m tests.bench.soak.looked_at FILE. It listens at the UNIX socket $SOAK_LOOK, in a thread of its own, and
answers each connection with one JSON object: how many tasks the loop has, how many bytes its outcomes take and, if
asked, how many objects there are of each type, how many bytes each owner holds (`owners.py`), and what Python's
allocator and the C library make of it. The sidecar itself has no such door.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import re
import resource
import socket
import sys
import tempfile
import threading
import traceback
import tracemalloc
from collections import Counter
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvloop

from sidecar.__main__ import main
from sidecar.core.outcomes.store import OutcomeStore
from tests.bench.soak import owners

TOLD_TYPES: Final = 400
TOLD_DEAD: Final = 30
WITH_TYPES: Final = b"t"
_MALLINFO: Final = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip
_SAID: Final = re.compile(r"# bytes in allocated blocks += +([\d,]+).*?\nTotal += +([\d,]+)", re.DOTALL)
TOLD_LINES: Final = 14
TRIES: Final = 50
_snapshots: list[tracemalloc.Snapshot] = []
_loops: list[asyncio.AbstractEventLoop] = []
_stores: list[OutcomeStore] = []


def held(*, is_whole: bool) -> dict[str, Any]:
    """Tasks, and the bytes of outcomes; for a whole look, what only this process itself can tell beside that."""
    tasks = asyncio.all_tasks(_loops[-1]) if _loops else set()
    told: dict[str, Any] = {"tasks": len(tasks), "outcomes": sum(one.used_bytes for one in _stores)}
    if is_whole:
        told["lines"] = _lines() if tracemalloc.is_tracing() else []
        told["resident"] = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        told["task_names"] = sorted(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)
    return told


def whole() -> dict[str, Any]:
    """The objects that the collector tracks, with those that `gc.freeze` has put away, and the memory.

    `dead` are those that only a collection of all would have freed: cycles that were put away when they were dead
    already.
    """
    told: dict[str, Any] = {"frozen": gc.get_freeze_count()}
    gc.unfreeze()
    gc.set_debug(gc.DEBUG_SAVEALL)
    told["dead"] = gc.collect()
    told["dead_types"] = dict(_types(gc.garbage).most_common(TOLD_DEAD))
    gc.set_debug(0)
    gc.garbage.clear()
    gc.collect()
    told |= memory()
    tracked = gc.get_objects()
    told["types"] = dict(_types(tracked).most_common(TOLD_TYPES))
    told["owners"] = owners.owned(tracked).told()
    told["caches"] = owners.caches(tracked)
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
    """Python's blocks in use; bytes of the arenas that these stand in, and which of them are free; bytes that malloc
    has given out, and those that it keeps (both 0 without glibc 2.33)."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", _Mallinfo)
    ask.restype = _Mallinfo
    found = ask()
    return {
        "blocks": sys.getallocatedblocks(),
        **_arenas(),
        "malloc": found.uordblks + found.hblkhd,
        "kept": found.fordblks,
    }


def _arenas() -> dict[str, int]:
    """Bytes of the arenas of Python's allocator, and bytes in them that nobody has; from what it prints of itself."""
    with tempfile.TemporaryFile("w+") as said:
        own = os.dup(2)
        os.dup2(said.fileno(), 2)
        sys._debugmallocstats()
        os.dup2(own, 2)
        os.close(own)
        said.seek(0)
        text = said.read()
    found = _SAID.search(text)
    assert found is not None, text
    used, total = (int(number.replace(",", "")) for number in found.groups())
    return {"arenas": total, "free": total - used}


def _types(objects: list[Any]) -> Counter[str]:
    """How many there are of each; of frames, of each function."""
    return Counter(
        f"frame of {one.f_code.co_qualname}"
        if isinstance(one, FrameType)
        else f"{type(one).__module__}.{type(one).__qualname__}"
        for one in objects
    )


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
                    (_answer_whole if is_whole else _answer)(asker, told)
                    break


def _answer(asker: socket.socket, told: dict[str, Any]) -> None:
    asker.sendall(json.dumps(told).encode())


def _answer_whole(asker: socket.socket, told: dict[str, Any]) -> None:
    """Let a fork of this process look and answer: there it may thaw, collect and walk as long as it likes. No other
    thread runs there, no memory is taken here, and it is a child of nobody here either."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        own = asker.fileno()
        os.closerange(3, own)  # else a peer would see the end of its connection only when this copy ends
        os.closerange(own + 1, os.sysconf("SC_OPEN_MAX"))
        if not os.fork():
            _answer(asker, told | whole())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


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
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # else gRPC's threads begin anew in a copy, and end it
    _note_stores()
    door = socket.socket(socket.AF_UNIX)
    door.bind(os.environ["SOAK_LOOK"])
    door.listen()
    threading.Thread(target=_serve, args=(door,), daemon=True).start()
    uvloop.run = partial(uvloop.run, loop_factory=_noted)
    sys.exit(main(["run", *sys.argv[1:]]))
