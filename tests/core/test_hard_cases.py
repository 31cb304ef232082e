"""The hard cases of `tests/bench/hard_cases`: our breaker is right in each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.bench.hard_cases.run import BREAKERS, run
from tests.bench.hard_cases.situations import SITUATIONS, Result, Situation
from tests.bench.hard_cases.table import Row

README = (Path(__file__).parents[2] / "sidecar" / "core" / "breaker" / "README.md").read_text()


RUNS = 3
BY_NAME = {one.name: one for one in SITUATIONS}


@cache
def ours(name: str) -> list[Result]:
    """What our breaker does in the first runs of that situation: the same whenever anybody looks."""
    situation = BY_NAME[name]
    return run(replace(situation, runs=min(situation.runs, RUNS)), "sidecar")


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.name)
def test_breaker_does_what_is_wanted(situation: Situation) -> None:
    results = ours(situation.name)
    assert all(situation.is_right(result) for result in results), (situation.wanted, results)


def test_three_sidecars_recover_as_soon_as_one() -> None:
    one, three = (
        sum(result.closed_after for result in results) / len(results)
        for results in (ours(name) for name in BY_NAME if "sidecar" in name and "behind" not in name)
    )
    assert three <= 1.3 * one


def test_patient_caller_among_impatient_ones_is_served_within_five_seconds() -> None:
    starved = next(situation for situation in SITUATIONS if situation.name.startswith("starved"))
    for result in run(replace(starved, runs=6), "sidecar"):
        assert result.closed_after <= 5.0
        assert result.groups["patient"].good > 100


def verdicts_on(breaker: str) -> Iterator[bool]:
    """Whether it is right, situation by situation."""
    for one in SITUATIONS:
        if one.until <= 120.0:
            yield Row(one, breaker, run(replace(one, runs=1), breaker)).is_right


@pytest.mark.parametrize("name", [name for name in BREAKERS if name != "sidecar"])
def test_situations_tell_breakers_apart(name: str) -> None:
    """Each of the other breakers is right somewhere and wrong somewhere, so the situations can be failed."""
    seen: set[bool] = set()
    verdicts = verdicts_on(name)
    while len(seen) < 2:
        seen.add(next(verdicts))


def test_same_seed_gives_the_same_run() -> None:
    situation = replace(SITUATIONS[0], runs=1)
    assert run(situation, "sidecar") == run(situation, "sidecar")


def test_table_in_the_readme_has_every_situation() -> None:
    _, _, table = README.partition("<!-- hard cases -->\n")
    names = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|", table.split("\n\n")[0], re.MULTILINE)
    assert names[2:] == [situation.name for situation in SITUATIONS]
