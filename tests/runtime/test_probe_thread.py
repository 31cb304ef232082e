"""Probes are answered where the loop cannot: by a thread that tells a late loop from one that hangs.

The test is the loop's thread here, and blocks.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sidecar.admin.probe_thread import HUNG_SECONDS, MAX_WAITING, ProbeThread, probe_path
from sidecar.core.snapshot import Address
from sidecar.transport.bind import bind
from tests.support.proxy import running

PATIENCE_SECONDS = 60.0


class Vitals:
    def __init__(self) -> None:
        self.is_started = True
        self.is_ready = True
        self.is_pressed = False
        self.age = 0.0
        self.told: list[str] = []

    @property
    def turned_at(self) -> float:
        return time.monotonic() - self.age

    def hung(self, seconds: float, stack: str) -> None:
        self.told.append(stack)


class Stage:
    def __init__(self) -> None:
        self.vitals = Vitals()
        self.handed: list[tuple[socket.socket, bytes]] = []
        self.has_handed = threading.Semaphore(0)
        self.bound = bind(Address("127.0.0.1", 0), "probes.address")
        self.is_in_time = False
        self.asked = threading.Semaphore(0)
        self.thread = ProbeThread(self.bound, self.vitals, self.on_loop, self.take)
        self.thread.start()

    def on_loop(self, act: Callable[..., None], *arguments: object) -> None:
        if act == self.take or self.is_in_time:
            act(*arguments)
        self.asked.release()

    def take(self, sock: socket.socket, data: bytes) -> None:
        self.handed.append((sock, data))
        self.has_handed.release()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.bound.getsockname(), timeout=PATIENCE_SECONDS)

    def ask(self, path: str) -> tuple[int, str]:
        with self.connect() as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = b""
            while piece := client.recv(4096):
                answer += piece
        return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2].decode()

    def close(self) -> None:
        self.thread.stop()
        self.bound.close()
        for sock, _ in self.handed:
            sock.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/livez?verbose"])
def test_a_probe_is_answered_while_the_loop_is_late(stage: Stage, path: str) -> None:
    assert stage.ask(path) == (200, "ok\n")
    assert stage.handed == []


def test_so_it_is_in_an_overload(stage: Stage) -> None:
    stage.vitals.is_pressed = True
    assert stage.ask("/livez") == (200, "ok\n")


def test_a_probe_tells_what_it_is_asked(stage: Stage) -> None:
    stage.vitals.is_ready = False
    stage.vitals.is_started = False
    assert stage.ask("/livez") == (200, "ok\n")
    assert stage.ask("/readyz") == (503, "draining or not started\n")
    assert stage.ask("/startupz") == (503, "not started\n")


def test_a_loop_that_turns_is_left_its_connections(stage: Stage) -> None:
    stage.is_in_time = True
    with stage.connect() as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(3):  # asked again each time that something still waits
            assert stage.asked.acquire(timeout=PATIENCE_SECONDS)
        taken, _ = stage.bound.accept()
        taken.close()
    assert stage.handed == []


def test_a_loop_that_hangs_is_not_alive_and_its_stack_is_told_once(stage: Stage) -> None:
    stage.vitals.age = HUNG_SECONDS - 2.0
    assert stage.ask("/livez")[0] == 200
    stage.vitals.age = HUNG_SECONDS + 1.0
    for path in ("/livez", "/readyz", "/livez"):
        status, text = stage.ask(path)
        assert status == 503
        assert text.startswith("the data loop has not turned for 11 s; it is in ")
    assert len(stage.vitals.told) == 1
    assert "test_a_loop_that_hangs_is_not_alive_and_its_stack_is_told_once" in stage.vitals.told[0]
    stage.vitals.age = 0.0
    assert stage.ask("/livez")[0] == 200
    stage.vitals.age = HUNG_SECONDS + 1.0
    assert stage.ask("/livez")[0] == 503
    assert len(stage.vitals.told) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez",
        b"GET /livez HTTP/1.1\r\nHo",
        b"x" * 10_000,
    ],
)
def test_everything_else_is_the_loops_with_all_that_was_read(stage: Stage, data: bytes) -> None:
    with stage.connect() as client:
        client.sendall(data)
        assert stage.has_handed.acquire(timeout=PATIENCE_SECONDS)
        sock, read = stage.handed[0]
        sock.setblocking(True)
        while len(read) < len(data):
            read += sock.recv(65536)
        assert read == data


def test_silent_connections_are_the_loops_however_many(stage: Stage) -> None:
    clients = [stage.connect() for _ in range(2 * MAX_WAITING)]
    for _ in clients:
        assert stage.has_handed.acquire(timeout=PATIENCE_SECONDS)
    assert [data for _, data in stage.handed] == [b""] * len(clients)
    assert stage.ask("/livez") == (200, "ok\n")
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b"GET /livez HTTP/1.0\r\n\r\n", b"/livez"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n", None),
        (b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (b"GET /livezz HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n", None),
        (b"\r\n\r\n", None),
    ],
)
def test_only_plain_probes_are_recognized(data: bytes, path: bytes | None) -> None:
    assert probe_path(data) == path


@pytest.mark.parametrize(("path", "is_by_loop"), [("/livez", False), ("/metrics", True)])
async def test_a_whole_sidecar_answers_while_its_loop_is_blocked(path: str, is_by_loop: bool) -> None:
    async with running("routes: []\n".replace("[]", '[{name: a, upstream: "http://127.0.0.1:9"}]')) as worker:
        port = worker.control.probes.server.port
        has_answer, has_sent = threading.Event(), threading.Event()
        answer: list[bytes] = []

        def ask() -> None:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as client:
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                has_sent.set()
                while piece := client.recv(65536):
                    answer.append(piece)
            has_answer.set()

        asking = threading.Thread(target=ask)
        asking.start()
        if is_by_loop:
            assert has_sent.wait(PATIENCE_SECONDS)  # the loop is blocked until then
        else:
            assert has_answer.wait(PATIENCE_SECONDS)  # the loop is blocked until it is there
        await asyncio.to_thread(asking.join)
        assert b"".join(answer).startswith(b"HTTP/1.1 200 ")
