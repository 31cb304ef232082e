"""Answers about everything, which with a thousand routes are megabytes: one is made at a time, few are kept.

Made side by side, each piece of each would come between two turns of the loop, and requests would wait for all of
them; and each is whole in memory until its client has taken it, however slowly it reads. So whoever is slow makes
room for who asks next: a scraper takes its answer in milliseconds, and strangers that take none can neither fill the
memory nor keep it out. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from sidecar.admin.answers import Refused, problem
from sidecar.serving.message import Client, ClientGone, Handler, Request, Response

TAKE_SECONDS: Final = 30.0
"""A client that has not taken its answer by then is cut."""
SPARED_SECONDS: Final = 1.0
"""For so long it is not cut for another one's sake, nor as long as it takes `LEAST_BYTES_PER_SECOND`."""
LEAST_BYTES_PER_SECOND: Final = 1_048_576
MAX_HELD_BYTES: Final = 16_777_216
"""Of answers that are being taken while another one is made: about one of a thousand routes, or ten by gzip."""
_LOOK_SECONDS: Final = 0.25
"""Between two looks at who is slow."""


class LongAnswers:
    """Wraps the handlers of one server that make such answers."""

    def __init__(self, at_once: int) -> None:
        """`at_once`: answers that are waited for, made or being taken. Where there are so many, and none of them is
        taken slowly, one more is refused."""
        self._at_once = at_once
        self._wanted = 0
        """Answers that are waited for or made."""
        self._taking: dict[Client, tuple[float, int]] = {}
        """Who takes one: since when (the loop's clock), and its bytes."""
        self._has_taken = asyncio.Event()
        self._making = asyncio.Lock()

    def wrap(self, handler: Handler) -> Handler:
        """The same handler, or a refusal where there are too many; its answer is sent when it returns."""

        async def wrapped(request: Request) -> Response | None:
            if self._wanted + len(self._taking) >= self._at_once and not self._cut_slow():
                detail = f"{self._at_once} long answers are under way already"
                return problem(Refused(503, detail, headers={"Retry-After": "1"}))
            self._wanted += 1
            try:
                async with self._making:
                    await self._make_room()
                    if request.client.is_closed:  # it has left while it waited
                        return None
                    response = await handler(request)
            finally:
                self._wanted -= 1
            if response is not None:
                await self._send(request.client, response)
            return None

        return wrapped

    async def _make_room(self) -> None:
        while sum(size for _, size in self._taking.values()) > MAX_HELD_BYTES:
            if not self._cut_slow():
                self._has_taken.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._has_taken.wait()

    def _cut_slow(self) -> bool:
        """Cut one that is slow, if there is any, and return whether there was."""
        slow = next(filter(self._is_slow, self._taking), None)
        if slow is None:
            return False
        del self._taking[slow]
        slow.abort()
        return True

    def _is_slow(self, client: Client) -> bool:
        since, size = self._taking[client]
        seconds = asyncio.get_running_loop().time() - since
        return seconds >= SPARED_SECONDS and size - client.unsent_bytes < LEAST_BYTES_PER_SECOND * seconds

    async def _send(self, client: Client, response: Response) -> None:
        self._taking[client] = asyncio.get_running_loop().time(), len(response.body)
        try:
            async with asyncio.timeout(TAKE_SECONDS):
                with contextlib.suppress(ClientGone):
                    await client.send(response)
        except TimeoutError:
            client.abort()
        finally:
            self._taking.pop(client, None)
            self._has_taken.set()
