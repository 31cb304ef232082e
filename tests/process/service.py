"""A service as anybody would write one: it knows nothing of sidecars, deadlines or cancellation.

    opentelemetry-instrument python service.py PORT [NEXT_URL]

It answers `/…?run=R&seconds=S` by asking the next service the same, or, being the last, by taking that long. What
it was sent, and whether it is still at it, is told at `/served?run=R`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import ClientSession, web

SESSION: web.AppKey[ClientSession] = web.AppKey("session", ClientSession)


@dataclass
class Served:
    """One request, kept beyond its end."""

    request: web.Request
    end: str = ""


SERVED: list[Served] = []


async def serve(request: web.Request) -> web.Response:
    this = Served(request)
    SERVED.append(this)
    try:
        answer = await work(request)
    except asyncio.CancelledError:
        this.end = "cancelled"
        raise
    this.end = f"answered {answer.status}"
    return answer


async def work(request: web.Request) -> web.Response:
    if len(sys.argv) < 3:
        await asyncio.sleep(float(request.query["seconds"]))
        return web.Response(text="done")
    async with request.app[SESSION].request(request.method, sys.argv[2] + request.path_qs) as answer:
        return web.Response(status=answer.status, text=await answer.text())


async def tell(request: web.Request) -> web.Response:
    return web.json_response(
        [
            {
                "headers": {name.lower(): value for name, value in one.request.headers.items()},
                "is_connected": one.request.transport is not None,
                "end": one.end,
            }
            for one in SERVED
            if one.request.query["run"] == request.query["run"]
        ]
    )


async def with_session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(trust_env=True) as session:  # http_proxy leads through the sidecar
        app[SESSION] = session
        yield


def main() -> None:
    app = web.Application()
    app.cleanup_ctx.append(with_session)
    app.router.add_get("/served", tell)
    app.router.add_route("*", "/{any}", serve)
    # aiohttp's default is to go on when the client has gone, as most frameworks do: the calls below have to end
    # by themselves. Only the last service, which makes no call, asks to be told.
    is_last = len(sys.argv) < 3
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), handler_cancellation=is_last, print=None)


main()
