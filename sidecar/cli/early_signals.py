"""Signals that come before a process can handle them. For commands that are a container's first process.

A kernel drops what PID 1 has no handler for, and to any other process the default is death: a pod that ends while it
starts would wait for its SIGKILL, and a reload by SIGHUP would kill. Imports alone take a third of a second.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

COMMANDS = frozenset({"run", "webhook"})
_HELD = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)


def hold() -> None:
    """Keep them waiting."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def release() -> None:
    """Let them come: there are handlers now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C comes when the block is over. For imports; a process that is started in the block would inherit it.

    An interrupt amid an import is told with all the lines that led to it, or Python only complains of it and goes on.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        if signal.SIGINT not in before:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
