"""A process that may open few files serves what it can, says what it cannot, and blames no upstream for it."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sidecar.downstream.accept_queues import RETRY_SECONDS
from tests.process.setting import written
from tests.support.process import Running, http_get, sidecar
from tests.support.raw import RawClient, RawPeer, Response, raw_client, raw_upstream

pytestmark = pytest.mark.process

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLIENTS = 400
RELOADED = '"kind":"config.reload'
"""How a line of the log about a reload begins, whatever came of it."""
LIMITED = """\
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from sidecar.__main__ import main
sys.exit(main(["run", sys.argv[1]]))
"""


@pytest.fixture(autouse=True)
def _enough_files_for_the_test() -> None:
    """The test's own process holds both far ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CLIENTS
    if soft < wanted:
        assert hard >= wanted, f"raise the hard limit of open files to {wanted} (`ulimit -Hn`)"
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@dataclass
class Limited:
    """A sidecar process with few files, in front of an app that answers when it may."""

    process: Running
    port: int
    admin: int
    file: Path
    may_answer: asyncio.Event
    asked: list[int] = field(default_factory=list)
    """One for each request that the app was sent."""
    silent: int = 0
    """Clients whom this busy machine kept from saying anything for so long that another one may have their place."""

    def kinds(self, answers: list[Response | str]) -> Counter[str]:
        """How many clients got what; who was silent may have been cut."""
        kinds = Counter(kind(answer) for answer in answers)
        kinds.subtract(reset=min(kinds["reset"], self.silent))
        return +kinds

    async def told(self, path: str) -> Any:
        """What the admin API says, which must answer."""
        async with raw_client(self.admin) as client:
            await client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            await client.read_to_end()
            (answer,) = await client.responses([b"GET"])
        assert answer.status == 200, path
        return json.loads(answer.body)

    async def breaker(self) -> str:
        (breaker,) = (await self.told("/breakers/app"))["breakers"]
        return str(breaker["state"])


@asynccontextmanager
async def limited(folder: Path, soft: int, hard: int) -> AsyncIterator[Limited]:
    may_answer = asyncio.Event()
    asked: list[int] = []

    async def slow(peer: RawPeer) -> None:
        while await peer.request() is not None:
            asked.append(peer.number)
            await may_answer.wait()
            await peer.send(OK)

    async with raw_upstream(slow) as app:
        file, inbound, probes = written(folder, app.port, route="timeouts: {request: 5m}")
        admin = int(file.read_text().split('admin: {address: "127.0.0.1:')[1].split('"')[0])
        command = ("-c", LIMITED.format(soft=soft, hard=hard))
        async with sidecar(file, probes, folder / "sidecar.log", command) as process:
            yield Limited(process, inbound, admin, file, may_answer, asked)
        assert app.problems == []


async def connected(stack: AsyncExitStack, to: Limited, data: bytes) -> RawClient | None:
    """A client that has sent `data`; None if it was not even let in."""
    began = time.monotonic()
    try:
        client = await stack.enter_async_context(raw_client(to.port))
        client.writer.write(data)
        to.silent += time.monotonic() - began > RETRY_SECONDS / 2
    except ConnectionError:
        return None
    return client


async def answer_of(client: RawClient | None) -> Response | str:
    """The answer, or what came instead."""
    if client is None:
        return "not let in"
    answers = await client.responses([b"GET"])
    if not answers:
        return "reset" if client.is_reset else "closed"
    return answers[0]


def kind(answer: Response | str) -> str:
    """What a client got, in a word: `ok`, `overloaded` as it should be told, or whatever else it was."""
    if isinstance(answer, str):
        return answer
    if answer.status == 200 and answer.body == b"ok":
        return "ok"
    is_told = (
        answer.status == 503
        and (answer.value(b"proxy-status") or b"").startswith(b"sidecar; error=connection_limit_reached; ")
        and answer.value(b"retry-after") == b"1"
        and b'"urn:sidecar:problem:overloaded"' in answer.body
    )
    return "overloaded" if is_told else f"{answer.status} {answer.value(b'proxy-status')!r}"


async def settled(to: Limited, waiting: list[asyncio.Task[Response | str]]) -> None:
    """Wait until some were answered or are with the app, and nothing more happens: what is left waits outside."""
    before = (-1, -1)
    while (now := (len(to.asked), sum(task.done() for task in waiting))) != before or now == (0, 0):
        before = now
        for _ in range(5):  # probes are asked meanwhile, each a turn of both processes
            assert (await to.process.get("/livez"))[0] == 200


async def test_slow_requests_beyond_the_limit_are_served_or_told_and_break_nothing(tmp_path: Path) -> None:
    async with limited(tmp_path, 256, 256) as to, AsyncExitStack() as stack:
        clients = [await connected(stack, to, GET) for _ in range(CLIENTS)]
        waiting = [asyncio.create_task(answer_of(client)) for client in clients]
        await settled(to, waiting)
        assert len(to.asked) >= 20, "some must be served"
        async with asyncio.timeout(10):
            while len(left := [task for task in waiting if not task.done()]) > len(to.asked):
                await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)  # nobody waits in the kernel
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await to.process.get(path))[0] == 200
        for path in ("/upstreams", "/breakers", "/config"):
            await to.told(path)
        assert await to.breaker() == "closed"

        to.may_answer.set()
        async with asyncio.timeout(40):
            kinds = to.kinds(await asyncio.gather(*waiting))
        assert kinds.keys() <= {"ok", "overloaded"}, kinds
        assert kinds["ok"] >= len(set(to.asked)) > 0
        assert await to.breaker() == "closed"
        await stack.aclose()
        assert await http_get(to.port, "/") == (200, "ok")
        log = to.process.log.read_text()
        assert RELOADED not in log
        assert "Traceback" not in log


async def test_idle_connections_beyond_the_limit_keep_nobody_out_for_good(tmp_path: Path) -> None:
    async with limited(tmp_path, 256, 256) as to, AsyncExitStack() as stack:
        to.may_answer.set()
        idle = [await connected(stack, to, b"") for _ in range(CLIENTS)]
        for path in ("/livez", "/readyz"):
            assert (await to.process.get(path))[0] == 200
        await to.told("/upstreams")
        busy = [await connected(stack, to, GET) for _ in range(20)]
        waiting = [asyncio.create_task(answer_of(client)) for client in busy]
        assert (await to.process.get("/livez"))[0] == 200
        for client in idle:
            if client is not None:
                client.writer.close()
        async with asyncio.timeout(40):
            kinds = to.kinds(await asyncio.gather(*waiting))
        assert kinds.keys() <= {"ok", "overloaded"}, kinds
        assert await to.breaker() == "closed"
        assert await http_get(to.port, "/") == (200, "ok")
        assert RELOADED not in to.process.log.read_text()


async def test_a_reload_is_possible_while_files_are_short(tmp_path: Path) -> None:
    async with limited(tmp_path, 256, 256) as to, AsyncExitStack() as stack:
        clients = [await connected(stack, to, GET) for _ in range(CLIENTS)]
        waiting = [asyncio.create_task(answer_of(client)) for client in clients]
        await settled(to, waiting)
        to.file.write_text(to.file.read_text().replace("{request: 5m}", "{request: 4m}"))
        async with asyncio.timeout(100):
            await to.process.logged(RELOADED)
        assert "4m" in json.dumps(await to.told("/config"))
        to.may_answer.set()
        async with asyncio.timeout(40):
            kinds = to.kinds(await asyncio.gather(*waiting))
        assert kinds.keys() <= {"ok", "overloaded"}, kinds


async def test_the_soft_limit_is_raised_to_the_hard_one_at_the_start(tmp_path: Path) -> None:
    async with limited(tmp_path, 256, 2048) as to, AsyncExitStack() as stack:
        assert resource.prlimit(to.process.process.pid, resource.RLIMIT_NOFILE) == (2048, 2048)
        clients = [await connected(stack, to, GET) for _ in range(CLIENTS)]
        waiting = [asyncio.create_task(answer_of(client)) for client in clients]
        await settled(to, waiting)
        to.may_answer.set()
        async with asyncio.timeout(40):
            kinds = to.kinds(await asyncio.gather(*waiting))
        assert kinds.keys() <= {"ok", "overloaded"}, "a busy machine may refuse some of so many at once"
        assert kinds["ok"] > 256, "each of these has a file, and so has what it was sent on by"
