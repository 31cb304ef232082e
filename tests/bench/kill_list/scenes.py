"""What happens in each scene: a fault begins, and a fault ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.bench.kill_list.world import NAME, World
from tests.support.dns import SERVFAIL, Reply
from tests.support.process import admin, http_get

Act = Callable[[World], Awaitable[None]]
BIG_FILE_BYTES: Final = 50_000_000
STORM: Final = 300
"""Signals or reloads."""
FLOOD_CONNECTIONS: Final = 64


@dataclass(frozen=True)
class Scene:
    """`begin` brings the fault about, `end` takes it away."""

    name: str
    begin: Act
    end: Act
    path: str = "/"
    is_outage: bool = False
    """Nobody could have answered while it lasts: what fails meanwhile does not fail needlessly."""
    seconds: float = 4.0
    stdout: str = ""
    """Where the sidecar's standard output goes: to the log, `full` or `stalled`."""


async def nothing(world: World) -> None:
    """There is nothing to do."""


# Apps


async def kill_first(world: World) -> None:
    world.kill("first")


async def serve_first(world: World) -> None:
    await world.serving("first")


async def stop_first(world: World) -> None:
    world.signal_app("first", signal.SIGSTOP)


async def go_on_first(world: World) -> None:
    world.signal_app("first", signal.SIGCONT)


# Names


def _name(reply: Reply) -> Act:
    async def act(world: World) -> None:
        world.dns.replies[NAME] = reply

    return act


MUTE: Final = _name(Reply(is_silent=True))
FAILING: Final = _name(Reply(code=SERVFAIL))
WELL: Final = _name(Reply(("127.0.0.1",), ttl=1))


async def kill_nameserver(world: World) -> None:
    assert world.dns._transport is not None
    world.dns._transport.close()


# The collector


async def _serve_collector(world: World, seconds: float) -> None:
    """Take what comes; answer after so long, or never (0)."""

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n", 1)[0]))
                if not seconds:
                    await reader.read()
                    break
                await asyncio.sleep(seconds)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(collect, "127.0.0.1", world.ports["collector"])
    try:
        await server.serve_forever()
    finally:
        server.close()


_collectors: dict[int, asyncio.Task[None]] = {}


def collector(seconds: float) -> Act:
    async def act(world: World) -> None:
        await no_collector(world)
        port = world.ports["collector"]
        _collectors[port] = asyncio.create_task(_serve_collector(world, seconds))
        await asyncio.sleep(0)

    return act


async def no_collector(world: World) -> None:
    task = _collectors.pop(world.ports["collector"], None)
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# The file


async def delete_file(world: World) -> None:
    world.file.unlink()


async def put_directory(world: World) -> None:
    world.file.unlink()
    world.file.mkdir()


async def put_unreadable(world: World) -> None:
    """Without rights; for root, who has all of them, a socket, which nobody can open."""
    if os.geteuid():
        world.file.chmod(0)
        return
    world.file.unlink()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(world.file))


async def put_big(world: World) -> None:
    line = "# " + "x" * 97 + "\n"
    world.file.write_text(world.text + line * (BIG_FILE_BYTES // len(line)))


async def restore_file(world: World) -> None:
    """A good one again, which must be taken."""
    if world.file.is_dir():
        world.file.rmdir()
    world.file.unlink(missing_ok=True)
    await world.changed(1)


async def kill_loader(world: World) -> None:
    """Twice, each as soon as it is there, while a good file waits to be read."""
    for number in (1, 2):
        before = set(world.children())
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        world.file.write_text(world.text.replace("request: 2s", f"request: 20{number}0ms"))
        world.process.send_signal(signal.SIGHUP)
        for _ in range(200):
            if found := set(world.children()) - before:
                os.kill(found.pop(), signal.SIGKILL)
                break
            await asyncio.sleep(0.01)


async def taken_again(world: World) -> None:
    await world.changed(9)


async def storm_of_signals(world: World) -> None:
    for number in range(STORM):
        if number % 10 == 0:
            world.file.write_text(world.text.replace("request: 2s", f"request: 2{number:03}ms"))
        world.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.01)


async def storm_of_reloads(world: World) -> None:
    for number in range(STORM):
        if number % 10 == 0:
            world.file.write_text(world.text.replace("request: 2s", f"request: 2{number:03}ms"))
        with contextlib.suppress(OSError, IndexError, ValueError):
            await asyncio.wait_for(admin(world.ports["admin"], "POST", "/reload"), 5.0)


# The process itself


async def stop_sidecar(world: World) -> None:
    world.process.send_signal(signal.SIGSTOP)


async def go_on_sidecar(world: World) -> None:
    world.process.send_signal(signal.SIGCONT)


def clock(seconds: float) -> Act:
    async def act(world: World) -> None:
        world.clock.write_text(str(seconds))

    return act


async def flood_admin(world: World) -> None:
    """Everybody asks for everything, for as long as the fault lasts."""

    async def ask(number: int) -> None:
        paths = ("/routes", "/metrics", "/config", "/breakers", "/status", "/events")
        while True:
            with contextlib.suppress(OSError, IndexError, ValueError, TimeoutError):
                await asyncio.wait_for(
                    http_get(world.ports["admin"], paths[number % len(paths)], host="localhost"), 2.0
                )
            await asyncio.sleep(0)

    _floods[world.ports["admin"]] = [asyncio.create_task(ask(number)) for number in range(FLOOD_CONNECTIONS)]


async def end_flood(world: World) -> None:
    tasks = _floods.pop(world.ports["admin"])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


_floods: dict[int, list[asyncio.Task[Any]]] = {}

SCENES: Final = (
    Scene("upstream killed", kill_first, serve_first, is_outage=True),
    Scene("upstream stopped", stop_first, go_on_first, is_outage=True),
    Scene("one of two killed", kill_first, serve_first, "/two"),
    Scene("one of two stopped", stop_first, go_on_first, "/two"),
    Scene("nameserver mute", MUTE, WELL, "/named"),
    Scene("nameserver: SERVFAIL", FAILING, WELL, "/named"),
    Scene("nameserver dead", kill_nameserver, nothing, "/named"),
    Scene("collector dead", no_collector, collector(0.001)),
    Scene("collector hung", collector(0), collector(0.001)),
    Scene("collector slow", collector(1.5), collector(0.001)),
    Scene("file deleted", delete_file, restore_file),
    Scene("file a directory", put_directory, restore_file),
    Scene("file unreadable", put_unreadable, restore_file),
    Scene("file of 50 MB", put_big, restore_file),
    Scene("stdout full", nothing, nothing, stdout="full"),
    Scene("stdout stalled", nothing, nothing, stdout="stalled"),
    Scene("sidecar stopped 3 s", stop_sidecar, go_on_sidecar, seconds=3.0),
    Scene("sidecar stopped 0.3 s", stop_sidecar, go_on_sidecar, seconds=0.3),
    Scene("loader killed twice", kill_loader, taken_again),
    Scene("storm of SIGHUP", storm_of_signals, taken_again),
    Scene("storm of reloads", storm_of_reloads, taken_again),
    Scene("wall clock +1 day", clock(86_400.0), clock(0.0)),
    Scene("wall clock -1 day", clock(-86_400.0), clock(0.0)),
    Scene("admin flooded", flood_admin, end_flood),
)
