"""A pod's life without a cluster: real processes in the order of the kubelet, with the files of deploy/."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sidecar.kubernetes.choices import Mode
from tests.deploy.kubelet import Pod
from tests.support.ports import free_ports

DEPLOY = Path(__file__).parents[2] / "deploy"
REPLICAS = 2
REQUESTS_PER_SECOND = 250
"""At most: on a busy machine there are fewer, and none is given up."""
CLIENTS = 25
ANSWERS_BETWEEN = 150
"""Between two steps of an update: six for each client."""
HANGING_SECONDS = 600
pytestmark = [pytest.mark.process, pytest.mark.timeout(HANGING_SECONDS)]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """The kubelet's own: a new connection for each probe."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, trust_env=False) as found:
        yield found


@pytest.fixture
async def pods() -> AsyncIterator[list[Pod]]:
    found: list[Pod] = []
    yield found
    for pod in found:
        await pod.kill()


def configuration(folder: Path, overlay: str, **changes: str) -> Path:
    """The overlay's own file, with the endpoints of the test."""
    text = (DEPLOY / overlay / "sidecar.yaml").read_text()
    for before, after in changes.items():
        assert f"{before}:80" in text
        text = text.replace(f"{before}:80", after)
    file = folder / f"{overlay}.yaml"
    file.write_text(text)
    return file


class Load:
    """Clients with kept connections, choosing among the endpoints; each asks again when it has its answer."""

    def __init__(self) -> None:
        self.endpoints: list[int] = []
        self.under_way: Counter[int] = Counter()
        """Requests that have chosen an endpoint, and have no answer yet."""
        self.failures: list[str] = []
        self.answered = 0
        self._has_answer = asyncio.Event()
        self.is_over = False

    async def run(self) -> None:
        """Until `is_over`."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=HANGING_SECONDS)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(CLIENTS):
                tasks.create_task(self._client(session))

    async def more(self, answers: int) -> None:
        """Wait until so many more have come."""
        wanted = self.answered + answers
        while self.answered < wanted:
            self._has_answer.clear()
            await self._has_answer.wait()

    async def none_under_way(self, port: int) -> None:
        """Wait until all have their answers that had chosen this endpoint."""
        while self.under_way[port]:
            self._has_answer.clear()
            await self._has_answer.wait()

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not self.is_over:
            await self._one(session, random.choice(self.endpoints))
            await asyncio.sleep(CLIENTS / REQUESTS_PER_SECOND)

    async def _one(self, session: aiohttp.ClientSession, port: int) -> None:
        self.under_way[port] += 1
        try:
            async with session.get(f"http://127.0.0.1:{port}/") as answer:
                text = await answer.text()
                if (answer.status, text) != (200, "ok"):
                    self.failures.append(f"{answer.status} {answer.headers.get('Proxy-Status')}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.failures.append(repr(error))
        self.answered += 1
        self.under_way[port] -= 1
        self._has_answer.set()


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
async def test_a_rolling_update_under_load_loses_no_request(
    tmp_path: Path, session: aiohttp.ClientSession, pods: list[Pod], mode: Mode
) -> None:
    """An ordinary container's SIGTERM is held back for half of the grace period: until the app has gone."""
    config = configuration(tmp_path, "base", payments="127.0.0.1:9")
    pods += [Pod(config, ["serve"], session, mode=mode, grace_seconds=4) for _ in range(2 * REPLICAS)]
    old, new = pods[:REPLICAS], pods[REPLICAS:]
    for pod in old:
        await pod.start()
        await pod.ready()
    load = Load()
    load.endpoints = [pod.inbound for pod in old]
    running = asyncio.create_task(load.run())
    await load.more(ANSWERS_BETWEEN)
    ends = []
    for leaving, coming in zip(old, new, strict=True):  # maxSurge 1, maxUnavailable 0
        await coming.start()
        await coming.ready()
        load.endpoints = [*load.endpoints, coming.inbound]
        has_been_told = asyncio.Event()
        ends.append(asyncio.create_task(leaving.end(has_been_told)))
        await load.more(ANSWERS_BETWEEN)  # some clients have not heard of it yet
        load.endpoints = [port for port in load.endpoints if port != leaving.inbound]
        await load.none_under_way(leaving.inbound)
        has_been_told.set()
        await ends[-1]
    load.is_over = True
    await running
    assert load.failures == []
    assert [await end for end in ends] == [(0, 0)] * REPLICAS


async def test_a_job_ends_with_its_app(
    tmp_path: Path, session: aiohttp.ClientSession, pods: list[Pod]
) -> None:
    async with upstream() as port:
        config = configuration(tmp_path, "job", orders=f"127.0.0.1:{port}")
        pods.append(Pod(config, ["report", "http://orders/report"], session))
        await pods[0].start()
        assert pods[0].app is not None
        assert await pods[0].app.wait() == 0
    assert await pods[0].end_sidecar() == 0


async def test_before_native_sidecars_a_job_ends_when_its_app_tells_the_sidecar(
    tmp_path: Path, session: aiohttp.ClientSession, pods: list[Pod]
) -> None:
    async with upstream() as port:
        config = configuration(tmp_path, "job", orders=f"127.0.0.1:{port}")
        arguments = ["report_and_quit", "http://orders/report"]
        pods.append(Pod(config, arguments, session, mode=Mode.CONTAINER, is_job=True))
        await pods[0].start()
        assert pods[0].app is not None
        assert pods[0].sidecar is not None
        assert await pods[0].app.wait() == 0
        assert await pods[0].sidecar.wait() == 0


async def test_a_killed_sidecar_is_back_with_a_fresh_breaker(
    tmp_path: Path, session: aiohttp.ClientSession, pods: list[Pod]
) -> None:
    (refused,) = free_ports(1)
    config = configuration(tmp_path, "base", payments=f"127.0.0.1:{refused}")
    # Else refusals before the upstream's first answer open nothing.
    limits = "timeouts: {request: 2s}\n"
    config.write_text(config.read_text().replace(limits, f"{limits}  circuit_breaker: {{warm_up: off}}\n"))
    pods.append(Pod(config, ["serve"], session))
    pod = pods[0]
    await pod.start()
    await pod.ready()
    assert await _breaker_state(pod) == "closed"
    for _ in range(6):
        await _ask_payments(pod, session)
    assert await _breaker_state(pod) == "open"
    await killed(pod, session)
    assert pod.sidecar_restarts == 1
    assert await _breaker_state(pod) == "closed"
    assert pod.app is not None
    assert pod.app.returncode is None


async def killed(pod: Pod, session: aiohttp.ClientSession) -> float:
    """SIGKILL a sidecar that serves; return how many seconds the app was out of reach."""
    await pod.logged("every breaker begins afresh", times=pod.sidecar_restarts + 1)
    assert pod.sidecar is not None
    at = time.monotonic()
    pod.sidecar.send_signal(signal.SIGKILL)
    await pod.sidecar.wait()
    while await _ask_app(pod, session) != 200:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    seconds = time.monotonic() - at
    await pod.logged("every breaker begins afresh", times=pod.sidecar_restarts + 1)
    return seconds


async def _ask_payments(pod: Pod, session: aiohttp.ClientSession) -> int:
    url = f"http://127.0.0.1:{pod.outbound}/"
    async with session.get(url, headers={"Host": "payments"}) as answer:
        return answer.status


async def _ask_app(pod: Pod, session: aiohttp.ClientSession) -> int | None:
    try:
        async with session.get(f"http://127.0.0.1:{pod.inbound}/") as answer:
            return answer.status
    except (aiohttp.ClientError, OSError):
        return None


async def _breaker_state(pod: Pod) -> str:
    """Of the route payments, as the metrics say it."""
    found = re.findall(
        r"^sidecar_circuit_breaker_state\{(.*)\} 1(?:\.0)?$", await pod.metrics(), re.MULTILINE
    )
    (labels,) = [item for item in found if 'sidecar_route="payments"' in item]
    match = re.search(r'sidecar_circuit_breaker_state="(\w+)"', labels)
    assert match is not None
    return match[1]


@asynccontextmanager
async def upstream() -> AsyncIterator[int]:
    """Answers everything with 200."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
