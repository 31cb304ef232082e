"""The loop's turns: not looked at while all is well, one by one when a timer was late."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from sidecar.transport import throttled
from sidecar.transport.pace import SHORT_TURNS, SUSPICIOUS_SECONDS, Pace
from tests.support.by_hand import HandLoop


class Stage:
    def __init__(self) -> None:
        self.loop = HandLoop()
        self.throttles = 0
        self.turns: list[float] = []
        self.is_wanted = False
        self.pace = Pace(cast(asyncio.AbstractEventLoop, self.loop), self.loop.time, lambda: self.throttles)
        self.pace.heard = self.heard

    def heard(self, seconds: float, _now: float) -> bool:
        self.turns.append(seconds)
        return self.is_wanted

    def hold(self, seconds: float) -> None:
        """One long turn: the timers that fall due in it fire at its end."""
        due, self.loop.now = self.loop.now, self.loop.now + seconds
        self.pace.fired(due, self.loop.now)


def test_a_timer_in_time_arms_nothing() -> None:
    stage = Stage()
    stage.pace.fired(stage.loop.now, stage.loop.now + SUSPICIOUS_SECONDS / 2)
    assert stage.loop.timers == 0
    assert stage.pace.held.seconds(0.0, 1e9) == 0.0


def test_a_late_timer_has_each_turn_measured_until_some_are_short_and_no_longer() -> None:
    stage = Stage()
    stage.hold(0.3)
    assert stage.pace.held.seconds(0.0, 1e9) == pytest.approx(0.3)
    stage.loop.advance(3.0)
    assert stage.turns == SHORT_TURNS * [pytest.approx(0.001)]
    assert stage.loop.timers == 0


def test_a_loop_that_cannot_keep_up_has_every_turn_measured() -> None:
    stage = Stage()
    stage.hold(0.3)
    for seconds in (0.03, 0.001, 0.001, 0.005, 0.001, 0.001, 0.001, 0.02):
        stage.loop.now += seconds
        stage.loop.advance(0.0)
    assert len(stage.turns) == 8
    assert stage.loop.timers == 1


def test_a_timer_that_is_late_while_there_is_nothing_to_do_is_a_hold_and_no_overload() -> None:
    stage = Stage()
    stage.pace.fired(stage.loop.now, stage.loop.now + 0.3, is_busy=False)
    assert stage.loop.timers == 0
    assert stage.pace.held.seconds(0.0, 1e9) == pytest.approx(0.3)


def test_where_others_have_the_cpu_and_nobody_comes_turns_are_measured_no_longer() -> None:
    stage = Stage()
    stage.hold(0.3)
    for _ in range(3):
        stage.loop.now += 0.005
        stage.loop.advance(0.0)
    stage.pace.ease()
    for _ in range(20):
        stage.loop.now += 0.005
        stage.loop.advance(0.0)
    assert stage.loop.timers == 0


def test_turns_are_measured_as_long_as_somebody_wants_them() -> None:
    stage = Stage()
    stage.is_wanted = True
    stage.hold(0.3)
    stage.loop.advance(3.0)
    assert stage.loop.timers == 1
    stage.pace.close()
    assert stage.loop.timers == 0


def test_a_turn_that_the_kernel_cut_short_is_left_out_and_the_loop_was_held_all_the_same() -> None:
    stage = Stage()
    stage.pace.look_closely(stage.loop.now)
    stage.throttles = 1
    stage.loop.now += 0.09
    stage.loop.advance(0.0)  # one tick, 90 ms late
    assert stage.turns == []
    assert stage.pace.throttled_turns == 1
    assert stage.pace.held.seconds(0.0, 1e9) == pytest.approx(0.09)
    stage.loop.now += 0.05
    stage.loop.advance(0.0)
    assert stage.turns == [pytest.approx(0.05)]


@pytest.mark.parametrize("membership", ["0::/pod/app\n", "3:cpu,cpuacct:/pod/app\n0::/\n"])
def test_the_own_groups_count_is_read_in_both_versions_of_cgroups(tmp_path: Path, membership: str) -> None:
    group = tmp_path / ("pod/app" if membership.startswith("0") else "cpu/pod/app")
    group.mkdir(parents=True)
    (group / "cpu.stat").write_text("nr_periods 10\nnr_throttled 3\nthrottled_usec 12\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 1\nnr_throttled 99\n")
    (tmp_path / "of").write_text(membership)
    read = throttled.counter(tmp_path, tmp_path / "of")
    assert read() == 3
    (group / "cpu.stat").write_text("nr_periods 11\nnr_throttled 4\nthrottled_usec 15\n")
    assert read() == 4
    (group / "cpu.stat").unlink()
    assert read() == 0


def test_without_a_group_nothing_was_ever_throttled(tmp_path: Path) -> None:
    assert throttled.counter(tmp_path, tmp_path / "none")() == 0
