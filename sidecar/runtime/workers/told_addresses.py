"""What names stand for, as control tells a worker: names are looked up once for all. Owned by the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from sidecar.core.listing import Listing
from sidecar.core.snapshot import Endpoint, Source
from sidecar.runtime.endpoint_sources import EndpointSources
from sidecar.upstream.followers import OnChange


class ToldAddresses:
    """Every kind of list of a worker."""

    def __init__(self, on_change: Callable[[Endpoint, tuple[Endpoint, ...]], None]) -> None:
        self._on_change = on_change
        self._known: dict[Endpoint, tuple[Endpoint, ...]] = {}
        self._watched = Counter[Endpoint]()

    def watch(self, entry: Endpoint) -> tuple[Endpoint, ...]:
        self._watched[entry] += 1
        return self._known.get(entry, ())

    def unwatch(self, entry: Endpoint) -> None:
        self._watched[entry] -= 1
        if not self._watched[entry]:
            del self._watched[entry]

    def listing(self, _entry: Endpoint) -> Listing | None:
        """Control knows how that goes."""
        return None

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()

    def told(self, entry: Endpoint, endpoints: tuple[Endpoint, ...]) -> None:
        """Control's news; of a new snapshot's names before that is here."""
        if self._known.get(entry) == endpoints:
            return
        self._known[entry] = endpoints
        if entry in self._watched:
            self._on_change(entry, endpoints)

    def retain(self) -> None:
        """A snapshot is in use: forget what nobody watches."""
        self._known = {entry: found for entry, found in self._known.items() if entry in self._watched}


def told_lists(on_change: OnChange) -> tuple[EndpointSources, ToldAddresses]:
    """The sources of a worker: only what is asked for once, of names that no route has, is looked up here."""
    lists = EndpointSources(on_change)
    told = ToldAddresses(on_change)  # what has come and gone is told by control
    lists.use("addresses", told, *Source)
    return lists, told
