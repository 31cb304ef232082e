"""Each folder of deploy/examples: its own files, run as its page says, and what they promise."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web

from sidecar.__main__ import main
from tests.support.certificates import Certificates
from tests.support.grpc_service import NAME, grpc_service
from tests.support.ports import accepts, free_ports
from tests.support.process import sidecar
from tests.support.tls_server import tls_server
from tests.support.web_app import web_app

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
CONFIGURED = sorted(path.parent.name for path in EXAMPLES.glob("*/sidecar.yaml"))
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
BUDGET = {"x-request-timeout-ms": "30000", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
"""Longer than a busy machine takes."""
pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


@dataclass
class Example:
    """A sidecar that runs an example's configuration, and a client of it."""

    inbound: int
    outbound: int
    admin: int
    session: aiohttp.ClientSession

    async def get(self, path: str, **more: Any) -> tuple[int, str]:
        async with self.session.get(f"http://127.0.0.1:{self.inbound}{path}", **more) as answer:
            return answer.status, await answer.text()

    async def call(self, url: str) -> tuple[int, str]:
        """As the app calls others: by `http_proxy`."""
        async with self.session.get(url, proxy=f"http://127.0.0.1:{self.outbound}") as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def example(
    name: str, folder: Path, patch: pytest.MonkeyPatch, **variables: Any
) -> AsyncIterator[Example]:
    inbound, outbound, admin, probes = free_ports(4)
    ports = {"INBOUND_PORT": inbound, "OUTBOUND_PORT": outbound, "ADMIN_PORT": admin, "PROBES_PORT": probes}
    for key, value in {**ports, **variables}.items():
        patch.setenv(key, str(value))
    async with (
        sidecar(EXAMPLES / name / "sidecar.yaml", probes, folder / "log") as running,
        aiohttp.ClientSession(trust_env=False) as session,
    ):
        yield Example(inbound, outbound, admin, session)
        running.process.send_signal(signal.SIGINT)  # by which there is no `drain.delay`
        await running.ended()


@asynccontextmanager
async def app(name: str, port: int, *command: str, **variables: str) -> AsyncIterator[None]:
    """An example's own program, by `python -m COMMAND`, until the end of the block."""
    if importlib.util.find_spec(command[0]) is None:
        pytest.skip(f"PyPI's {command[0]} is not installed")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, "--port", str(port), cwd=EXAMPLES / name, env={**os.environ, **variables},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not await accepts(port):
            assert process.returncode is None
            await asyncio.sleep(0.02)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Payments:
    """Answers, fails or hangs; remembers what it was asked with."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[Any] = []
        self.app = web.Application()
        self.app.add_routes([web.get("/{path:.*}", self.answer)])

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.headers)
        return web.json_response({"balance": 7}, status=self.status)


def test_every_example_has_a_part_of_the_page_and_a_good_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (EXAMPLES / "README.md").read_text()
    for name in CONFIGURED:
        assert f"]({name}/sidecar.yaml)" in page
        assert main(["check", str(EXAMPLES / name / "sidecar.yaml")]) == 0, capsys.readouterr().err


async def test_fastapi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadline and trace go through the app, which says nothing of time; a dead payments is refused at once."""
    payments, (port,) = Payments(), free_ports(1)
    async with (
        web_app(payments.app) as payments_port,
        example("fastapi", tmp_path, monkeypatch, APP_PORT=port, PAYMENTS_PORT=payments_port) as running,
        app(
            "fastapi",
            port,
            "uvicorn",
            "app:app",
            http_proxy=f"http://127.0.0.1:{running.outbound}",
            no_proxy="",
        ),
    ):
        status, body = await running.get("/orders/7", headers=BUDGET)
        assert (status, json.loads(body)) == (200, {"order": 7, "account": {"balance": 7}})
        assert TRACE in payments.asked[0]["traceparent"]
        assert 0 < int(payments.asked[0]["x-envoy-expected-rq-timeout-ms"]) < 30_000 - 5
        payments.status = 503
        for _ in range(5):
            status, body = await running.get("/orders/7")
            assert (status, json.loads(body)["why"]) == (200, "payments says so")
        status, body = await running.get("/orders/7")
        assert (status, "destination_unavailable" in json.loads(body)["why"]) == (200, True), body
        assert len(payments.asked) == 6


async def test_flask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of its answers are failures; who reads does not notice, and who writes is told."""
    (port,) = free_ports(1)
    async with (
        example("flask", tmp_path, monkeypatch, APP_PORT=port) as running,
        app("flask", port, "flask", "--app", "app", "run"),
    ):
        assert {(await running.get("/items/pen"))[0] for _ in range(9)} == {200}
        async with running.session.post(f"http://127.0.0.1:{running.inbound}/items/pen") as answer:
            assert answer.status == 503


async def test_https_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain HTTP for the app, TLS to the API; while that is away there is the fallback, and the breaker opens."""
    certificates = Certificates(tmp_path)
    pair = certificates.pair("api", "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.chain, pair.key)
    with tls_server(context) as api:
        variables = {"WEATHER_HOST": "localhost", "WEATHER_PORT": api.port, "WEATHER_CA": certificates.ca}
        async with example("https-api", tmp_path, monkeypatch, **variables) as running:
            assert await running.call("http://weather/today") == (200, "ok")
            assert api.failed == []
            api.close()
            for _ in range(4):
                assert await running.call("http://weather/today") == (200, '{"forecast": "unknown"}')
            async with running.session.get(f"http://localhost:{running.admin}/breakers/weather") as answer:
                assert '"open"' in await answer.text()


async def test_grpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stock client, whose deadline reaches the server; failures by their status open the breaker."""
    with grpc_service() as service:
        async with example("grpc", tmp_path, monkeypatch, APP_PORT=service.port, SERVICE=NAME) as running:
            with grpc.insecure_channel(f"127.0.0.1:{running.inbound}") as channel:
                echo, fail = (channel.unary_unary(f"/{NAME}/{method}") for method in ("Echo", "Fail"))
                assert await asyncio.to_thread(echo, b"hello", timeout=30) == b"hello"
                for _ in range(6):
                    with pytest.raises(grpc.RpcError) as raised:
                        await asyncio.to_thread(fail, b"", timeout=30)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert Counter(service.calls) == {"Echo": 1, "Fail": 5}


async def test_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event comes when it is sent, and a WebSocket talks both ways."""
    go_on = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"data: one\n\n")
        await go_on.wait()
        await answer.write(b"data: two\n\n")
        return answer

    async def chat(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"you said {message.data}")
        return socket

    behind = web.Application()
    behind.add_routes([web.get("/events", events), web.get("/chat", chat)])
    async with (
        web_app(behind) as port,
        example("streams", tmp_path, monkeypatch, APP_PORT=port) as running,
        running.session.get(f"http://127.0.0.1:{running.inbound}/events") as answer,
        running.session.ws_connect(f"http://127.0.0.1:{running.inbound}/chat") as socket,
    ):
        assert await answer.content.readuntil(b"\n\n") == b"data: one\n\n"
        await socket.send_str("hello")
        assert (await socket.receive()).data == "you said hello"
        go_on.set()
        assert await answer.content.read() == b"data: two\n\n"


async def test_canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary that fails costs five answers, and then nobody; the stricter candidate would have cost two."""
    stable, canary = Payments(), Payments()
    canary.status = 500
    async with (
        web_app(stable.app) as stable_port,
        web_app(canary.app) as canary_port,
        example("canary", tmp_path, monkeypatch, STABLE_PORT=stable_port, CANARY_PORT=canary_port) as running,
    ):
        while len(canary.asked) < 5:
            await running.get("/")
        statuses = Counter([(await running.get("/"))[0] for _ in range(60)])
        assert (statuses, len(canary.asked)) == ({200: 60}, 5)
        async with running.session.get(f"http://localhost:{running.admin}/breakers/orders") as answer:
            text = await answer.text()
        assert "would_have_rejected" in text
