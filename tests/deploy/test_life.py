"""A pod's life without a cluster: real processes in the order of the kubelet, with the files of deploy/."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sidecar.kubernetes.settings import Mode
from tests.deploy.kubelet import Pod
from tests.support.ports import free_ports

DEPLOY = Path(__file__).parents[2] / "deploy"
REQUESTS_PER_SECOND = 500
PROPAGATION_SECONDS = 0.3
"""Until every client has heard that a pod is no endpoint any more."""
PRE_STOP_SECONDS = 1.0
pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


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
    """Clients with kept connections, choosing among the endpoints; open loop, so that a pause shows."""

    def __init__(self) -> None:
        self.endpoints: list[int] = []
        self.failures: list[str] = []
        self.answered = 0
        self.is_over = False
        self.slowest = 0.0

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=10)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as tasks,
        ):
            begun, sent = time.monotonic(), 0
            while not self.is_over:
                due = int((time.monotonic() - begun) * REQUESTS_PER_SECOND)
                for _ in range(sent, due):
                    tasks.create_task(self._one(session, random.choice(self.endpoints)))
                sent = max(sent, due)
                await asyncio.sleep(0.005)

    async def _one(self, session: aiohttp.ClientSession, port: int) -> None:
        begun = time.monotonic()
        try:
            async with session.get(f"http://127.0.0.1:{port}/") as answer:
                text = await answer.text()
                if (answer.status, text) != (200, "ok"):
                    self.failures.append(f"{answer.status} {answer.headers.get('Proxy-Status')}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.failures.append(repr(error))
        self.answered += 1
        self.slowest = max(self.slowest, time.monotonic() - begun)


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
async def test_a_rolling_update_under_load_loses_no_request(
    tmp_path: Path, session: aiohttp.ClientSession, pods: list[Pod], mode: Mode
) -> None:
    """An ordinary container's SIGTERM is held back for half of the grace period: until the app has gone."""
    config = configuration(tmp_path, "base", payments="127.0.0.1:9")
    pods += [Pod(config, ["serve"], session, mode=mode, grace_seconds=4) for _ in range(6)]
    old, new = pods[:3], pods[3:]
    for pod in old:
        await pod.start()
        await pod.ready()
    load = Load()
    load.endpoints = [pod.inbound for pod in old]
    running = asyncio.create_task(load.run())
    begun = time.monotonic()
    await asyncio.sleep(1)
    ends = []
    for leaving, coming in zip(old, new, strict=True):  # maxSurge 1, maxUnavailable 0
        await coming.start()
        await coming.ready()
        load.endpoints = [*load.endpoints, coming.inbound]
        ends.append(asyncio.create_task(leaving.end(PRE_STOP_SECONDS)))
        await asyncio.sleep(PROPAGATION_SECONDS)
        load.endpoints = [port for port in load.endpoints if port != leaving.inbound]
        await ends[-1]
    load.is_over = True
    await running
    seconds = time.monotonic() - begun
    print(f"{load.answered} requests in {seconds:.1f} s, slowest {load.slowest * 1000:.0f} ms")
    assert load.failures == []
    assert load.answered >= 0.9 * REQUESTS_PER_SECOND * seconds
    assert [await end for end in ends] == [(0, 0)] * 3


async def test_a_job_ends_with_its_app(
    tmp_path: Path, session: aiohttp.ClientSession, pods: list[Pod]
) -> None:
    async with upstream() as port:
        config = configuration(tmp_path, "job", orders=f"127.0.0.1:{port}")
        pods.append(Pod(config, ["report", "http://orders/report"], session))
        await pods[0].start()
        assert pods[0].app is not None
        assert await pods[0].app.wait() == 0
    begun = time.monotonic()
    assert await pods[0].end_sidecar() == 0
    assert time.monotonic() - begun < 5


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
        begun = time.monotonic()
        assert await pods[0].sidecar.wait() == 0
        assert time.monotonic() - begun < 5


async def test_a_killed_sidecar_is_back_within_a_second_with_a_fresh_breaker(
    tmp_path: Path, session: aiohttp.ClientSession, pods: list[Pod]
) -> None:
    (refused,) = free_ports(1)
    config = configuration(tmp_path, "base", payments=f"127.0.0.1:{refused}")
    pods.append(Pod(config, ["serve"], session))
    pod = pods[0]
    await pod.start()
    await pod.ready()
    assert await _breaker_state(pod) == "closed"
    for _ in range(6):
        await _ask_payments(pod, session)
    assert await _breaker_state(pod) == "open"
    away: list[float] = []
    while not away or (
        min(away) >= 1.0 and len(away) < 10
    ):  # what else runs on the machine only ever adds to it
        await pod.logged("every breaker begins afresh", times=len(away) + 1)
        away.append(await _killed(pod, session))
    await pod.logged("every breaker begins afresh", times=len(away) + 1)
    print("calls failed for", *(f"{seconds * 1000:.0f} ms" for seconds in away))
    assert pod.sidecar_restarts == len(away)
    assert min(away) < 1.0
    assert await _breaker_state(pod) == "closed"
    assert pod.app is not None
    assert pod.app.returncode is None


async def _killed(pod: Pod, session: aiohttp.ClientSession) -> float:
    """SIGKILL the sidecar; return how many seconds the app was out of reach."""
    assert pod.sidecar is not None
    killed = time.monotonic()
    pod.sidecar.send_signal(signal.SIGKILL)
    await pod.sidecar.wait()
    async with asyncio.timeout(20):
        while await _ask_app(pod, session) != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return time.monotonic() - killed


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
