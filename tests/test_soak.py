"""The soak's own reckoning (`tests/bench/soak`), and a very short one of a real process."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from functools import lru_cache
from math import isclose

import pytest

from tests.bench.soak import by_kind, growth, owners
from tests.bench.soak.__main__ import BAD_EVERY, FILE, LEAST_LATE, edited
from tests.bench.soak.samples import LEVELS, Sample


def samples(*mebibytes: float) -> list[Sample]:
    """One each 10 s; all else stays."""
    rest = dict.fromkeys(LEVELS, 1.0)
    return [Sample(10.0 * at, rest | {"MiB": value}) for at, value in enumerate(mebibytes)]


def test_a_steady_growth_is_told_an_hour() -> None:
    lines = growth.slopes(samples(*(100 + 0.01 * at for at in range(60))))
    assert isclose(lines["MiB"].an_hour, 3.6, rel_tol=1e-9)
    assert lines["MiB"].error < 1e-6
    assert all(line.an_hour == 0 for name, line in lines.items() if name != "MiB")
    assert growth.verdict(lines, seconds=600.0).startswith(
        "resident memory but for outcomes, second half of 10 min: +0.00 ± 0.00 MiB an hour"
    )


def test_the_first_half_says_nothing() -> None:
    assert growth.slopes(samples(*range(50), *([100.0] * 50)))["MiB"].an_hour == 0


def test_noise_is_told_as_an_error() -> None:
    line = growth.fitted([(10.0 * at, 100.0 + at % 2) for at in range(60)])
    assert line.error > 0
    assert abs(line.an_hour) < 2 * line.error


def test_too_few_samples_are_no_slope() -> None:
    with pytest.raises(ValueError, match="let it run longer"):
        growth.slopes(samples(1, 2, 3))


def test_only_types_of_which_there_are_many_more_are_told() -> None:
    least = growth.LEAST_GROWN_TYPE
    before = {"a": 10, "b": 5, "c": 1000}
    after = {"a": 10 + least, "b": 5 + least - 1, "c": 10, "d": 2 * least}
    assert growth.grown(before, after) == [("d", 0, 2 * least), ("a", 10, 10 + least)]
    assert len(growth.grown({}, {f"t{number}": 10_000 for number in range(100)})) == growth.TOLD


class Keeper:
    """Holds what is Python's own in what is Python's own."""

    def __init__(self) -> None:
        self.kept: list[tuple[Keeper, bytes]] = []


def test_what_is_pythons_own_counts_for_who_holds_it() -> None:
    keeper = Keeper()
    before = owners.owned(gc.get_objects())
    keeper.kept = [(keeper, b"%1000d" % number) for number in range(10)]
    after = owners.owned(gc.get_objects())
    name = f"{__name__}.Keeper"
    assert after.counts[name] - before.counts[name] == 20  # the list was there
    assert 10_000 < after.sizes[name] - before.sizes[name] < 13_000
    assert after.told()[name] == (after.sizes[name], after.counts[name])
    assert all(size >= owners.LEAST_BYTES for size, _ in after.told().values())


def test_caches_tell_how_full_they_are() -> None:
    @lru_cache(maxsize=4)
    def found(number: int) -> int:
        return number

    for number in range(3):
        found(number)
    assert owners.caches(gc.get_objects())[f"cache of {__name__}.{found.__qualname__}"] == (3, 4)


def test_what_grew_is_told_by_name() -> None:
    kib = growth.KIB
    before = {
        "types": {"a": 1000},
        "owners": {"Kept": (10 * kib, 5), "Small": (kib, 1), "Less": (90 * kib, 9)},
        "caches": {"cache of f": (10, 64), "cache of g": (64, 64)},
    }
    after = {
        "types": {"a": 1500},
        "owners": {"Kept": (30 * kib, 105), "Small": (2 * kib, 2), "Less": (kib, 1), "New": (20 * kib, 3)},
        "caches": {"cache of f": (12, 64), "cache of g": (64, 64), "cache of h": (1, 8)},
    }
    assert growth.told(before, after) == [
        "a 1,000 -> 1,500",
        "held by Kept: 10 -> 30 KiB (+100 objects)",
        "held by New: 0 -> 20 KiB (+3 objects)",
        "cache of f: 10 -> 12 entries of 64",
        "cache of h: 0 -> 1 entries of 8",
    ]


def test_each_reload_brings_another_file_and_some_are_bad() -> None:
    texts = [edited(FILE, number) for number in range(2 * BAD_EVERY)]
    assert len(set(texts)) >= BAD_EVERY
    assert [number for number, text in enumerate(texts) if "nonsense" in text] == [4, 9]


async def said_by(module: str, *options: str) -> str:
    """All that a bench prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode()


@pytest.mark.process
@pytest.mark.timeout(300)
async def test_a_short_soak_tells_its_samples_and_leaves_nothing_behind() -> None:
    text = await said_by(
        "tests.bench.soak", "--minutes", "0.25", "--every", "0.5", "--rate", "20", "--pace", "3"
    )
    samples = re.findall(r"^ +\d:\d\d  MiB [0-9.]+ .* fds \d+ .* tasks \d+ ", text, re.MULTILINE)
    assert len(samples) >= LEAST_LATE + 2, text  # one is before the load and one is after it
    assert "slopes of the second half" in text
    assert "resident memory but for outcomes, second half" in text
    assert len(re.findall(r"resident [0-9.]+ MiB: Python's arenas [1-9][0-9.]*, ", text)) == 2
    assert re.search(
        r"^  grown: held by \S.*: [\d,]+ -> [\d,]+ KiB \([+-][\d,]+ objects\)$", text, re.MULTILINE
    ), text
    assert "left behind" not in text
    assert "stuck" not in text


def look(blocks: int, **types: int) -> dict[str, object]:
    return {
        "blocks": blocks, "malloc": 2**20, "kept": 0, "resident": 2**21, "seconds": 1.0, "dead": 0, "dead_types": {},
        "lines": [], "types": types,
    }  # fmt: skip


def test_what_an_event_leaves_behind_is_told() -> None:
    told = by_kind.line("get", 1, 100, look(1000), look(1250))
    assert "round 1: 100 in 1.0 s  blocks 1,250 (+2.50 an event)  malloc 1.00 MiB" in told
    looks = [look(0, few=1), look(0, few=1, many=5), look(0, few=2, many=50)]
    assert by_kind.grown(looks) == "many 5 -> 50"


@pytest.mark.process
@pytest.mark.timeout(120)
async def test_each_event_of_a_soak_can_be_looked_at_alone() -> None:
    text = await said_by("tests.bench.soak.by_kind", "--events", "40", "--rounds", "2", "tunnel", "reload")
    assert re.findall(r"^(\w+) +round 1: (\d+) in .* blocks [\d,]+ ", text, re.MULTILINE) == [
        ("tunnel", "40"),
        ("reload", "1"),
    ], text
