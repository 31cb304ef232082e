"""A Redis whose packets are lost, first those of one replica: requests go on, each says that it is alone, and all
merge."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.process.dropping import in_namespace, skip_without_namespaces
from tests.support.redis_server import needs_redis

pytestmark = [pytest.mark.process, needs_redis]


async def test_a_partition_harms_no_request_and_is_over_when_packets_pass_again(tmp_path: Path) -> None:
    await skip_without_namespaces()
    code, output, errors = await in_namespace(sys.executable, "-m", "tests.process.partitioned", tmp_path)
    assert code == 0, errors
    assert json.loads(output) == {
        "one": [None, "slow"],
        "both": ["slow", "slow"],
        "answers": [200],
        "opened": ["open", "closed"],
        "merged": [None, None],
    }
