"""What the process keeps of the last ten minutes: bounded, and true to the counters."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sidecar.admin.recent import KEPT_SECONDS, STEP_SECONDS, Recent, Sample
from sidecar.core.errors import Reason
from sidecar.core.numbers import Numbers, RouteNumbers
from tests.scenarios.operator import operator
from tests.scenarios.stage import OK, get, saying, stage
from tests.telemetry.fakes import FakeExchange, count_ended


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def numbers() -> Numbers:
    return Numbers(duration_bounds=(0.01, 1.0))


def end(numbers: Numbers, route: str = "checkout", **more: object) -> None:
    count_ended(numbers, FakeExchange(route_name=route, **more))


async def test_a_route_that_begins_is_seen_to_grow_from_nothing(numbers: Numbers) -> None:
    clock = Clock()
    recent = Recent(numbers, clock)
    clock.now += 5
    end(numbers)
    end(numbers, status=503)
    end(numbers, status=499, reason=Reason.CLIENT_GONE)
    await recent.look()
    assert list(recent.of("checkout")) == [
        Sample(1000.0, 0, 0, 0, (0, 0, 0)),
        Sample(1005.0, 3, 1, 1, (0, 3, 0)),
    ]


async def test_nothing_is_kept_of_a_look_at_which_nothing_has_happened(numbers: Numbers) -> None:
    clock = Clock()
    recent = Recent(numbers, clock)
    end(numbers)
    for _ in range(50):
        clock.now += STEP_SECONDS
        await recent.look()
    assert len(recent) == 2
    assert recent.before("checkout", 60.0) == (Sample(1005.0, 1, 0, 0, (0, 1, 0)), 60.0)


async def test_what_several_processes_have_counted_is_not_added_up_on_the_loop(numbers: Numbers) -> None:
    """A tenth of a second, with a thousand routes."""
    threads = []

    class Sum:
        duration_bounds = numbers.duration_bounds

        def routes(self) -> list[RouteNumbers]:
            threads.append(threading.current_thread())
            return numbers.routes()

    recent = Recent(Numbers(), Clock())
    recent.look_at_sum(Sum())
    end(numbers)
    await recent.look()
    assert list(recent.of("checkout")) == [
        Sample(1000.0, 0, 0, 0, (0, 0, 0)),
        Sample(1000.0, 1, 0, 0, (0, 1, 0)),
    ]
    assert threading.main_thread() not in threads


async def test_ten_minutes_are_kept_and_no_more(numbers: Numbers) -> None:
    clock = Clock()
    recent = Recent(numbers, clock)
    for _ in range(500):
        clock.now += STEP_SECONDS
        end(numbers)
        await recent.look()
    kept = recent.of("checkout")
    assert len(kept) == KEPT_SECONDS / STEP_SECONDS
    assert (kept[0].finished, kept[-1].finished) == (381, 500)
    assert len(recent.looks) == KEPT_SECONDS / STEP_SECONDS + 1


async def test_samples_are_bounded_over_all_routes_and_each_keeps_its_last(numbers: Numbers) -> None:
    clock = Clock()
    recent = Recent(numbers, clock, most=40)
    end(numbers, "quiet")
    for _ in range(100):
        clock.now += STEP_SECONDS
        for route in ("a", "b", "c"):
            end(numbers, route)
        await recent.look()
    assert len(recent) <= 40 + 4
    assert recent.of("quiet")[-1].finished == 1
    assert [recent.of(name)[-1].finished for name in "abc"] == [100] * 3


async def test_a_route_that_is_gone_is_forgotten_and_one_that_comes_back_begins_anew(
    numbers: Numbers,
) -> None:
    clock = Clock()
    recent = Recent(numbers, clock)
    for _ in range(3):
        end(numbers)
    await recent.look()
    numbers.retain(())
    end(numbers)
    clock.now += STEP_SECONDS
    await recent.look()
    assert recent.of("checkout")[-1].finished == 1
    numbers.retain(())
    await recent.look()
    assert not list(recent.all())


async def test_the_api_tells_the_last_minute_and_the_history() -> None:
    async with stage(saying(*[OK] * 3)) as to:
        hand = operator(to.worker)
        await to.ask_all(get() * 2, [b"GET"] * 2)
        await asyncio.sleep(STEP_SECONDS + 1.0)
        (row,) = (await hand.get("/routes"))["routes"]
        assert row["minute"]["finished"] == 2
        history = await hand.get("/history")
        (route,) = history["routes"]
        assert [one["finished"] for one in route["samples"]] == [0, 2]
        assert history["looks_seconds"][-1] <= history["at_seconds"]
        await asyncio.sleep(80.0)
        await to.ask()
        (row,) = (await hand.get("/routes"))["routes"]
        assert (row["finished"], row["minute"]["finished"]) == (3, 1)
        assert 60.0 <= row["minute"]["seconds"] <= 60.0 + STEP_SECONDS, "since the last look before"
