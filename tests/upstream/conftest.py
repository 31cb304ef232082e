"""Virtual time (see `tests/support/loop.py`) but for what runs in threads, and connections opened by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.support.by_hand import HandConnecting
from tests.support.loop import JumpingLoop

REAL_TIME = {"test_resolver.py"}
"""A nameserver answers in a thread, which the jumps of virtual time would not wait for."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], Any]]:
    if item.path.name in REAL_TIME:
        return {"real time": asyncio.new_event_loop}
    return {"virtual time": JumpingLoop}


@pytest.fixture
def connectings(monkeypatch: pytest.MonkeyPatch) -> list[HandConnecting]:
    """All that are begun in the test, in order."""
    begun: list[HandConnecting] = []

    def begin(*args: Any) -> HandConnecting:
        begun.append(HandConnecting(*args))
        return begun[-1]

    monkeypatch.setattr("sidecar.upstream.cluster.Connecting", begin)
    return begun
