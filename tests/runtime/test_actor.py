"""A part crashes alone, comes back in time, and takes the process along only when it cannot live."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sidecar.runtime.actor import Mailbox, Part, PartFailed, Parts, PartState
from sidecar.runtime.restarts import CRASH_PERIOD_SECONDS, MAX_CRASHES


class Recorder:
    """A part that notes when each of its lives began, and crashes when told to."""

    def __init__(self) -> None:
        self.lives: list[float] = []
        self.messages: list[str] = []
        self.changed = asyncio.Event()

    async def run(self, mailbox: Mailbox[str]) -> None:
        self.lives.append(asyncio.get_running_loop().time())
        self.changed.set()
        async for message in mailbox:
            if message == "crash":
                raise ValueError("planted")
            self.messages.append(message)
            self.changed.set()

    async def until_lives(self, count: int) -> None:
        while len(self.lives) < count:
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def parts(failures: list[PartFailed], **runs: Any) -> AsyncIterator[Parts]:
    all_of_them = Parts(failures.append)
    for name, run in runs.items():
        all_of_them.add(Part(name, run))
        all_of_them.start(name)
    try:
        yield all_of_them
    finally:
        await all_of_them.stop()


async def test_a_crash_is_followed_by_a_new_life_after_its_back_off() -> None:
    recorder = Recorder()
    async with parts([], one=recorder.run) as running:
        for life in range(1, 4):
            await recorder.until_lives(life)
            running["one"].tell("crash")
        await recorder.until_lives(4)
        waits = [later - earlier for earlier, later in zip(recorder.lives, recorder.lives[1:], strict=False)]
        assert waits == pytest.approx([0.1, 0.2, 0.4])
        view = running["one"].view()
        assert (view.state, view.restarts, view.last_error) == (PartState.RUNNING, 3, "ValueError: planted")


async def test_messages_that_wait_outlive_a_crash_and_the_one_that_crashed_does_not() -> None:
    recorder = Recorder()
    async with parts([], one=recorder.run) as running:
        for message in ("a", "crash", "b"):
            running["one"].tell(message)
        await recorder.until_lives(2)
        while recorder.messages != ["a", "b"]:
            recorder.changed.clear()
            await recorder.changed.wait()


async def test_the_sixth_crash_of_a_minute_is_the_last() -> None:
    failures: list[PartFailed] = []
    recorder = Recorder()
    async with parts(failures, fragile=recorder.run) as running:
        for life in range(1, MAX_CRASHES + 2):
            await recorder.until_lives(life)
            running["fragile"].tell("crash")
        while not failures:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert running["fragile"].view().state is PartState.FAILED
        assert len(recorder.lives) == MAX_CRASHES + 1
    assert [str(failure) for failure in failures] == [
        "part fragile crashed 6 times within 60 s, the last time with ValueError: planted"
    ]


async def test_crashes_that_are_rare_are_survived_for_ever() -> None:
    failures: list[PartFailed] = []
    recorder = Recorder()
    async with parts(failures, one=recorder.run) as running:
        for life in range(1, 20):
            await recorder.until_lives(life)
            running["one"].tell("crash")
            await recorder.until_lives(life + 1)
            await asyncio.sleep(CRASH_PERIOD_SECONDS / MAX_CRASHES)
    assert failures == []


async def test_a_part_that_ends_by_itself_has_crashed() -> None:
    async def run(_: Mailbox[None]) -> None:
        return

    async with parts([], short=run) as running:
        await asyncio.sleep(0.05)
        assert running["short"].view().last_error == "RuntimeError: it ended by itself"


async def test_a_cancellation_that_nobody_asked_for_is_a_crash() -> None:
    async def run(_: Mailbox[None]) -> None:
        await forgotten

    forgotten = asyncio.ensure_future(asyncio.sleep(3600))
    async with parts([], one=run) as running:
        await asyncio.sleep(0)
        forgotten.cancel()
        await asyncio.sleep(0.15)
        assert running["one"].view().last_error == "RuntimeError: something that it waited for was cancelled"


async def test_a_full_mailbox_refuses_and_counts_and_never_blocks() -> None:
    part: Part[int] = Part("busy", lambda _: asyncio.sleep(3600), capacity=2)
    assert [part.tell(number) for number in range(5)] == [True, True, False, False, False]
    view = part.view()
    assert (view.mailbox, view.mailbox_capacity, view.mailbox_overflows) == (2, 2, 3)


async def test_parts_stop_in_the_reverse_order_of_their_start_one_after_the_other() -> None:
    stopped: list[str] = []

    def ending(name: str) -> Any:
        async def run(_: Mailbox[None]) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.1)
                stopped.append(name)

        return run

    async with parts([], first=ending("first"), second=ending("second"), third=ending("third")) as running:
        await asyncio.sleep(0)
        views = running.views
    assert stopped == ["third", "second", "first"]
    assert [view.state for view in views()] == [PartState.STOPPED] * 3


async def test_one_part_s_crash_is_not_another_s() -> None:
    steady, fragile = Recorder(), Recorder()
    async with parts([], steady=steady.run, fragile=fragile.run) as running:
        running["fragile"].tell("crash")
        await fragile.until_lives(2)
        assert len(steady.lives) == 1


async def test_a_mailbox_gives_up_waiting_when_told_to() -> None:
    mailbox: Mailbox[str] = Mailbox()
    started = asyncio.get_running_loop().time()
    assert await mailbox.get(2.0) is None
    assert asyncio.get_running_loop().time() - started == pytest.approx(2.0)
