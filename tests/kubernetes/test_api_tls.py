"""The API server is asked by TLS, trusted by the CA beside the token alone, and never by a redirect."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from sidecar.kubernetes.api import ApiError, ApiServer, connected
from tests.support.authority import Authority
from tests.support.ports import free_ports


@asynccontextmanager
async def served(folder: Path, signed_by: Authority, seen: list[str]) -> AsyncIterator[ApiServer]:
    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        if request.path == "/away":
            raise web.HTTPFound(str(request.url.with_path("/here")))
        return web.json_response({"metadata": {}})

    pair = signed_by.pair(addresses=["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.chain, pair.key)
    app = web.Application()
    app.router.add_get("/{any:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    try:
        yield ApiServer(f"https://127.0.0.1:{port}", folder)
    finally:
        await runner.cleanup()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("secret-token\n")
    return tmp_path


async def test_its_certificate_is_checked_against_the_clusters_ca(folder: Path) -> None:
    authority, other = Authority(folder), Authority(folder, "other")
    seen: list[str] = []
    (folder / "ca.crt").write_bytes(authority.path.read_bytes())
    async with served(folder, authority, seen) as server, connected(server) as api:
        assert await api.page("/here", {}) == {"metadata": {}}
    assert seen == ["Bearer secret-token"]
    async with served(folder, other, seen) as server, connected(server) as api:
        with pytest.raises(ApiError, match="certificate verify failed") as caught:
            await api.page("/here", {})
    assert "secret" not in str(caught.value)
    assert len(seen) == 1


async def test_a_redirect_is_an_error_and_takes_no_token_anywhere(folder: Path) -> None:
    authority = Authority(folder)
    seen: list[str] = []
    (folder / "ca.crt").write_bytes(authority.path.read_bytes())
    async with served(folder, authority, seen) as server, connected(server) as api:
        with pytest.raises(ApiError, match="302") as caught:
            await api.page("/away", {})
    assert (caught.value.status, len(seen)) == (302, 1)


async def test_without_a_ca_or_a_token_nobody_is_asked(folder: Path) -> None:
    authority = Authority(folder)
    seen: list[str] = []
    async with served(folder, authority, seen) as server:
        with pytest.raises(ApiError, match=r"ca\.crt: cannot be used: "):
            async with connected(server):
                pass
        (folder / "ca.crt").write_bytes(authority.path.read_bytes())
        (folder / "token").unlink()
        async with connected(server) as api:
            with pytest.raises(ApiError, match="token: cannot be read: "):
                await api.page("/here", {})
    assert seen == []
