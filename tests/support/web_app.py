"""An aiohttp application that answers on a free port of loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from tests.support.ports import free_ports


@asynccontextmanager
async def web_app(app: web.Application, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Its port. `host`: `0.0.0.0` for all of 127.0.0.0/8, which are a thousand endpoints."""
    runner = web.AppRunner(app)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, host, port).start()
    try:
        yield port
    finally:
        await runner.cleanup()
