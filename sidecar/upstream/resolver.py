"""Keeps the addresses of every watched name current: asks again when a TTL ends, keeps the last good answer.

One task for each name, below `run`, which is the whole of the actor: a crash in one task ends `run`, and a
new `run` goes on with what is known. The names and their states are owned by the event loop's thread; others
get frozen views. Knows no upstreams and no connections: it tells `on_change` what a name stands for.

An answer that fails, "no such name" included, never takes the last good addresses away: what they lead to is
judged by the breakers, and an outage of the nameservers must not become one of everything. Retries are
jittered, so that sidecars which started together do not stay together.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.core.listing import Listing, are_alike
from sidecar.core.snapshot import Endpoint, Source
from sidecar.upstream.lookup import UNREACHABLE, Answer, CaresLookup, LookupFailed
from sidecar.upstream.service_lookup import CaresServiceLookup, ServiceAnswer


@dataclass(frozen=True, slots=True)
class ResolverTimes:
    """When names are asked for again. All in seconds."""

    min_ttl: float = 1.0
    """A shorter TTL, 0 included, is taken for this: each look-up costs the nameserver one."""
    max_ttl: float = 300.0
    """A longer TTL is taken for this, so that a mistake in a zone is not believed for a day."""
    hosts_file_ttl: float = 5.0
    """The hosts file has no TTLs, and reading it is cheap."""
    lookup_timeout: float = 5.0
    """For one look-up in all: every search domain, every try."""
    first_retry: float = 0.25
    """After the first failure of a name that has no addresses yet; doubles up to `max_first_retry`."""
    max_first_retry: float = 5.0
    retry: float = 1.0
    """After the first failure of a name that has addresses; doubles up to `max_retry`."""
    max_retry: float = 30.0


MAX_CONCURRENT_LOOKUPS: Final = 16
"""The others wait: a start with a thousand names must not look like an attack to the nameserver."""

Lookup = Callable[[str], Awaitable[Answer]]
ServiceLookup = Callable[[str, ServiceAnswer | None], Awaitable[ServiceAnswer]]
"""Of SRV records: a name, and the last good answer for it."""
OnChange = Callable[[Endpoint, tuple[Endpoint, ...]], None]
OnTrouble = Callable[[Endpoint, str | None], None]
"""A name cannot be resolved, and what that means; by None it can again."""

IN_WORDS: Final[Mapping[str, str]] = {
    "not_found": "the name servers know no such name (NXDOMAIN)",
    "no_data": "the name has no addresses",
    "timeout": "the name servers did not answer in time",
    "server_failure": "the name servers failed (SERVFAIL)",
    "refused": "the name servers refuse to answer (REFUSED)",
    UNREACHABLE: "no name server can be reached",
    "bad_name": "this can be no name",
    "no_channel": "this process lacks what a look-up needs",
}
"""Of errors, for people; others are told as they are."""


@dataclass(frozen=True, slots=True)
class NameView:
    """What is known of one name, for the admin pages. Instants are seconds on the loop's clock."""

    endpoint: Endpoint
    addresses: tuple[Endpoint, ...]
    """Empty until the first good answer."""
    expires_at: float | None
    """When the TTL of `addresses` ends; in the past while look-ups fail, None before the first good one."""
    next_lookup_at: float
    last_error: str | None
    """Of the last look-up: `not_found`, `timeout` and so on; None if it was good."""
    failures: int
    """Since the name is watched."""
    consecutive_failures: int


@dataclass(slots=True, eq=False)
class _Name:
    endpoint: Endpoint
    watchers: int = 0
    addresses: tuple[Endpoint, ...] = ()
    expires_at: float | None = None
    changed_at: float | None = None
    next_lookup_at: float = 0.0
    last_error: str | None = None
    failures: int = 0
    consecutive_failures: int = 0
    answer: Answer | ServiceAnswer | None = None
    """The last good one."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Resolver:
    """Resolves names for as long as they are watched. All methods are for the event loop's thread."""

    __slots__ = (
        "_group", "_lookup", "_names", "_on_change", "_on_trouble", "_places", "_random", "_services", "_times",
    )  # fmt: skip

    def __init__(
        self,
        on_change: OnChange,
        *,
        on_trouble: OnTrouble = lambda _, __: None,
        lookup: Lookup | None = None,
        services: ServiceLookup | None = None,
        times: ResolverTimes | None = None,
        rng: random.Random | None = None,
        max_concurrent_lookups: int = MAX_CONCURRENT_LOOKUPS,
    ) -> None:
        """`on_change(endpoint, addresses)` is called on the loop, only when a name's addresses differ.

        Its second argument is never empty and sorted. For a name each has the port of the first; for SRV records
        (`Source.SRV`) its own, with weight and priority. `on_trouble` is called for the first failure of a row, and
        for the good answer that ends the row.
        """
        self._on_change = on_change
        self._on_trouble = on_trouble
        self._lookup = lookup or CaresLookup()
        self._services = services or CaresServiceLookup()
        self._times = times or ResolverTimes()
        self._random = rng or random.Random()
        self._places = asyncio.Semaphore(max_concurrent_lookups)
        self._names: dict[Endpoint, _Name] = {}
        self._group: asyncio.TaskGroup | None = None

    def watch(self, endpoint: Endpoint) -> tuple[Endpoint, ...]:
        """Keep `endpoint`'s name resolved and return the addresses known now, none for a new name.

        May be called before `run`, which then does the look-ups. Each call wants its own `unwatch`: a name
        stays while anyone watches it, so a reload that watches the new before it drops the old loses nothing.

        Raises: ValueError, for an endpoint that is an IP address or a socket already.
        """
        if endpoint.is_literal:
            raise ValueError(f"{endpoint} has no name to resolve; use it as it is")
        name = self._names.get(endpoint)
        if name is None:
            name = self._names[endpoint] = _Name(endpoint)
            self._start(name)
        name.watchers += 1
        return name.addresses

    def unwatch(self, endpoint: Endpoint) -> None:
        """Undo one `watch`. After the last, the name is forgotten and `on_change` is not called for it again.

        Raises: KeyError, if it is not watched.
        """
        name = self._names[endpoint]
        name.watchers -= 1
        if name.watchers == 0:
            del self._names[endpoint]
            if name.task is not None:
                name.task.cancel()

    def addresses(self, endpoint: Endpoint) -> tuple[Endpoint, ...]:
        """Return what `endpoint` stands for now: empty if it is not resolved yet, or not watched."""
        name = self._names.get(endpoint)
        return () if name is None else name.addresses

    async def look_up(self, host: str) -> Answer:
        """Ask for a name once, in turn with those that are watched; it is not remembered.

        The TTL is that of the answer, within the bounds that hold for every name.

        Raises:
            LookupFailed: it has no addresses now.
            TimeoutError: the nameservers did not say so in time.
        """
        times = self._times
        async with self._places, asyncio.timeout(times.lookup_timeout):
            answer = await self._lookup(host)
        return Answer(answer.addresses, self._seconds(answer.ttl_seconds))

    def _seconds(self, ttl: float | None) -> float:
        """How long an answer is believed."""
        times = self._times
        return times.hosts_file_ttl if ttl is None else min(max(ttl, times.min_ttl), times.max_ttl)

    def view(self) -> tuple[NameView, ...]:
        """Return the state of every watched name, in the order of first watching."""
        return tuple(_view(name) for name in self._names.values())

    def listing(self, endpoint: Endpoint) -> Listing | None:
        """What is known of one name; None if it is not watched."""
        name = self._names.get(endpoint)
        if name is None:
            return None
        by = "srv" if endpoint.source is Source.SRV else "dns"
        return Listing(
            endpoint,
            by,
            len(name.addresses),
            name.last_error,
            name.failures,
            name.changed_at,
            name.next_lookup_at,
        )

    async def run(self) -> None:
        """Resolve until cancelled. May then be run again.

        Raises: ExceptionGroup, with what `on_change` raised.
        """
        async with asyncio.TaskGroup() as self._group:
            for name in self._names.values():
                self._start(name)
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    def _start(self, name: _Name) -> None:
        if self._group is not None:
            name.task = self._group.create_task(self._follow(name), name=f"resolve {name.endpoint}")

    async def _follow(self, name: _Name) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await asyncio.sleep(name.next_lookup_at - loop.time())
                async with self._places:
                    await self._resolve(name, loop)
        except Exception:
            self._group = None  # it is ending: a task that `watch` would start in it now would hold it open
            raise

    async def _resolve(self, name: _Name, loop: asyncio.AbstractEventLoop) -> None:
        try:
            async with asyncio.timeout(self._times.lookup_timeout):
                answer = await self._look_up(name)
        except LookupFailed as failure:
            self._note_failure(name, str(failure), loop.time())
        except TimeoutError:
            self._note_failure(name, "timeout", loop.time())
        else:
            self._note_answer(name, answer, loop.time())

    async def _look_up(self, name: _Name) -> Answer | ServiceAnswer:
        if name.endpoint.source is Source.SRV:
            before = name.answer
            return await self._services(
                name.endpoint.host, before if isinstance(before, ServiceAnswer) else None
            )
        return await self._lookup(name.endpoint.host)

    def _note_answer(self, name: _Name, answer: Answer | ServiceAnswer, now: float) -> None:
        seconds = self._seconds(answer.ttl_seconds)
        addresses = answer.endpoints(name.endpoint)
        name.answer = answer
        if not are_alike(name.addresses, addresses):
            self._on_change(name.endpoint, addresses)  # first: if it raises, the next run tells it again
            name.addresses, name.changed_at = addresses, now
        name.expires_at = name.next_lookup_at = now + seconds
        if name.consecutive_failures:
            self._on_trouble(name.endpoint, None)
        name.last_error, name.consecutive_failures = None, 0

    def _note_failure(self, name: _Name, error: str, now: float) -> None:
        times = self._times
        if not name.consecutive_failures:
            self._on_trouble(name.endpoint, f"host {name.endpoint.host}: {IN_WORDS.get(error, error)}")
        name.last_error = error
        base, most = (
            (times.retry, times.max_retry) if name.addresses else (times.first_retry, times.max_first_retry)
        )
        wait = min(base * 2.0 ** min(name.consecutive_failures, 30), most)
        name.next_lookup_at = now + wait * self._random.uniform(0.5, 1.0)
        name.failures += 1
        name.consecutive_failures += 1


def _view(name: _Name) -> NameView:
    return NameView(
        name.endpoint,
        name.addresses,
        name.expires_at,
        name.next_lookup_at,
        name.last_error,
        name.failures,
        name.consecutive_failures,
    )
