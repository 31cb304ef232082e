"""A real collector (rotel) that forwards to a receiver (oteltap), from which telemetry is read back."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sidecar.core.snapshot import AccessLog, LogFormat, Otlp, Telemetry
from tests.support.ports import free_ports, until_it_listens


class Collector:
    """One rotel process; may be killed and started again on the same ports."""

    def __init__(self, tap_port: int) -> None:
        self.grpc_port, self.http_port = free_ports(2)
        self._tap_port = tap_port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        import rotel

        agent = Path(rotel.__file__).parent / "rotel-agent"
        self._process = subprocess.Popen(
            [
                str(agent),
                "start",
                *("--otlp-grpc-endpoint", f"127.0.0.1:{self.grpc_port}"),
                *("--otlp-http-endpoint", f"127.0.0.1:{self.http_port}"),
                *("--exporters", "tap:otlp"),
                *("--batch-timeout", "100ms"),
            ],
            env={
                "ROTEL_EXPORTER_TAP_ENDPOINT": f"http://127.0.0.1:{self._tap_port}",
                "ROTEL_EXPORTER_TAP_PROTOCOL": "http",
                **{f"ROTEL_EXPORTERS_{name}": "tap" for name in ("TRACES", "METRICS", "LOGS")},
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until_it_listens(self._process, self.grpc_port)
        until_it_listens(self._process, self.http_port)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def telemetry(self, protocol: str, **fields: object) -> Telemetry:
        """A file's section that exports everything to this collector."""
        port = self.grpc_port if protocol == "grpc" else self.http_port
        values: dict[str, object] = {
            "service_name": "orders",
            "otlp": Otlp(f"http://127.0.0.1:{port}", protocol),
            "metrics_interval_seconds": 0.2,
            "access_log": AccessLog(LogFormat.OFF),
        }
        return Telemetry(**(values | fields))  # type: ignore[arg-type]


@pytest.fixture
async def tap() -> AsyncIterator[object]:
    oteltap = pytest.importorskip("oteltap", reason="the receiver `oteltap` (PyPI) is not installed")
    (port,) = free_ports(1)
    settings = oteltap.OtelTapHttpProtobufReceiverSettings(http_port=port, listen_on_all_interfaces=False)
    async with oteltap.OtelTapHttpProtobufReceiver(settings) as receiver:
        receiver.port = settings.http_port
        yield receiver


@pytest.fixture
async def collector(tap: object) -> AsyncIterator[Collector]:
    pytest.importorskip("rotel", reason="the collector `rotel` (PyPI) is not installed")
    async with inflating_relay(tap.port) as port:  # type: ignore[attr-defined]
        one = Collector(port)
        await asyncio.to_thread(one.start)
        yield one
        one.kill()


@contextlib.asynccontextmanager
async def inflating_relay(tap_port: int) -> AsyncIterator[int]:
    """rotel always compresses what it forwards by HTTP, and oteltap cannot read that: undo it between the two."""
    async with aiohttp.ClientSession() as session:

        async def forward(request: web.Request) -> web.Response:
            body = await request.read()  # aiohttp has inflated it
            headers = {"content-type": request.content_type}
            url = f"http://127.0.0.1:{tap_port}{request.path}"
            async with session.post(url, data=io.BytesIO(body), headers=headers) as answer:
                return web.Response(status=answer.status, body=await answer.read())

        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/{signal:.*}", forward)
        runner = web.AppRunner(app)
        await runner.setup()
        (port,) = free_ports(1)
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield port
        await runner.cleanup()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine that runs the tests may decide them."""
    for name in list(os.environ):
        if name.startswith("OTEL_") or name in ("POD_NAME", "POD_NAMESPACE", "POD_UID", "NODE_NAME"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
