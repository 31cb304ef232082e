"""SRV records against a nameserver on loopback: tiers, weights, least TTL, TCP, hosts that cannot be asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sidecar.core.snapshot import Endpoint, Source
from sidecar.upstream.lookup import CaresLookup, LookupFailed
from sidecar.upstream.resolver import Resolver, ResolverTimes
from sidecar.upstream.service_lookup import CaresServiceLookup
from tests.support.dns import SERVFAIL, SRV, DnsServer, Reply, dns_server

NAME = "_http._tcp.payments.test"
ENTRY = Endpoint(NAME, 0, source=Source.SRV)
QUICK = ResolverTimes(min_ttl=0.02, lookup_timeout=60.0, first_retry=0.02, max_first_retry=0.05, retry=0.02)


def asking(dns: DnsServer, timeout_seconds: float = 60.0) -> CaresServiceLookup:
    """Patient, since it asks in real time: only silence is to end by a time-out."""
    return CaresServiceLookup(
        CaresLookup(nameservers=[dns.address], timeout_seconds=timeout_seconds, tries=1)
    )


@asynccontextmanager
async def watched(dns: DnsServer) -> AsyncIterator[tuple[Resolver, asyncio.Queue[tuple[Endpoint, ...]]]]:
    """A resolver that follows `ENTRY`, and a queue of what it tells."""
    told: asyncio.Queue[tuple[Endpoint, ...]] = asyncio.Queue()
    resolver = Resolver(lambda _, found: told.put_nowait(found), services=asking(dns), times=QUICK)
    resolver.watch(ENTRY)
    task = asyncio.create_task(resolver.run())
    try:
        yield resolver, told
    finally:
        task.cancel()
        await asyncio.wait([task])


def facts(found: tuple[Endpoint, ...]) -> list[tuple[str, int, int]]:
    return [(str(one), one.priority, one.weight) for one in found]


async def test_each_address_of_each_record_is_an_endpoint_in_the_order_of_priorities() -> None:
    async with dns_server() as dns:
        dns.replies = {
            NAME: Reply(
                services=((20, 1, 81, "c.test"), (10, 0, 80, "b.test"), (10, 60, 80, "A.test")), ttl=30
            ),
            "a.test": Reply(("10.0.0.2", "10.0.0.1", "fd00::1"), ttl=9),
            "b.test": Reply(("10.0.1.1",), ttl=40),
            "c.test": Reply(("10.0.2.1",), ttl=50),
        }
        answer = await asking(dns)(NAME)
        assert facts(answer.endpoints(ENTRY)) == [
            ("10.0.0.1:80", 10, 60),
            ("10.0.0.2:80", 10, 60),
            ("10.0.1.1:80", 10, 0),
            ("[fd00::1]:80", 10, 60),
            ("10.0.2.1:81", 20, 1),
        ]
        assert {one.name for one in answer.endpoints(ENTRY)} == {"payments.test"}
        assert answer.ttl_seconds == 9


async def test_the_records_own_ttl_may_be_the_least() -> None:
    async with dns_server() as dns:
        dns.replies = {
            NAME: Reply(services=((0, 1, 80, "a.test"),), ttl=7),
            "a.test": Reply(("10.0.0.1",), ttl=60),
        }
        assert (await asking(dns)(NAME)).ttl_seconds == 7


async def test_addresses_that_came_along_are_not_asked_for() -> None:
    async with dns_server() as dns:
        along = (("a.test", "10.0.0.1", 5), ("b.test", "10.0.0.2", 60))
        dns.replies = {
            NAME: Reply(services=((0, 1, 80, "a.test"), (0, 1, 80, "b.test")), ttl=30, sent_along=along)
        }
        answer = await asking(dns)(NAME)
        assert facts(answer.endpoints(ENTRY)) == [("10.0.0.1:80", 0, 1), ("10.0.0.2:80", 0, 1)]
        assert (answer.ttl_seconds, {name for name, _ in dns.questions}) == (5, {NAME})


async def test_a_truncated_answer_is_asked_for_again_by_tcp() -> None:
    async with dns_server() as dns:
        hosts = [f"pod-{number}.payments.test" for number in range(300)]
        dns.replies = {
            NAME: Reply(services=tuple((0, 1, 80, host) for host in hosts), ttl=30, is_truncated=True)
        }
        dns.replies |= {host: Reply((f"10.0.{n // 250}.{n % 250}",), ttl=30) for n, host in enumerate(hosts)}
        answer = await asking(dns)(NAME)
        assert len(answer.endpoints(ENTRY)) == 300
        # Once, or again where its connection was closed before c-ares had read all of it.
        assert set(dns.tcp_questions) == {(NAME, SRV)}


@pytest.mark.parametrize(
    ("reply", "token"),
    [
        (Reply(services=((0, 0, 0, "."),), ttl=30), "no_service"),
        (Reply(ttl=30), "no_data"),
        (Reply(code=SERVFAIL), "server_failure"),
        (Reply(is_silent=True), "timeout"),
        (Reply(services=((0, 1, 80, "gone.test"),), ttl=30), "no_address"),
    ],
)
async def test_an_answer_without_an_address_is_a_failure(reply: Reply, token: str) -> None:
    async with dns_server() as dns:
        dns.replies = {NAME: reply}
        with pytest.raises(LookupFailed, match=f"^{token}$"):
            await asking(dns, 0.1 if reply.is_silent else 60.0)(NAME)


async def test_a_host_that_cannot_be_asked_keeps_its_addresses_and_one_that_is_gone_does_not() -> None:
    async with dns_server() as dns:
        dns.replies = {
            NAME: Reply(services=((0, 1, 80, "a.test"), (0, 1, 80, "b.test"), (0, 1, 80, "c.test")), ttl=30),
            **{f"{one}.test": Reply((f"10.0.0.{n}",), ttl=30) for n, one in enumerate("abc")},
        }
        look_up = asking(dns)
        before = await look_up(NAME)
        dns.replies["b.test"] = Reply(code=SERVFAIL)
        del dns.replies["c.test"]
        after = await look_up(NAME, before)
        assert facts(after.endpoints(ENTRY)) == [("10.0.0.0:80", 0, 1), ("10.0.0.1:80", 0, 1)]
        assert after.ttl_seconds == 0  # it is asked for soon again
        assert facts((await look_up(NAME)).endpoints(ENTRY)) == [("10.0.0.0:80", 0, 1)]


async def test_a_changed_weight_is_told_and_a_rotated_answer_is_not() -> None:
    async with dns_server() as dns:
        records = ((0, 1, 80, "a.test"), (0, 2, 80, "b.test"))
        dns.replies = {
            NAME: Reply(services=records),
            "a.test": Reply(("10.0.0.1",)),
            "b.test": Reply(("10.0.0.2",)),
        }
        async with watched(dns) as (resolver, told):
            assert facts(await told.get()) == [("10.0.0.1:80", 0, 1), ("10.0.0.2:80", 0, 2)]
            dns.replies[NAME] = Reply(services=records[::-1])
            await dns.asked(NAME, dns.count(NAME, SRV) + 3, SRV)
            dns.replies[NAME] = Reply(services=((0, 5, 80, "a.test"), (1, 2, 80, "b.test")))
            assert facts(await told.get()) == [("10.0.0.1:80", 0, 5), ("10.0.0.2:80", 1, 2)]
            assert told.empty()
            listing = resolver.listing(ENTRY)
            assert listing is not None
            assert (listing.by, listing.count, listing.error) == ("srv", 2, None)


async def test_a_dead_nameserver_takes_no_endpoint_away() -> None:
    async with dns_server() as dns:
        dns.replies = {NAME: Reply(services=((0, 1, 80, "a.test"),)), "a.test": Reply(("10.0.0.1",))}
        async with watched(dns) as (resolver, told):
            first = await told.get()
            dns.replies = {NAME: Reply(code=SERVFAIL)}
            await dns.asked(NAME, dns.count(NAME, SRV) + 3, SRV)
            listing = resolver.listing(ENTRY)
            assert listing is not None
            assert (listing.count, listing.error) == (1, "server_failure")
            assert (resolver.addresses(ENTRY), told.empty()) == (first, True)
