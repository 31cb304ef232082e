"""Where a sidecar's processes, and the test that waits for them, stand when nothing happens any more."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.process import Running

DUMP_SECONDS = 10.0
"""For all processes to write their stacks and end."""
ENVIRON = {"PYTHONFAULTHANDLER": "1"}
"""Of a process that is to write its stacks at its SIGABRT."""


@asynccontextmanager
async def within(seconds: float, running: Running, ports: Iterable[int] = ()) -> AsyncIterator[None]:
    """As `asyncio.timeout`, but the error says where everybody was, and the sidecar has ended."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        error.add_note(await told(running, ports))
        raise


async def told(running: Running, ports: Iterable[int] = ()) -> str:
    """Sockets of these ports, the tasks here, and log and stacks of all its processes, which end by it."""
    before = [*_sockets(frozenset(ports)), *_tasks()]
    for pid in family(running.process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGABRT)
    with suppress(TimeoutError):
        async with asyncio.timeout(DUMP_SECONDS):
            await running.process.wait()
    return "\n".join([*before, running.log.read_text()])


def _sockets(ports: frozenset[int]) -> Iterator[str]:
    """Lines of proc_net_tcp(5): of one that listens, the sixth column ends with how many wait to be accepted."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *_ = line.split()
        if ports & {int(one.rpartition(":")[2], 16) for one in (local, remote)}:
            yield line


def _tasks() -> Iterator[str]:
    for task in asyncio.all_tasks():
        text = io.StringIO()
        task.print_stack(file=text)
        yield text.getvalue()


def family(pid: int) -> list[int]:
    """A process and all that come from it, itself first."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found
