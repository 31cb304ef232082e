"""Endpoints that files list (`file:///…`): looked at four times a second, by whatever way a file is replaced.

A change is taken once it has stood for a moment, since a writer may be in the middle of it. Content that makes no
sense, or a file that is gone, leaves the last good list in use; the reason is told once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sidecar.config.endpoint_file import BadEndpointFile, read_endpoints
from sidecar.config.watch import POLL_SECONDS, SETTLE_SECONDS, Watch, warning_of_own_mount
from sidecar.runtime.lookout import Lookout
from sidecar.upstream.followers import Followed, Followers, OnChange, OnError


class EndpointFiles(Followers):
    """All that are watched."""

    def __init__(self, on_change: OnChange, on_error: OnError) -> None:
        super().__init__("file", self._watch_file, on_change, on_error)
        self._lookouts: dict[str, tuple[Lookout, int]] = {}
        """By directory, each with how many use it."""

    async def _watch_file(self, one: Followed) -> None:
        path = one.entry.host
        watch = Watch(path)
        loop = asyncio.get_running_loop()
        seen = await asyncio.to_thread(watch.look, loop.time())
        taken = seen if await self._take(one, path) else None
        with self._lookout(path) as lookout:
            await self._follow_file(one, watch, seen, taken, lookout)

    @contextmanager
    def _lookout(self, path: str) -> Iterator[Lookout]:
        """One for each directory: its files are hardly on file systems of which one hangs and another does not."""
        directory = os.path.dirname(path)
        lookout, users = self._lookouts.get(directory) or (Lookout(POLL_SECONDS), 0)
        self._lookouts[directory] = lookout, users + 1
        try:
            yield lookout
        finally:
            _, users = self._lookouts.pop(directory)
            if users > 1:
                self._lookouts[directory] = lookout, users - 1
            else:
                lookout.close()

    async def _follow_file(
        self, one: Followed, watch: Watch, seen: str | None, taken: str | None, lookout: Lookout
    ) -> None:
        path, loop = one.entry.host, asyncio.get_running_loop()
        while True:
            if seen == taken and taken is not None:
                await _news(lookout, watch.another(), taken)
            else:
                await asyncio.sleep(SETTLE_SECONDS)
            digest = await asyncio.to_thread(watch.look, loop.time())
            if digest == taken or digest != seen:
                seen = digest
            elif digest is not None and await self._take(one, path):
                # If the file was changed between look and reading, the next look shows another digest.
                taken = seen

    async def _take(self, one: Followed, path: str) -> bool:
        """Read it. False if there is no verdict on what it holds, for want of something of our own."""
        try:
            endpoints = await asyncio.to_thread(read_endpoints, path)
        except BadEndpointFile as error:
            self.failed(one, f"{error}{_hint(path)}")
            return not error.is_own_lack
        self.learned(one, endpoints)
        return True


async def _news(lookout: Lookout, watch: Watch, known: str) -> None:
    """Wait until the file is not as it was."""
    is_there = asyncio.Event()
    lookout.watch(watch, watch.look, known, is_there.set)
    try:
        await is_there.wait()
    finally:
        lookout.rest(watch)


def _hint(path: str) -> str:
    warning = warning_of_own_mount(path)
    return "" if warning is None else f" ({warning})"
