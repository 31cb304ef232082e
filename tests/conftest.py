"""How the suite is spread over the cores of a machine."""

from __future__ import annotations

import os

WORKERS_A_CORE = 2
"""Tests with real processes wait for most of their time, and leave the core to another worker."""


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means here; only cores that this process may use are counted."""
    return WORKERS_A_CORE * len(os.sched_getaffinity(0))
