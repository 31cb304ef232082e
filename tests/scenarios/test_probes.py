"""The probes' listener may be reached by everybody, so it only ever answers."""

import pytest

from tests.scenarios.stage import stage
from tests.support.ports import free_ports
from tests.support.proxy import HEADER
from tests.support.raw import raw_client


async def status_of(port: int, method: str, path: str) -> int:
    async with raw_client(port) as client:
        await client.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        await client.read_to_end()
        (response,) = await client.responses([method.encode()])
    return response.status


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/metrics"])
async def test_no_method_but_reading_is_taken(path: str) -> None:
    (port,) = free_ports(1)
    header = HEADER.replace('probes: {address: "127.0.0.1:0"}', f'probes: {{address: "127.0.0.1:{port}"}}')
    async with stage(header=header) as to:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert await status_of(port, method, path) == 405
        assert await status_of(port, "GET", path) == 200
        assert to.worker.datapath.is_ready


@pytest.mark.parametrize(
    "head", [b"GET /livez HTTP/1.1\r\nHost: x", b"GET /no HTTP/1.1\r\nHost: x", b"no HTTP", b"GET / HTTP/9.9"]
)
async def test_nobody_is_told_which_server_answers(head: bytes) -> None:
    (port,) = free_ports(1)
    header = HEADER.replace('probes: {address: "127.0.0.1:0"}', f'probes: {{address: "127.0.0.1:{port}"}}')
    async with stage(header=header), raw_client(port) as client:
        await client.send(head + b"\r\nConnection: close\r\n\r\n")
        await client.read_to_end()
    assert b"\r\nServer: sidecar\r\n" in client.received
    assert b"aiohttp" not in client.received
    assert b"Python" not in client.received


@pytest.mark.parametrize("path", ["/drain", "/quitquitquit", "/reload", "/breakers/app/open", "/config", "/"])
async def test_nothing_of_the_admin_api_is_there(path: str) -> None:
    (port,) = free_ports(1)
    header = HEADER.replace('probes: {address: "127.0.0.1:0"}', f'probes: {{address: "127.0.0.1:{port}"}}')
    async with stage(header=header) as to:
        for method in ("GET", "POST"):
            assert await status_of(port, method, path) == 404
        assert to.worker.datapath.is_ready
