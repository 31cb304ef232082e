"""The kill list's own reckoning (`tests/bench/kill_list`), and one scene of it."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from tests.bench.kill_list.load import Call
from tests.bench.kill_list.scenes import SCENES
from tests.bench.kill_list.told import HEAD, row, said

FAULT = (10.0, 14.0)


def calls(*bad: tuple[float, float]) -> list[Call]:
    """One good one a second, and bad ones at these moments, each taking so long."""
    return [Call(float(at), 0.01, "200") for at in range(20)] + [Call(at, took, "503") for at, took in bad]


def test_without_an_outage_each_failure_is_needless() -> None:
    found = row("x", calls((9.0, 0.1), (12.0, 0.1)), FAULT, [50, 60, 55], "", is_outage=False)
    assert (found.calls, found.failed, found.needless) == (22, 2, 2)
    assert found.mebibytes == (50, 60, 55)


def test_in_an_outage_what_fails_before_and_after_it_is_needless() -> None:
    bad = ((9.0, 0.5), (9.0, 1.5), (12.0, 0.1), (14.0, 3.0), (14.5, 0.5))
    found = row("x", calls(*bad), FAULT, [50], "", is_outage=True)
    assert (found.failed, found.needless) == (5, 2)
    assert found.recovery == pytest.approx(1.0)


def test_what_an_open_breaker_refuses_after_an_outage_is_its_wait_for_as_long_as_that_may_last() -> None:
    refused = [Call(at, 0.001, "503 circuit_open") for at in (9.0, 13.0, 14.5, 15.9, 16.1)]
    found = row("x", calls() + refused, FAULT, [50], "", is_outage=True)
    assert (found.failed, found.needless, found.waited) == (5, 2, 2)


def test_a_row_has_as_many_columns_as_the_head() -> None:
    line = row("x", calls((12.0, 0.1)), FAULT, [50], said("a|b"), is_outage=False).line()
    assert line.count("|") == HEAD.partition("\n")[0].count("|")


def test_the_log_is_told_by_kinds_and_the_first_plain_line() -> None:
    lines = [
        {"kind": "access"},
        {"kind": "config.reload", "result": "failure"},
        {"kind": "config.reload", "result": "failure"},
        {"kind": "circuit_breaker.transition", "to": "open"},
    ]
    text = "\n".join([*map(json.dumps, lines), "ERROR: one", "ERROR: two"])
    assert said(text) == "2x config.reload failure; 1x breaker open; ERROR: one"
    assert said('{"kind": "access"}') == "nothing"


def test_each_scene_has_its_own_name() -> None:
    assert len({scene.name for scene in SCENES}) == len(SCENES)


@pytest.mark.process
@pytest.mark.timeout(300)
async def test_a_scene_is_played_to_its_end() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.kill_list", "--rate", "20", "stopped 0.3",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "| sidecar stopped 0.3 s | " in output.decode()
