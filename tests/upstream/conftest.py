"""Virtual time (see `tests/support/loop.py`) but for what runs in threads, and connections opened by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.support.by_hand import connectings
from tests.support.loop import JumpingLoop

__all__ = ["connectings", "pytest_asyncio_loop_factories"]

REAL_TIME = {"test_app_probe.py", "test_resolver.py"}
"""A nameserver answers in a thread, as a server of gRPC does, which the jumps of virtual time would not wait for."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], Any]]:
    if item.path.name in REAL_TIME:
        return {"real time": asyncio.new_event_loop}
    return {"virtual time": JumpingLoop}
