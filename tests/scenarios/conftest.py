"""Scenarios run on virtual time (see `tests/support/loop.py`)."""

import asyncio

import pytest

from tests.support.loop import JumpingPolicy


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return JumpingPolicy()
