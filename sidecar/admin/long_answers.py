"""Answers about everything, which with a thousand routes are megabytes: one is made at a time, few are kept.

Made side by side, each piece of each would come between two turns of the loop, and requests would wait for all of
them; and each is whole in memory until its client has taken it, however slowly it reads. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from aiohttp import web

from sidecar.admin.answers import Refused, problem
from sidecar.serving.http import Handler

TAKE_SECONDS: Final = 30.0
"""A client that has not taken its answer by then is cut."""


class LongAnswers:
    """Wraps the handlers of one server that make such answers."""

    def __init__(self, at_once: int) -> None:
        """`at_once`: answers that are waited for, made or being taken; one more is refused."""
        self._at_once = at_once
        self._under_way = 0
        self._making = asyncio.Lock()

    def wrap(self, handler: Handler) -> Handler:
        """The same handler, or a refusal where there are too many; its answer is sent when it returns."""

        async def wrapped(request: web.Request) -> web.StreamResponse:
            if self._under_way >= self._at_once:
                detail = f"{self._at_once} long answers are under way already"
                return problem(Refused(503, detail, headers={"Retry-After": "1"}))
            self._under_way += 1
            try:
                async with self._making:
                    if request.transport is None:  # it has left while it waited
                        return web.Response()
                    response = await handler(request)
                await _send(request, response)
                return response
            finally:
                self._under_way -= 1

        return wrapped


async def _send(request: web.Request, response: web.StreamResponse) -> None:
    try:
        async with asyncio.timeout(TAKE_SECONDS):
            with contextlib.suppress(ConnectionError):
                await response.prepare(request)
                await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
