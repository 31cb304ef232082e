"""The admin API with a thousand routes, and with who asks for more than anybody needs."""

from __future__ import annotations

import asyncio
import difflib
import gzip
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from sidecar.admin import long_answers, prometheus
from sidecar.admin.long_answers import LEAST_BYTES_PER_SECOND, SPARED_SECONDS, TAKE_SECONDS, LongAnswers
from sidecar.admin.probes import MAX_SCRAPES
from sidecar.admin.request_facts import MAX_COMPARED, nearest
from sidecar.runtime.worker import Worker
from sidecar.serving.message import Request, Response
from tests.scenarios.operator import serving_by
from tests.scenarios.stage import app_routes
from tests.support.asked import Nobody, asked
from tests.support.proxy import running
from tests.support.raw import raw_client

NAMES = [f"checkout-{number:04d}-to-payments" for number in range(1000)]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("checkout-0123-to-payment", "checkout-0123-to-payments"),
        ("chekout-0123-to-payments", "checkout-0123-to-payments"),
        ("heckout-0999-to-payments", "checkout-0999-to-payments"),
        ("checkout-0123-to-paymentsx", "checkout-0123-to-payments"),
    ],
)
def test_among_a_thousand_names_the_nearest_is_found_with_a_few_comparisons(
    written: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []
    get_close_matches = difflib.get_close_matches

    def counted(word: str, words: list[str], n: int) -> list[str]:
        compared.append(len(words))
        return get_close_matches(word, words, n)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    assert nearest(written, NAMES) == f"; did you mean {meant!r}?"
    assert compared[0] <= MAX_COMPARED


def test_what_is_like_nothing_has_no_hint() -> None:
    assert nearest("zzz", NAMES) == ""
    assert nearest("", NAMES) == ""
    assert nearest("x", []) == ""


@asynccontextmanager
async def rendering(
    monkeypatch: pytest.MonkeyPatch, *, size: int = 1
) -> AsyncIterator[tuple[Worker, list[str]]]:
    """A sidecar whose metrics are three pieces of that many bytes, and a note of each: which answer, which piece."""
    notes: list[str] = []
    count = 0

    def render(*_: object, **__: object) -> Iterator[str]:
        nonlocal count
        count += 1
        own = count
        for piece in range(3):
            notes.append(f"{own}.{piece}")
            yield "#" * size

    monkeypatch.setattr(prometheus, "render", render)
    async with running(app_routes(9)) as worker:
        yield worker, notes


async def status_of(port: int, path: str, method: str = "GET", body: bytes = b"", lines: str = "") -> int:
    async with raw_client(port) as client:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}"
        await client.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await client.read_to_end()
    return int(client.received.split(b" ")[1])


async def test_long_answers_are_made_one_after_the_other_and_more_than_few_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with rendering(monkeypatch) as (worker, notes):
        port = worker.control.probes.server.port
        statuses = await asyncio.gather(*(status_of(port, "/metrics") for _ in range(MAX_SCRAPES + 20)))
        assert notes == sorted(notes, key=lambda note: int(note.partition(".")[0]))
        made = len(notes) // 3
        assert sorted(statuses) == [200] * made + [503] * (MAX_SCRAPES + 20 - made)
        assert made >= MAX_SCRAPES
        assert await status_of(port, "/livez") == 200
        assert await status_of(port, "/metrics") == 200


def deaf_scrapers(port: int, count: int) -> list[socket.socket]:
    """Clients that ask for metrics and read nothing."""
    deaf = [socket.socket() for _ in range(count)]
    for one in deaf:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the kernel's are no buffers of ours
        one.connect(("127.0.0.1", port))
        one.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    return deaf


async def test_who_takes_no_long_answer_keeps_nobody_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_answers, "MAX_HELD_BYTES", 1 << 40)
    async with rendering(monkeypatch, size=4 << 20) as (worker, notes):
        port = worker.control.probes.server.port
        deaf = deaf_scrapers(port, MAX_SCRAPES + 5)
        await asyncio.sleep(SPARED_SECONDS / 2)
        assert len(notes) == 3 * MAX_SCRAPES
        assert await status_of(port, "/metrics") == 503, "none of them has had its time"
        assert await status_of(port, "/livez") == 200
        await asyncio.sleep(SPARED_SECONDS)
        for _ in range(2 * MAX_SCRAPES):
            assert await status_of(port, "/metrics") == 200
        for one in deaf:
            one.close()


async def test_long_answers_that_nobody_takes_are_few_in_memory_and_are_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with rendering(monkeypatch, size=4 << 20) as (worker, notes):
        server = worker.control.probes.server
        deaf = deaf_scrapers(server.port, MAX_SCRAPES)
        await asyncio.sleep(SPARED_SECONDS / 2)
        assert len(notes) == 2 * 3, "two are beyond the limit already"
        await asyncio.sleep(MAX_SCRAPES * 3 * SPARED_SECONDS)
        assert len(notes) == MAX_SCRAPES * 3
        assert server.connection_count == 2
        await asyncio.sleep(TAKE_SECONDS)
        assert server.connection_count == 0, "nobody else has asked, and they are cut all the same"
        for one in deaf:
            one.close()


async def test_a_long_answer_waits_no_longer_than_until_the_one_before_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(long_answers, "MAX_HELD_BYTES", 0)
    async with rendering(monkeypatch, size=4 << 20) as (worker, _):
        port = worker.control.probes.server.port
        began = asyncio.get_running_loop().time()
        assert await asyncio.gather(*(status_of(port, "/metrics") for _ in range(4))) == [200] * 4
        assert asyncio.get_running_loop().time() - began < SPARED_SECONDS


class Steady(Nobody):
    """A client that takes so many bytes a second of an answer of 32 MiB."""

    def __init__(self, bytes_per_second: float) -> None:
        super().__init__()
        self._rate = bytes_per_second

    async def send(self, response: Response) -> None:
        self.unsent_bytes = len(response.body)
        while self.unsent_bytes > 0 and not self.is_closed:
            await asyncio.sleep(0.1)
            self.unsent_bytes -= int(self._rate * 0.1)


@pytest.mark.parametrize(("share", "is_cut"), [(1.5, False), (0.75, True)])
async def test_who_takes_a_long_answer_steadily_is_not_cut_for_the_next_one(
    share: float, is_cut: bool
) -> None:
    async def long_one(_: Request) -> Response:
        return Response(body=bytes(32 << 20))

    answers = LongAnswers(2).wrap(long_one)
    slow, next_one = Steady(share * LEAST_BYTES_PER_SECOND), Steady(1e9)
    first = asyncio.create_task(answers(asked("/", client=slow)))
    await asyncio.sleep(2 * SPARED_SECONDS)
    await answers(asked("/", client=next_one))
    assert (slow.is_closed, next_one.is_closed) == (is_cut, False)
    await first


async def test_a_body_is_left_as_it_came_and_never_blown_up() -> None:
    bomb, received = gzip.compress(bytes(1 << 20)), []

    async def keep(request: Request) -> Response:
        body = b""
        while piece := await request.client.read():
            body += piece
        received.append(body)
        return Response()

    async with serving_by(keep) as server:
        assert await status_of(server.port, "/", "POST", bomb, "Content-Encoding: gzip\r\n") == 200
    assert received == [bomb]
