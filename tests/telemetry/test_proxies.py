"""What the environment says of proxies must not lead our own exports through our own listener."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from sidecar.core.numbers import Numbers
from sidecar.core.sources import Sources
from sidecar.telemetry.export import make_sink
from sidecar.telemetry.proxies import VARIABLES, proxies_here
from sidecar.telemetry.room import TelemetryRoom
from sidecar.telemetry.settings import Export
from tests.telemetry.conftest import Collector
from tests.telemetry.fakes import FakeExchange


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ("http://127.0.0.1:15001", "127.0.0.1:15001"),
        ("http://user:secret@localhost:15001/", "localhost:15001"),
        ("localhost:15001", "localhost:15001"),
        ("http://[::1]:15001", "::1:15001"),
        ("http://0.0.0.0:15001", "0.0.0.0:15001"),
        ("http://127.3.2.1", "127.3.2.1"),
        (f"http://{socket.gethostname()}:1", f"{socket.gethostname().lower()}:1"),
        ("http://proxy.corp.example:3128", None),
        ("http://192.0.2.1:3128", None),
        ("http://[2001:db8::1]:3128", None),
        ("http://[", None),
        ("http://127.0.0.1:port", None),
        ("  ", None),
    ],
)
def test_a_proxy_on_this_host_is_known_by_its_address(value: str, where: str | None) -> None:
    expected = {} if where is None else {"http_proxy": where}
    assert proxies_here({"http_proxy": value}) == expected


def test_each_variable_that_an_exporter_reads_is_looked_at() -> None:
    names = [*VARIABLES, *(name.upper() for name in VARIABLES)]
    assert list(proxies_here(dict.fromkeys(names, "localhost:1"))) == names
    assert proxies_here({"no_proxy": "localhost:1"}) == {}


class Listener:
    """In the place of the sidecar's own; counts who comes and tells nobody anything."""

    def __init__(self) -> None:
        self.came = 0

    async def __aenter__(self) -> Listener:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _take(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        writer.close()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_exports_do_not_go_through_a_proxy_on_this_host(
    tap: Any, collector: Collector, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60000")
    async with Listener() as own:
        for name in VARIABLES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{own.port}")
        reader, writer = os.pipe()
        room = TelemetryRoom(
            collector.telemetry(protocol), Numbers(), Sources, environ=os.environ, log_fd=writer
        )
        wanted = asyncio.ensure_future(tap.await_trace(lambda span: span.name == "GET checkout", timeout=100))
        room.start()
        try:
            room.observer.finished(FakeExchange())
            await wanted
        finally:
            await asyncio.to_thread(room.stop)
            os.close(writer)
        assert own.came == 0
    with os.fdopen(reader, "rb") as lines:
        log = lines.read().decode()
    assert f"http_proxy names a proxy on this host (127.0.0.1:{own.port})" in log


async def test_without_that_the_exporter_would_go_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above would find."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with Listener() as own:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{own.port}")
        sink = make_sink(
            "traces", Export("http/protobuf", "http://192.0.2.1:4318/v1/traces", None, "none", 1.0)
        )
        assert await asyncio.to_thread(sink.send, b"") is None
        assert own.came > 0


def test_a_direct_exporter_trusts_the_authorities_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
    sink = make_sink(
        "traces", Export("http/protobuf", "https://127.0.0.1:1/v1/traces", None, "none", 1.0), is_direct=True
    )
    session = sink._client._transport._session  # type: ignore[attr-defined]
    with pytest.raises(OSError, match=r"/no/such/bundle\.pem"):
        session.post("https://127.0.0.1:1/")
