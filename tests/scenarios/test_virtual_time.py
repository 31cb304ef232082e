"""The loop of the scenarios: its clock jumps only where nothing can come by itself any more."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from tests.support.loop import JumpingLoop
from tests.support.outside import Outside

TICK_SECONDS = 0.025
TICKS = 1000


@pytest.fixture
async def outside() -> Outside:
    return cast(JumpingLoop, asyncio.get_running_loop()).outside


@pytest.fixture
async def ticking() -> AsyncIterator[None]:
    """A timer that gives the clock something to jump to, as a sweep does."""
    loop = asyncio.get_running_loop()

    def tick() -> None:
        nonlocal timer
        timer = loop.call_later(TICK_SECONDS, tick)

    timer = loop.call_later(TICK_SECONDS, tick)
    yield
    timer.cancel()


async def connected() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.StreamWriter]:
    """The reader at one end of a connection, the writer at the other, and the first one's writer."""
    accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda *ends: accepted.set_result(ends), "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    reader, other = await accepted
    server.close()
    return reader, writer, other


async def test_time_passes_only_by_jumps() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    for _ in range(TICKS):
        await asyncio.sleep(TICK_SECONDS)
    assert loop.time() - before == pytest.approx(TICKS * TICK_SECONDS)


async def test_two_ends_in_the_loop_are_no_strangers(outside: Outside) -> None:
    _, writer, other = await connected()
    assert not outside.has_stranger()
    other.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(1)
    assert not outside.has_stranger()
    writer.close()
    other.close()


async def test_a_client_opened_by_hand_is_no_stranger(outside: Outside) -> None:
    accepted: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: accepted.append(writer), "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()):
        await asyncio.sleep(0.1)
        assert not outside.has_stranger()
    server.close()
    for writer in accepted:
        writer.close()


async def test_who_is_asked_outside_the_loop_is_a_stranger(outside: Outside) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        _, writer = await asyncio.open_connection(*server.getsockname())
        assert outside.has_stranger()
        writer.close()
    await asyncio.sleep(0.1)
    assert not outside.has_stranger()


async def test_a_pipe_is_a_stranger(outside: Outside) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        asyncio.get_running_loop().add_reader(ours.fileno(), lambda: None)
        assert outside.has_stranger()
        asyncio.get_running_loop().remove_reader(ours.fileno())
        assert not outside.has_stranger()


async def test_the_clock_stands_while_the_kernel_holds_bytes_back(outside: Outside, ticking: object) -> None:
    loop = asyncio.get_running_loop()
    reader, writer, other = await connected()
    # For at most 200 ms a corked socket waits for more than one byte (tcp(7)).
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    before = loop.time()
    writer.write(b"x")
    assert outside.is_owed_bytes()
    assert await reader.read(1) == b"x"
    assert loop.time() == before
    assert not outside.is_owed_bytes()
    writer.close()
    other.close()


async def test_bytes_that_nobody_reads_are_not_waited_for(outside: Outside) -> None:
    _, writer, other = await connected()
    other.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(bytes(16 * 1024 * 1024))
    await asyncio.sleep(1)
    assert writer.transport.get_write_buffer_size()
    assert not outside.is_owed_bytes()
    writer.transport.abort()
    other.transport.abort()


async def test_the_clock_stands_for_a_job_in_a_thread(ticking: object) -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    is_seen = threading.Event()

    def job() -> None:
        began = time.thread_time()
        while time.thread_time() < began + 0.02:
            pass
        is_seen.set()

    await asyncio.to_thread(job)
    assert is_seen.is_set()
    assert loop.time() == before


async def test_the_clock_stands_for_a_job_that_had_no_processor_meanwhile(
    ticking: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five seconds in which the machine did other things: no thread of this process has moved."""
    loop, clock = asyncio.get_running_loop(), time.monotonic
    before = loop.time()

    def compute() -> None:
        began = time.thread_time()
        while time.thread_time() < began + 0.02:
            pass

    def job() -> None:
        compute()
        monkeypatch.setattr(time, "monotonic", lambda: clock() + 5.0)
        compute()

    await asyncio.to_thread(job)
    assert loop.time() == before


async def test_a_job_that_waits_for_virtual_time_gets_it() -> None:
    is_over = threading.Event()
    job = asyncio.ensure_future(asyncio.to_thread(is_over.wait))
    await asyncio.sleep(5)
    is_over.set()
    assert await job


async def test_the_clock_stands_while_a_child_computes(ticking: object) -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "sum(range(10**6)); print(input())", stdin=-1, stdout=-1
    )
    assert await child.communicate(b"done\n") == (b"done\n", None)
    assert child.returncode == 0
    # It sleeps for a moment between reading and writing at most.
    assert loop.time() - before < 10


async def test_a_child_that_waits_for_its_input_lets_time_pass() -> None:
    loop = asyncio.get_running_loop()
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=-1)
    before = loop.time()
    await asyncio.sleep(60)
    assert loop.time() - before == pytest.approx(60)
    await child.communicate(b"\n")
