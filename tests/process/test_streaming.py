"""Large bodies through a real process: they arrive whole, and none of them is kept.

`python -m tests.bench.streaming` does the same with 2 GiB each way.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.flow import MIB, growth_by_answer, growth_by_request

pytestmark = pytest.mark.process

TOTAL = 256 * MIB
MOST_GROWTH_KIB = 16 * 1024


FRAMINGS = pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunks"])


@FRAMINGS
async def test_a_long_answer_to_a_slow_reader_is_not_kept_in_memory(tmp_path: Path, is_chunked: bool) -> None:
    assert await growth_by_answer(tmp_path, TOTAL, is_chunked=is_chunked) < MOST_GROWTH_KIB


@FRAMINGS
async def test_a_long_request_to_a_slow_upstream_is_not_kept_in_memory(
    tmp_path: Path, is_chunked: bool
) -> None:
    assert await growth_by_request(tmp_path, TOTAL, is_chunked=is_chunked) < MOST_GROWTH_KIB
