"""Go's net/http on both sides of a sidecar: HTTP/1.1, HTTP/2 by preface and by ALPN, mutual TLS, and who leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.process.setting import Served, Way, served, several
from tests.support.certificates import Certificates
from tests.support.go_peer import GoServer, built, go, go_server, needs_go

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module"), needs_go]
BIG = 3_000_000


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return built(tmp_path_factory.mktemp("go"))


@pytest.fixture(scope="module")
def app(peer: str) -> Iterator[GoServer]:
    with go_server(peer) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def before(app: GoServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Served]]:
    """By the protocol in which the app is asked."""
    ways = {protocol: Way([app.port], upstream=f"protocol: {protocol}") for protocol in ("http1", "http2")}
    async with several(tmp_path_factory.mktemp("clear"), ways) as served:
        yield served


@pytest.mark.parametrize(("upstream", "behind"), [("http1", "HTTP/1.1"), ("http2", "HTTP/2.0")])
@pytest.mark.parametrize(("protocol", "seen"), [("h1", "HTTP/1.1"), ("h2c", "HTTP/2.0")])
async def test_in_clear_text(
    before: dict[str, Served], peer: str, protocol: str, seen: str, upstream: str, behind: str
) -> None:
    url = f"http://127.0.0.1:{before[upstream].port}/echo"
    told = await asyncio.to_thread(go, peer, "call", url, protocol, "200", "5000")
    assert told == {"good": 200, "failed": 0, "client": seen, "upstream": behind, "identity": ""}
    told = await asyncio.to_thread(go, peer, "call", url, protocol, "4", str(BIG))
    assert (told["good"], told["failed"]) == (4, 0), told


@pytest.mark.parametrize(("protocol", "upstream"), [("h1", "http2"), ("h2c", "http1")])
async def test_a_client_that_leaves_ends_the_call_below(
    before: dict[str, Served], app: GoServer, peer: str, protocol: str, upstream: str
) -> None:
    url = f"http://127.0.0.1:{before[upstream].port}/wait"
    assert await asyncio.to_thread(go, peer, "leave", url, protocol, "200") == {"left": True}
    assert app.heard() == {"event": "begun"}
    left = await asyncio.to_thread(app.heard)
    assert left["event"] == "left"


async def test_by_mutual_tls_on_both_sides(tmp_path: Path, peer: str) -> None:
    """The Go server sees the sidecar's certificate, the sidecar the Go client's."""
    made = Certificates(tmp_path)
    app, ours, client = (made.pair(name, f"{name}.test") for name in ("app", "ours", "client"))
    front = made.pair("front", "127.0.0.1")
    listener = (
        f'tls: {{certificate: {{chain: "{front.chain}", key: "{front.key}"}}, client_ca: "{made.ca}", '
        "client: require}"
    )
    upstream = (
        f'tls: {{ca: "{made.ca}", server_name: app.test, '
        f'certificate: {{chain: "{ours.chain}", key: "{ours.key}"}}}}, protocol: auto'
    )
    with go_server(peer, app.chain, app.key, made.ca) as server:
        async with served(
            tmp_path,
            server.port,
            upstream=upstream,
            listener=listener,
            route='match: {client: ["client.test"]}',
        ) as to:
            for protocol, seen in (("h1", "HTTP/1.1"), ("h2", "HTTP/2.0")):
                arguments = ["call", f"https://127.0.0.1:{to.port}/echo", protocol, "50", "20000"]
                told = await asyncio.to_thread(go, peer, *arguments, made.ca, client.chain, client.key)
                expected = {"client": seen, "upstream": "HTTP/2.0"}
                assert told == {"good": 50, "failed": 0, "identity": "ours.test", **expected}
                nobody = await asyncio.to_thread(go, peer, *arguments, made.ca)
                assert (nobody["good"], nobody["failed"]) == (0, 50), "no certificate, no answer"
