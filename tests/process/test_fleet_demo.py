"""`sidecar demo --fleet` as a user sees it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar.demo.fleet_story import SCENES
from tests.process.test_demo import holding, left_in, started
from tests.support.redis_server import needs_redis

pytestmark = pytest.mark.process


@needs_redis
async def test_the_story_of_a_fleet_holds_and_leaves_nothing(tmp_path: Path) -> None:
    output = await holding(tmp_path, "--fleet", "--once", "--pause", "0")
    assert all(scene.title in output and scene.promise in output for scene in SCENES)
    for expected in (
        r"after 5 failures at replica one \(502\) all 3 are open; the others after",
        r"30 of 30 calls through all three are refused; payments got 0$",
        r"until the first good one payments got 1: the probe of all$",
        r"says why \((unreachable|slow)\); 30 of 30 calls are good$",
        r"8 of 8 claims hold",
    ):
        assert re.search(expected, output, re.MULTILINE), output
    assert left_in(tmp_path) == []


async def test_without_a_redis_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    process = await started(tmp_path, "--fleet")
    output, errors = await process.communicate()
    assert process.returncode == 1, output
    assert errors.decode().startswith("sidecar demo: the replicas meet by a Redis: install `redis-server`")
