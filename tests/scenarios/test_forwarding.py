"""A request goes through, and what comes back is what the upstream said."""

import asyncio

from tests.support.proxy import port, running
from tests.support.upstream import Peer, answering, field_of, scripted

ROUTES = """\
upstreams: {{app: {{endpoints: ["127.0.0.1:{port}"]}}}}
routes: [{{name: app, upstream: app}}]
"""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def exchange(to: int, request: bytes) -> bytes:
    """Send `request`, which asks for a close, and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", to)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def test_an_answer_is_relayed_with_its_body():
    heads: list[bytes] = []
    async with scripted(answering(OK, heads)) as app, running(ROUTES.format(port=app.port)) as worker:
        answer = await exchange(port(worker), b"GET /a?b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: ")
    assert b" GMT\r\nVia: 1.1 sidecar\r\nx-request-id: " in answer
    assert answer.endswith(b"\r\nConnection: close\r\n\r\nok")
    assert heads[0].startswith(b"GET /a?b HTTP/1.1\r\nHost: x\r\n")
    assert field_of(heads[0], b"connection") is None


async def test_a_deadline_cuts_a_slow_upstream_and_closes_its_connection():
    async def hang(peer: Peer) -> None:
        await peer.head()
        await peer.closed()
        closed.set_result(asyncio.get_running_loop().time())

    loop = asyncio.get_running_loop()
    closed: asyncio.Future[float] = loop.create_future()
    async with scripted(hang) as app, running(ROUTES.format(port=app.port)) as worker:
        started = loop.time()
        request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nx-request-timeout-ms: 300\r\n\r\n"
        answer = await exchange(port(worker), request)
        assert 0.29 <= loop.time() - started <= 0.3
        assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
        assert await closed - started <= 0.3
