"""How often the kernel is called for a TLS connection that is made for one request."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.handshake_cost import Connections, started, stopped


@pytest.fixture
def log() -> Iterator[int]:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


async def test_a_handshake_takes_one_write_and_the_last_answer_another(tmp_path: Path, log: int) -> None:
    """The ticket comes with the answer, and the end of TLS too."""
    worker = await started(tmp_path, log)
    try:
        connections = Connections(worker)
        await connections.one()
        assert connections.writes == 2
    finally:
        await stopped(worker)
