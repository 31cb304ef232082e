"""How the suite is spread over the cores of a machine."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# How long one example takes says how busy the machine is.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")

WORKERS_A_CORE = 2
"""Tests with real processes wait for most of their time, and leave the core to another worker."""


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means here; only cores that this process may use are counted."""
    return WORKERS_A_CORE * len(os.sched_getaffinity(0))


def _heed_interrupts() -> None:
    """A shell without job control has what it starts in the background ignore SIGINT, and so do all processes that
    tests start, which wait to be interrupted."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_heed_interrupts()
