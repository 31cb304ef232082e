"""The small parts: each crash has a beginning that mends it."""

import asyncio
from typing import Any

import pytest

from sidecar.core.snapshot import Address
from sidecar.runtime.actor import Mailbox, Part, Parts
from sidecar.runtime.parts import Served, every_second, keeping_alive
from tests.support.proxy import running
from tests.support.upstream import answering, scripted

ADDRESS = Address("127.0.0.1", 0)


class Server:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def start(self, address: Address) -> None:
        self.told.append(f"start {address}")

    async def stop(self) -> None:
        self.told.append("stop")


async def live_until_stopped(run: Any, seconds: float) -> Part[Any]:
    """Give a part some seconds of life under supervision."""
    parts = Parts(lambda failure: pytest.fail(str(failure)))
    part = parts.add(Part("one", run))
    parts.start("one")
    await asyncio.sleep(seconds)
    await parts.stop()
    return part


async def test_a_server_that_is_up_already_is_not_started_twice_and_is_stopped_once() -> None:
    server = Server()
    served = Served(server, ADDRESS)
    await served.start()
    await live_until_stopped(served.run, 1.0)
    assert server.told == ["start 127.0.0.1:0", "stop"]


async def test_a_server_whose_part_crashed_is_started_again() -> None:
    server = Server()
    served = Served(server, ADDRESS)

    async def run(mailbox: Mailbox[Any]) -> None:
        is_first = len(server.told) < 2
        async with asyncio.TaskGroup() as group:
            group.create_task(served.run(mailbox))
            if is_first:
                await asyncio.sleep(0.5)
                raise ValueError("planted")

    await served.start()
    await live_until_stopped(run, 2.0)
    assert server.told == ["start 127.0.0.1:0", "stop", "start 127.0.0.1:0", "stop"]


async def test_something_is_done_each_second() -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()
    started = loop.time()
    await live_until_stopped(every_second(lambda: times.append(loop.time() - started)), 2.5)
    assert times == pytest.approx([0.0, 1.0, 2.0])


async def test_threads_that_end_are_renewed_after_one_crash() -> None:
    alive = [True]

    async def end_soon() -> None:
        await asyncio.sleep(1.5)
        alive[0] = False

    ending = asyncio.ensure_future(end_soon())

    def renew() -> None:
        alive[0] = True

    part = await live_until_stopped(keeping_alive(lambda: alive[0], renew), 5.0)
    await ending
    assert (part.restarts, alive[0]) == (1, True)


async def test_a_telemetry_that_has_died_is_replaced_under_traffic() -> None:
    routes = 'upstreams: {{app: {{endpoints: ["127.0.0.1:{}"]}}}}\nroutes: [{{name: app, upstream: app}}]\n'
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with scripted(answering(ok)) as app, running(routes.format(app.port)) as worker:
        await asyncio.sleep(0.05)  # its part has begun, and finds it dead later
        dead = worker.control.rooms.room
        dead.log.dropped = 7
        dead.stop()
        while worker.control.rooms.room is dead or worker.control.parts["telemetry"].restarts == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert worker.control.rooms.room.is_alive()
        assert worker.service.observe is worker.control.rooms.room.observer
        assert worker.sources().dropped["access_log", "queue_full"] == 7, "what was lost stays counted"
        while len(worker.control.rooms._past[1]) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert worker.control.rooms._past[1] == (worker.control.rooms.room,), "the dead one is let go"
        assert worker.sources().dropped["access_log", "queue_full"] == 7
