"""Who lists the endpoints of each entry: DNS, a file, Kubernetes; one place to watch any of them.

Tells the data path of each other list, and whoever is interested of what has come and gone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sidecar.core.listing import EndpointsChange, Listing, change_of
from sidecar.core.snapshot import Endpoint, Source
from sidecar.runtime.actor import Run
from sidecar.upstream.followers import OnChange
from sidecar.upstream.lookup import Answer
from sidecar.upstream.resolver import Resolver


class Lists(Protocol):
    """One kind of source."""

    def watch(self, entry: Endpoint) -> tuple[Endpoint, ...]: ...

    def unwatch(self, entry: Endpoint) -> None: ...

    def listing(self, entry: Endpoint) -> Listing | None: ...

    async def run(self) -> None: ...


class EndpointSources:
    """`Names` of the assembly, over all kinds. Owned by the event loop."""

    def __init__(self, on_change: OnChange) -> None:
        """`on_change` is the data path's."""
        self.tell: Callable[[EndpointsChange], None] = lambda _: None
        """Whom to tell of what has come and gone."""
        self.tell_error: Callable[[Endpoint, str | None], None] = lambda _, __: None
        """Whom to tell of trouble with an entry, and by None of its end."""
        self.parts: dict[str, Run[Any]] = {}
        """What is to run, supervised."""
        self.resolver = Resolver(self.resolved, on_trouble=self.troubled)
        self._on_change = on_change
        self._by: dict[Source, Lists] = {}
        self._known: dict[Endpoint, tuple[Endpoint, ...]] = {}
        self._watched: Counter[Endpoint] = Counter()
        self.also_resolved: OnChange = lambda _, __: None
        """Who else wants to know what DNS says."""

    def use(self, part: str, lists: Lists, *kinds: Source) -> None:
        """Who is asked for these kinds of entries, as a part of this name; before anything is watched."""
        self._by.update(dict.fromkeys(kinds, lists))
        self.parts[part] = lambda _: lists.run()

    async def look_up(self, host: str) -> Answer:
        """What DNS says of a name, once. Raises: LookupFailed, TimeoutError."""
        return await self.resolver.look_up(host)

    def watch(self, entry: Endpoint) -> tuple[Endpoint, ...]:
        """Keep its list current, and return what is known now; each call wants its own `unwatch`."""
        self._watched[entry] += 1
        return self._by[entry.source].watch(entry)

    def unwatch(self, entry: Endpoint) -> None:
        self._by[entry.source].unwatch(entry)
        self._watched[entry] -= 1
        if not self._watched[entry]:
            del self._watched[entry]
            self._known.pop(entry, None)

    @property
    def known(self) -> Mapping[Endpoint, tuple[Endpoint, ...]]:
        """What each watched entry stands for, of those that were ever listed."""
        return self._known

    def listing(self, entry: Endpoint) -> Listing | None:
        """What is known of an entry; None for one that is an endpoint itself."""
        return None if entry.is_literal else self._by[entry.source].listing(entry)

    def resolved(self, entry: Endpoint, endpoints: tuple[Endpoint, ...]) -> None:
        """News of DNS, which is also asked in the place of Kubernetes."""
        self.also_resolved(entry, endpoints)
        if entry in self._watched:
            self.changed(entry, endpoints)

    def changed(self, entry: Endpoint, endpoints: tuple[Endpoint, ...]) -> None:
        """A source's news."""
        self._on_change(entry, endpoints)
        change = change_of(entry, self._known.get(entry, ()), endpoints)
        self._known[entry] = endpoints
        if change.added or change.removed:
            self.tell(change)

    def troubled(self, entry: Endpoint, error: str | None) -> None:
        """A source cannot list an entry, or by None can again."""
        self.tell_error(entry, error)


class _OnceWatched:
    """A kind of source that few configurations have: made when its first entry is watched."""

    def __init__(self, make: Callable[[], Lists]) -> None:
        self._make = make
        self._lists: Lists | None = None
        self._is_made = asyncio.Event()

    def watch(self, entry: Endpoint) -> tuple[Endpoint, ...]:
        if self._lists is None:
            self._lists = self._make()
            self._is_made.set()
        return self._lists.watch(entry)

    def unwatch(self, entry: Endpoint) -> None:
        if self._lists is None:
            raise KeyError(entry)
        self._lists.unwatch(entry)

    def listing(self, entry: Endpoint) -> Listing | None:
        return None if self._lists is None else self._lists.listing(entry)

    async def run(self) -> None:
        await self._is_made.wait()
        if self._lists is not None:
            await self._lists.run()


def endpoint_sources(environ: Mapping[str, str], on_change: OnChange) -> EndpointSources:
    """All kinds of a process with this environment."""
    lists = EndpointSources(on_change)
    resolver = lists.resolver

    def files() -> Lists:
        from sidecar.runtime.endpoint_files import EndpointFiles  # see `imports.py`

        return EndpointFiles(lists.changed, lists.troubled)

    def kubernetes() -> Lists:
        from sidecar.kubernetes.endpoint_slices import EndpointSlices  # see `imports.py`

        slices = EndpointSlices(environ, resolver, lists.changed, lists.troubled)
        lists.also_resolved = slices.resolved
        return slices

    lists.use("resolver", resolver, Source.ADDRESS, Source.SRV)
    lists.use("endpoint_files", _OnceWatched(files), Source.FILE)
    lists.use("endpoint_slices", _OnceWatched(kubernetes), Source.KUBERNETES)
    return lists
