"""A container's own probe, made in the kubelet's place: what the app says is what the kubelet hears."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from sidecar.upstream.app_probe import AppProbe, NotWell, ask, read
from tests.support.raw import RawPeer, Script, raw_upstream


def saying(status: bytes) -> Script:
    async def script(peer: RawPeer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)

    return script


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"httpGet": {"port": 80}}, AppProbe(80, path="/")),
        (
            {
                "httpGet": {
                    "port": 443, "path": "healthz?a=1", "scheme": "https", "host": "10.0.0.9",
                    "httpHeaders": [{"name": "X-A", "value": "b"}],
                },
                "timeoutSeconds": 3,
            },
            AppProbe(443, "10.0.0.9", "/healthz?a=1", True, (("X-A", "b"),), None, 3.0),
        ),
        ({"tcpSocket": {"port": 5432}}, AppProbe(5432)),
        ({"grpc": {"port": 50051, "service": "pkg.A"}}, AppProbe(50051, service="pkg.A")),
        ({"grpc": {"port": 50051}}, AppProbe(50051, service="")),
    ],
)  # fmt: skip
def test_kubernetes_own_words_are_read(written: dict[str, Any], expected: AppProbe) -> None:
    assert read(json.dumps({"app/liveness": written})) == {"app/liveness": expected}
    assert read("") == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ('{"app": {"tcpSocket": {"port": 1}}}', "is no probe"),
        ('{"app/health": {"tcpSocket": {"port": 1}}}', "is no probe"),
        ('{"app/liveness": {"exec": {}}}', "needs httpGet, tcpSocket or grpc"),
        ('{"app/liveness": {"httpGet": {"port": "http"}}}', "port 'http'"),
        ('{"app/liveness": {"httpGet": {"port": 0}}}', "port 0"),
        ('{"app/liveness": {"httpGet": {"port": 80, "path": "/\\r\\nX: y"}}}', "cannot be printed"),
        ('{"app/liveness": {"grpc": {"port": 80, "service": "%s"}}}' % ("a" * 128), "more than 127 bytes"),
    ],
)
def test_what_the_injection_does_not_write_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(text)


@pytest.mark.parametrize("status", [b"200 OK", b"204 No", b"302 Found", b"399 Fine"])
async def test_an_http_app_that_is_well_passes(status: bytes) -> None:
    async with raw_upstream(saying(status)) as app:
        await ask(AppProbe(app.port, path="/healthz", headers=(("Host", "x"), ("X-A", "b"))), "127.0.0.1")
        first, *lines = app.received.split(b"\r\n")
        assert first == b"GET /healthz HTTP/1.1"
        assert {b"Host: x", b"X-A: b"} < set(lines)
        assert sum(line.lower().startswith(b"host:") for line in lines) == 1
        assert any(line.startswith(b"User-Agent: kube-probe/") for line in lines)


@pytest.mark.parametrize("status", [b"400 No", b"404 No", b"500 No", b"503 No"])
async def test_an_http_app_that_is_not_well_does_not_pass(status: bytes) -> None:
    async with raw_upstream(saying(status)) as app:
        with pytest.raises(NotWell, match=f"status {status[:3].decode()}"):
            await ask(AppProbe(app.port, path="/"), "127.0.0.1")


@pytest.mark.parametrize("probe", [{"path": "/"}, {"service": ""}, {}], ids=["http", "grpc", "tcp"])
async def test_where_nobody_listens_nothing_passes(probe: dict[str, str]) -> None:
    async with raw_upstream() as gone:
        port = gone.port
    with pytest.raises(NotWell):
        await ask(AppProbe(port, **probe), "127.0.0.1")  # type: ignore[arg-type]


async def test_who_listens_passes_a_probe_of_its_port() -> None:
    async with raw_upstream() as app:
        await ask(AppProbe(app.port), "127.0.0.1")


@pytest.mark.parametrize("probe", [{"path": "/"}, {"service": ""}], ids=["http", "grpc"])
async def test_no_answer_in_time_is_a_failure(probe: dict[str, str]) -> None:
    async def silent(peer: RawPeer) -> None:
        while await peer.read_some():
            pass

    async with raw_upstream(silent) as app:
        with pytest.raises(NotWell, match=r"within 0\.2 s"):
            await ask(AppProbe(app.port, seconds=0.2, **probe), "127.0.0.1")  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"", b"HTTP/1.1 abc\r\n"])
async def test_what_is_no_http_does_not_pass(answer: bytes) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.head()
        await peer.send(answer)

    async with raw_upstream(script) as app:
        with pytest.raises(NotWell):
            await ask(AppProbe(app.port, path="/"), "127.0.0.1")


@contextmanager
def health(answer: bytes | None) -> Iterator[tuple[int, list[bytes]]]:
    """A gRPC server whose health is this message; None: it has no such service. With what it was asked."""
    asked: list[bytes] = []

    def check(request: bytes, context: grpc.ServicerContext) -> bytes:
        asked.append(request)
        assert answer is not None
        return answer

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> Any:
            if answer is None or details.method != "/grpc.health.v1.Health/Check":
                return None
            return grpc.unary_unary_rpc_method_handler(check)

    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port, asked
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize("answer", [b"\x08\x01", b"\x12\x01x\x08\x01"], ids=["plain", "with_more"])
async def test_a_grpc_app_that_serves_passes(answer: bytes) -> None:
    with health(answer) as (port, asked):
        await ask(AppProbe(port, service="", seconds=20.0), "127.0.0.1")
        await ask(AppProbe(port, service="pkg.A", seconds=20.0), "127.0.0.1")
        assert asked == [b"", b"\x0a\x05pkg.A"]


@pytest.mark.parametrize(
    ("answer", "says"), [(b"\x08\x02", "not SERVING"), (b"", "not SERVING"), (None, "grpc-status 12")]
)
async def test_a_grpc_app_that_does_not_serve_does_not_pass(answer: bytes | None, says: str) -> None:
    with health(answer) as (port, _), pytest.raises(NotWell, match=says):
        await ask(AppProbe(port, service="", seconds=20.0), "127.0.0.1")
