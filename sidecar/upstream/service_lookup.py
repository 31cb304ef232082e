"""One look-up of SRV records (RFC 2782): hosts and ports of a service, their addresses, and how long to believe it.

Addresses that came with the records are taken: a server sends a name's addresses whole or not at all (RFC 2181 5.1).
The others are looked up, each once. c-ares asks again by TCP where an answer was truncated. A host of which nothing
could be learned, because a server did not answer, keeps the addresses of the answer before: it must not disappear
with a nameserver. One that does not exist any more is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import ip_address
from math import inf
from typing import TYPE_CHECKING, Final, cast

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Endpoint
from sidecar.upstream.lookup import (
    UNREACHABLE,
    CaresLookup,
    LookupFailed,
    addresses_of,
    failures,
    found_in,
    reaching,
    ttl_of,
)

if TYPE_CHECKING:
    import aiodns
    import pycares

MOST_RECORDS: Final = 4096
"""Of one name: an answer of 64 KiB holds about half of it."""
AT_ONCE: Final = 32
"""Hosts that are looked up at the same time."""
_A, _CNAME, _AAAA, _SRV = 1, 5, 28, 33
_TIMED: Final = frozenset({_A, _CNAME, _AAAA, _SRV})
"""Records whose TTL counts; OPT, for one, has none."""
_GONE: Final = frozenset({"not_found", "no_data", "bad_name"})
"""A host that does not exist, which is an answer."""


@dataclass(frozen=True, slots=True)
class Record:
    """One SRV record."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """The records of a service, with the addresses of their hosts; there is at least one address."""

    records: tuple[Record, ...]
    addresses: Mapping[str, tuple[str, ...]]
    """By host; a host without any is not in it."""
    ttl_seconds: float
    """The smallest of all records, addresses and aliases included."""

    def endpoints(self, entry: Endpoint) -> tuple[Endpoint, ...]:
        """Each address of each record, in the order of priorities.

        By TLS they are asked for the service's domain, which is what the configuration names: a host that an
        unsigned answer names proves nothing (RFC 6125 1.8).
        """
        found = {
            Endpoint(address, one.port, name=entry.domain, weight=one.weight, priority=one.priority): (
                one.priority,
                ip_address(address).version,
                int(ip_address(address)),
                one.port,
            )
            for one in reversed(self.records)
            for address in self.addresses.get(one.target, ())
        }
        return tuple(sorted(found, key=found.__getitem__))


class CaresServiceLookup:
    """Looks services up with c-ares. Stateless, so any number of look-ups may run at once."""

    __slots__ = ("_channels",)

    def __init__(self, channels: CaresLookup | None = None) -> None:
        """`channels` says which nameservers are asked, and with which patience."""
        self._channels = channels or CaresLookup()

    async def __call__(self, name: str, before: ServiceAnswer | None = None) -> ServiceAnswer:
        """Return what the SRV records of `name` stand for; `before` is the last good answer.

        Raises: LookupFailed, if there are none, no host of them has an address, or the nameservers do not answer.
        """
        return await reaching(lambda: self._ask(name, before))

    async def _ask(self, name: str, before: ServiceAnswer | None) -> ServiceAnswer:
        async with self._channels.channel() as channel:
            result = await channel.query_dns(name, "SRV")
            records = _records(result)
            known = _sent_along(result)
            ttls = [one.ttl for one in (*result.answer, *result.additional) if one.type in _TIMED]
            missing = sorted({one.target for one in records} - known.keys())
            found, others = await self._look_up(channel, missing, before)
            known.update(found)
            if not any(known.values()):
                raise LookupFailed("no_address")
            return ServiceAnswer(records, known, min(*ttls, others))

    async def _look_up(
        self, channel: aiodns.DNSResolver, hosts: list[str], before: ServiceAnswer | None
    ) -> tuple[dict[str, tuple[str, ...]], float]:
        """Addresses by host, and the least TTL."""
        found: dict[str, tuple[str, ...]] = {}
        least = inf
        failures_met: list[LookupFailed] = []
        places = asyncio.Semaphore(AT_ONCE)

        async def one(host: str) -> None:
            nonlocal least
            async with places:
                try:
                    with failures():
                        result = await addresses_of(channel, host)
                    found[host] = found_in(result)
                    least = min(least, ttl_of(result))
                except LookupFailed as failure:
                    if str(failure) in _GONE:
                        return
                    failures_met.append(failure)
                    least = 0.0  # soon again
                    if before is not None and host in before.addresses:
                        found[host] = before.addresses[host]

        async with asyncio.TaskGroup() as group:
            for host in hosts:
                group.create_task(one(host))
        for failure in failures_met:
            if str(failure) == UNREACHABLE:
                raise failure
        return found, least


def _records(result: pycares.DNSResult) -> tuple[Record, ...]:
    """Sorted, so that a server which rotates them reports no change. Raises: LookupFailed."""
    data = [cast("pycares.SRVRecordData", one.data) for one in result.answer if one.type == _SRV]
    found = {Record(one.priority, one.weight, one.port, _host(one.target)) for one in data}
    if len(found) > MOST_RECORDS:
        raise LookupFailed("too_many_records")
    usable = [one for one in found if one.target and one.port]
    if not usable:
        # A single record with the target "." says that there is no such service (RFC 2782).
        raise LookupFailed("no_service" if found else "no_data")
    return tuple(sorted(usable, key=lambda one: (one.priority, one.target, one.port, one.weight)))


def _sent_along(result: pycares.DNSResult) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for one in result.additional:
        if one.type in (_A, _AAAA):
            data = cast("pycares.ARecordData | pycares.AAAARecordData", one.data)
            found.setdefault(_host(one.name), set()).add(data.addr)
    return {
        host: tuple(sorted(addresses, key=lambda one: (ip_address(one).version, int(ip_address(one)))))
        for host, addresses in found.items()
    }


def _host(name: str) -> str:
    return name.lower().removesuffix(".")
