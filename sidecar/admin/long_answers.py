"""Answers about everything, which with a thousand routes are megabytes: one is made at a time, few are kept.

Made side by side, each piece of each would come between two turns of the loop, and requests would wait for all of
them; and each is whole in memory until its client has taken it, however slowly it reads. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from sidecar.admin.answers import Refused, problem
from sidecar.serving.message import ClientGone, Handler, Request, Response

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

        async def wrapped(request: Request) -> Response | None:
            if self._under_way >= self._at_once:
                detail = f"{self._at_once} long answers are under way already"
                return problem(Refused(503, detail, headers={"Retry-After": "1"}))
            self._under_way += 1
            try:
                async with self._making:
                    if request.client.is_closed:  # it has left while it waited
                        return None
                    response = await handler(request)
                if response is not None:
                    await _send(request, response)
                return None
            finally:
                self._under_way -= 1

        return wrapped


async def _send(request: Request, response: Response) -> None:
    try:
        async with asyncio.timeout(TAKE_SECONDS):
            with contextlib.suppress(ClientGone):
                await request.client.send(response)
    except TimeoutError:
        request.client.abort()
