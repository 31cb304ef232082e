"""The hard cases of `tests/bench/hard_cases`: our breaker is right in each of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.hard_cases.run import BREAKERS, run
from tests.bench.hard_cases.situations import SITUATIONS, Situation
from tests.bench.hard_cases.table import Row

README = (Path(__file__).parents[2] / "sidecar" / "core" / "breaker" / "README.md").read_text()


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.name)
def test_breaker_does_what_is_wanted(situation: Situation) -> None:
    results = run(replace(situation, runs=min(situation.runs, 3)), "sidecar")
    assert all(situation.is_right(result) for result in results), (situation.wanted, results)


def test_three_sidecars_recover_as_soon_as_one() -> None:
    one, three = (
        sum(result.closed_after for result in run(situation, "sidecar")) / situation.runs
        for situation in SITUATIONS
        if "sidecar" in situation.name and "behind" not in situation.name
    )
    assert three <= 1.3 * one


def test_patient_caller_among_impatient_ones_is_served_within_five_seconds() -> None:
    starved = next(situation for situation in SITUATIONS if situation.name.startswith("starved"))
    for result in run(replace(starved, runs=6), "sidecar"):
        assert result.closed_after <= 5.0
        assert result.groups["patient"].good > 100


@pytest.mark.parametrize("name", [name for name in BREAKERS if name != "sidecar"])
def test_situations_tell_breakers_apart(name: str) -> None:
    """Each of the other breakers is wrong somewhere, so the situations can be failed."""
    rows = [Row(one, name, run(replace(one, runs=1), name)) for one in SITUATIONS if one.until <= 120.0]
    assert any(not row.is_right for row in rows)
    assert any(row.is_right for row in rows)


def test_same_seed_gives_the_same_run() -> None:
    situation = replace(SITUATIONS[0], runs=1)
    assert run(situation, "sidecar") == run(situation, "sidecar")


def test_table_in_the_readme_has_every_situation() -> None:
    _, _, table = README.partition("<!-- hard cases -->\n")
    names = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|", table.split("\n\n")[0], re.MULTILINE)
    assert names[2:] == [situation.name for situation in SITUATIONS]
