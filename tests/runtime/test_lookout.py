"""The thread that looks at files: it tells of news once, forgets what it is told to, and ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.runtime.lookout import CALM_AFTER_SECONDS, CALM_SECONDS, Lookout

QUICKLY = 0.005


class Sight:
    """What is there to be seen, and how often somebody has looked."""

    def __init__(self) -> None:
        self.found: object = "as it was"
        self.looks = 0
        self.threads = set[threading.Thread]()

    def look(self, _now: float) -> object:
        self.looks += 1
        self.threads.add(threading.current_thread())
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def looked(sight: Sight, more: int = 3) -> None:
    """Until it has been looked at some more times."""
    so_many = sight.looks + more
    await until(lambda: sight.looks >= so_many)


async def test_news_are_told_once_and_on_the_loop() -> None:
    lookout, sight, told = Lookout(QUICKLY), Sight(), list[threading.Thread]()
    lookout.watch("a", sight.look, "as it was", lambda: told.append(threading.current_thread()))
    await looked(sight)
    assert told == []
    sight.found = "another"
    await until(lambda: bool(told))
    looks = sight.looks
    await asyncio.sleep(10 * QUICKLY)
    assert (told, sight.looks) == ([threading.current_thread()], looks)
    assert threading.current_thread() not in sight.threads
    lookout.close()


async def test_what_has_changed_before_it_was_watched_is_told_at_once() -> None:
    lookout, sight, told = Lookout(3600.0), Sight(), asyncio.Event()
    sight.found = "another"
    lookout.watch("a", sight.look, "as it was", told.set)
    await told.wait()
    lookout.close()


async def test_one_who_sees_nothing_looks_again() -> None:
    lookout, sight, told = Lookout(QUICKLY), Sight(), asyncio.Event()
    sight.found = None
    lookout.watch("a", sight.look, "as it was", told.set)
    await looked(sight)
    assert not told.is_set()
    sight.found = "another"
    await told.wait()
    lookout.close()


async def test_a_mistake_in_looking_is_told_as_news_and_ends_nothing() -> None:
    lookout, sight, other = Lookout(QUICKLY), Sight(), Sight()
    told, others = asyncio.Event(), asyncio.Event()
    lookout.watch("b", other.look, "as it was", others.set)
    sight.found = LookupError("broken")
    lookout.watch("a", sight.look, "as it was", told.set)
    await told.wait()
    other.found = "another"
    await others.wait()
    lookout.close()


async def test_what_is_watched_no_longer_is_not_looked_at() -> None:
    lookout, sight, other, told = Lookout(QUICKLY), Sight(), Sight(), asyncio.Event()
    lookout.watch("a", sight.look, "as it was", told.set)
    lookout.watch("b", other.look, "as it was", told.set)
    await looked(other)
    lookout.rest("a")
    await looked(other)
    looks = sight.looks
    await looked(other)
    assert sight.looks == looks
    lookout.close()


@pytest.mark.parametrize("then", [Lookout.close, lambda lookout: lookout.rest("a")])
async def test_without_anything_to_look_at_the_thread_waits_or_ends(then: Callable[[Lookout], None]) -> None:
    lookout, sight = Lookout(QUICKLY), Sight()
    lookout.watch("a", sight.look, "as it was", lambda: None)
    await looked(sight)
    then(lookout)
    (thread,) = sight.threads
    await asyncio.sleep(4 * QUICKLY)
    looks = sight.looks
    await asyncio.sleep(10 * QUICKLY)
    assert sight.looks == looks
    lookout.close()
    await until(lambda: not thread.is_alive())


async def test_what_has_long_been_as_it_is_is_looked_at_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses = list[float | None]()
    pause = Lookout._pause

    def noted(self: Lookout, jobs: Any, now: float) -> float | None:
        pauses.append(pause(self, jobs, now + monotonic_ahead))
        return QUICKLY

    monkeypatch.setattr(Lookout, "_pause", noted)
    monotonic_ahead = 0.0
    lookout, sight, other = Lookout(0.25), Sight(), Sight()
    lookout.watch("a", sight.look, "as it was", lambda: None)
    await looked(sight)
    assert set(pauses) <= {None, 0.25}
    monotonic_ahead = CALM_AFTER_SECONDS
    await looked(sight)
    assert pauses[-1] == CALM_SECONDS  # another look later, and so on
    monotonic_ahead = CALM_AFTER_SECONDS - 10.0
    lookout.watch("b", other.look, "as it was", lambda: None)
    await looked(other)
    assert pauses[-1] == 0.25
    lookout.close()


async def test_without_a_thread_to_be_had_whoever_watches_looks_for_himself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    lookout, sight = Lookout(QUICKLY), Sight()
    for _ in range(3):
        told = asyncio.Event()
        with monkeypatch.context() as lacking:
            lacking.setattr(threading.Thread, "start", refuse)
            lookout.watch("a", sight.look, "as it was", told.set)
        await told.wait()
    assert sight.looks == 0
    lookout.watch("a", sight.look, "as it was", told.set)
    await looked(sight)
    lookout.close()


async def test_what_is_watched_is_looked_at_however_often_others_come_and_go() -> None:
    lookout, sight = Lookout(0.5), Sight()
    lookout.watch("a", sight.look, "as it was", lambda: None)
    busy = True

    async def come_and_go() -> None:
        while busy:
            lookout.rest("b")
            await asyncio.sleep(0.002)

    others = asyncio.create_task(come_and_go())
    await looked(sight, 2)
    busy = False
    await others
    lookout.close()


async def test_one_that_never_watched_has_no_thread() -> None:
    before = set(threading.enumerate())
    lookout = Lookout(QUICKLY)
    lookout.rest("a")
    lookout.close()
    assert set(threading.enumerate()) <= before


def test_news_for_a_loop_that_has_ended_are_nobodys() -> None:
    sight, ended = Sight(), threading.Event()

    def look(_now: float) -> object:
        ended.wait()
        return sight.look(_now)

    async def begin() -> Lookout:
        lookout = Lookout(QUICKLY)
        lookout.watch("a", look, "another", lambda: None)
        return lookout

    before = set(threading.enumerate())
    lookout = asyncio.run(begin())
    (thread,) = set(threading.enumerate()) - before
    ended.set()
    lookout.close()
    thread.join(10.0)
    assert (thread.is_alive(), sight.looks) == (False, 1)
