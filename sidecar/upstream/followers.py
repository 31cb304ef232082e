"""Entries of upstreams that somebody else lists, each followed by a task of its own for as long as it is watched.

What is common to a watched file and to Kubernetes: who watches, what is known, what is told. A list that cannot be
had never takes the last good one away. One crash ends `run`, which is the whole of the actor; a new `run` goes on
with what is known. Owned by the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import field

from sidecar.core.dataclass import dataclass
from sidecar.core.listing import MOST_ENDPOINTS, Listing, are_alike
from sidecar.core.snapshot import Endpoint

OnChange = Callable[[Endpoint, tuple[Endpoint, ...]], None]
OnError = Callable[[Endpoint, str | None], None]


@dataclass(slots=True, eq=False)
class Followed:
    """One entry."""

    entry: Endpoint
    by: str
    watchers: int = 0
    endpoints: tuple[Endpoint, ...] = ()
    error: str | None = None
    failures: int = 0
    changed_at: float | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Followers:
    """Follows entries. All methods are for the event loop's thread."""

    def __init__(
        self,
        by: str,
        follow: Callable[[Followed], Awaitable[None]],
        on_change: OnChange,
        on_error: OnError = lambda _, __: None,
    ) -> None:
        """
        Args:
            by: as in `Listing.by`.
            follow: looks after one entry until it is cancelled.
            on_change: is told of another list, on the loop.
            on_error: is told of each new trouble once, and by None of its end.
        """
        self._by = by
        self._follow = follow
        self._on_change = on_change
        self._on_error = on_error
        self._followed: dict[Endpoint, Followed] = {}
        self._group: asyncio.TaskGroup | None = None

    def watch(self, entry: Endpoint) -> tuple[Endpoint, ...]:
        """Follow `entry` and return what is known now; each call wants its own `unwatch`."""
        one = self._followed.get(entry)
        if one is None:
            one = self._followed[entry] = Followed(entry, self._by)
            self._start(one)
        one.watchers += 1
        return one.endpoints

    def unwatch(self, entry: Endpoint) -> None:
        """Undo one `watch`; after the last the entry is forgotten. Raises: KeyError, if it is not watched."""
        one = self._followed[entry]
        one.watchers -= 1
        if one.watchers == 0:
            del self._followed[entry]
            if one.task is not None:
                one.task.cancel()

    def get(self, entry: Endpoint) -> Followed | None:
        return self._followed.get(entry)

    def listing(self, entry: Endpoint) -> Listing | None:
        """What is known of an entry; None if it is not watched."""
        one = self._followed.get(entry)
        if one is None:
            return None
        return Listing(entry, one.by, len(one.endpoints), one.error, one.failures, one.changed_at)

    def learned(self, one: Followed, endpoints: tuple[Endpoint, ...]) -> None:
        """This is the list now, and all is well."""
        if self.take(one, endpoints):
            self.is_well(one)

    def take(self, one: Followed, endpoints: tuple[Endpoint, ...]) -> bool:
        """This is the list now. False if it cannot be."""
        if len(endpoints) > MOST_ENDPOINTS:
            message = (
                f"it lists {len(endpoints)} endpoints, and an entry has at most {MOST_ENDPOINTS}: divide it"
            )
            self.failed(one, message)
            return False
        if not are_alike(one.endpoints, endpoints):
            self._on_change(one.entry, endpoints)  # first: if it raises, the next run tells it again
            one.endpoints = endpoints
            one.changed_at = asyncio.get_running_loop().time()
        return True

    def failed(self, one: Followed, error: str) -> None:
        """The list cannot be had; what is known stays."""
        one.failures += 1
        if one.error != error:
            one.error = error
            self._on_error(one.entry, error)

    def is_well(self, one: Followed) -> None:
        """There is no trouble any more."""
        if one.error is not None:
            one.error = None
            self._on_error(one.entry, None)

    async def run(self) -> None:
        """Follow until cancelled. May then be run again. Raises: ExceptionGroup, of what a follower met."""
        async with asyncio.TaskGroup() as self._group:
            for one in self._followed.values():
                self._start(one)
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    def _start(self, one: Followed) -> None:
        if self._group is not None:
            one.task = self._group.create_task(self._live(one), name=f"follow {one.entry}")

    async def _live(self, one: Followed) -> None:
        try:
            await self._follow(one)
        except Exception:
            self._group = None  # it is ending: a task that `watch` would start in it now would hold it open
            raise
