"""The resolver against a real nameserver on loopback, and against a scripted look-up."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from sidecar.core.snapshot import Endpoint
from sidecar.upstream.lookup import Answer, CaresLookup, LookupFailed
from sidecar.upstream.resolver import Lookup, NameView, Resolver, ResolverTimes
from tests.support.dns import AAAA, NXDOMAIN, REFUSED, SERVFAIL, A, DnsServer, Reply, dns_server
from tests.upstream.resolver_stage import PAYMENTS, QUICK, Changes, answer, running


class ScriptedLookup:
    """Answers from a list, the last one for ever, and notes when it was asked."""

    def __init__(self, *script: Answer | str) -> None:
        self.script = list(script)
        self.asked_at: list[float] = []
        self._changed = asyncio.Event()

    async def __call__(self, name: str) -> Answer:
        self.asked_at.append(asyncio.get_running_loop().time())
        self._changed.set()
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, str):
            raise LookupFailed(answer)
        return answer

    async def count(self, times: int) -> None:
        while len(self.asked_at) < times:
            self._changed.clear()
            await self._changed.wait()

    def waits(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.asked_at, self.asked_at[1:], strict=False)]


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with dns_server() as server:
        yield server


def asking(dns: DnsServer, timeout_seconds: float = 60.0, tries: int = 1) -> CaresLookup:
    """Patient, since it asks in real time: only silence is to end by a time-out."""
    return CaresLookup(nameservers=[dns.address], timeout_seconds=timeout_seconds, tries=tries)


@asynccontextmanager
async def watching(
    lookup: Lookup, times: ResolverTimes = QUICK, endpoint: Endpoint = PAYMENTS
) -> AsyncIterator[tuple[Resolver, Changes]]:
    changes = Changes()
    resolver = Resolver(changes, lookup=lookup, times=times, rng=random.Random(1))
    resolver.watch(endpoint)
    async with running(resolver):
        yield resolver, changes


async def eventually(resolver: Resolver, holds: Callable[[NameView], bool]) -> NameView:
    """Wait until the only name's view is as wanted: the state has no event of its own."""
    while True:
        (view,) = resolver.view()
        if holds(view):
            return view
        await asyncio.sleep(0.002)


# Answers of a real nameserver


async def test_every_a_and_aaaa_record_is_an_endpoint(dns: DnsServer) -> None:
    dns.replies["payments.test"] = Reply(("10.0.0.2", "fd00::1", "10.0.0.10", "10.0.0.2"), ttl=60)
    async with watching(asking(dns)) as (resolver, changes):
        await changes.count(1)
        expected = tuple(Endpoint(host, 80) for host in ("10.0.0.2", "10.0.0.10", "fd00::1"))
        assert changes.all == [(PAYMENTS, expected)]
        assert resolver.addresses(PAYMENTS) == expected
        assert {found.name for found in resolver.addresses(PAYMENTS)} == {PAYMENTS.host}
        assert {kind for _, kind in dns.questions} == {A, AAAA}


@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1"])
async def test_one_family_is_enough(dns: DnsServer, address: str) -> None:
    dns.replies["payments.test"] = Reply((address,), ttl=60)
    assert await asking(dns)("payments.test") == Answer((address,), 60)


async def test_smallest_ttl_counts_an_alias_included(dns: DnsServer) -> None:
    dns.replies["payments.test"] = Reply(("10.0.0.1",), ttl=60, alias="pay-7.test", alias_ttl=7)
    assert await asking(dns)("payments.test") == Answer(("10.0.0.1",), 7)


async def test_name_is_resolved_again_when_its_ttl_ends(dns: DnsServer) -> None:
    dns.replies["payments.test"] = Reply(("10.0.0.1",), ttl=1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with watching(asking(dns)) as (resolver, changes):
        await changes.count(1)
        expires_at = resolver.view()[0].expires_at
        assert expires_at is not None
        assert began + 1.0 <= expires_at <= loop.time() + 1.0
        assert resolver.view()[0].next_lookup_at == expires_at
        dns.replies["payments.test"] = Reply(("10.0.0.2",), ttl=60)
        await changes.count(2)
        assert loop.time() >= expires_at
        assert changes.hosts == [["10.0.0.1"], ["10.0.0.2"]]


async def test_ttl_of_zero_is_not_cached_and_not_a_busy_loop(dns: DnsServer) -> None:
    dns.replies["payments.test"] = Reply(("10.0.0.1",), ttl=0)
    started = asyncio.get_running_loop().time()
    async with watching(asking(dns), replace(QUICK, min_ttl=0.1)) as (_, changes):
        await dns.asked("payments.test", 3)
        assert asyncio.get_running_loop().time() - started >= 0.19
        assert changes.hosts == [["10.0.0.1"]], "the same answer is no change"


async def test_huge_ttl_is_cut_although_c_ares_would_cache_it(dns: DnsServer) -> None:
    dns.replies["payments.test"] = Reply(("10.0.0.1",), ttl=2**31 - 1)
    async with watching(asking(dns), replace(QUICK, max_ttl=0.05)) as (_, changes):
        await changes.count(1)
        dns.replies["payments.test"] = Reply(("10.0.0.2",), ttl=2**31 - 1)
        await changes.count(2)


async def test_rotated_records_are_no_change(dns: DnsServer) -> None:
    dns.replies["payments.test"] = Reply(("10.0.0.1", "10.0.0.2"))
    async with watching(asking(dns)) as (_, changes):
        await changes.count(1)
        dns.replies["payments.test"] = Reply(("10.0.0.2", "10.0.0.1"))
        await dns.asked("payments.test", dns.count("payments.test") + 3)
        assert len(changes.all) == 1


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(code=NXDOMAIN), "not_found"),
        (Reply(), "no_data"),
        (Reply(code=SERVFAIL), "server_failure"),
        (Reply(code=REFUSED), "refused"),
        (Reply(is_silent=True), "timeout"),
    ],
)
async def test_failure_has_a_token(dns: DnsServer, reply: Reply, error: str) -> None:
    """In one of three: c-ares tells how its last try ended, and once in thousands that was at its own socket."""
    dns.replies["payments.test"] = reply
    look_up = asking(dns, timeout_seconds=0.1) if reply.is_silent else asking(dns)
    tokens: list[str] = []
    while error not in tokens and len(tokens) < 3:
        with pytest.raises(LookupFailed) as caught:
            await look_up("payments.test")
        tokens.append(str(caught.value))
    assert error in tokens


@pytest.mark.parametrize("name", ["a" * 64 + ".test", "bad..test", "\u2603" * 300, "x" * 300])
async def test_bad_name_fails_and_breaks_nothing(dns: DnsServer, name: str) -> None:
    with pytest.raises(LookupFailed):
        await asking(dns)(name)


async def test_unreachable_nameserver_fails() -> None:
    async with dns_server() as gone:
        address = gone.address
    with pytest.raises(LookupFailed) as caught:
        await CaresLookup(nameservers=[address], timeout_seconds=0.2, tries=1)("payments.test")
    assert str(caught.value) in ("nameserver_unreachable", "timeout")


@pytest.mark.parametrize(
    "failing", [Reply(code=NXDOMAIN), Reply(code=SERVFAIL), Reply(is_silent=True), Reply()]
)
async def test_failure_keeps_the_last_good_answer(dns: DnsServer, failing: Reply) -> None:
    dns.replies["payments.test"] = Reply(("10.0.0.1",))
    async with watching(asking(dns, timeout_seconds=0.05)) as (resolver, changes):
        await changes.count(1)
        dns.replies["payments.test"] = failing
        view = await eventually(resolver, lambda view: view.consecutive_failures >= 2)
        assert view.addresses == (Endpoint("10.0.0.1", 80),)
        assert view.last_error is not None
        assert view.expires_at is not None
        assert view.expires_at < asyncio.get_running_loop().time()
        dns.replies["payments.test"] = Reply(("10.0.0.3",), ttl=60)
        await changes.count(2)
        view = await eventually(resolver, lambda view: view.last_error is None)
        assert (view.consecutive_failures, view.failures >= 2) == (0, True)
        assert changes.hosts == [["10.0.0.1"], ["10.0.0.3"]]


async def test_name_that_comes_to_life_is_found_soon(dns: DnsServer) -> None:
    async with watching(asking(dns)) as (resolver, changes):
        view = await eventually(resolver, lambda view: view.failures >= 2 and view.last_error == "not_found")
        assert (view.addresses, view.expires_at) == ((), None)
        dns.replies["payments.test"] = Reply(("10.0.0.1",), ttl=60)
        await changes.count(1)
        assert resolver.addresses(PAYMENTS) == (Endpoint("10.0.0.1", 80),)


async def test_whole_lookup_is_bounded_in_time(dns: DnsServer) -> None:
    dns.replies["payments.test"] = Reply(is_silent=True)
    times = replace(QUICK, lookup_timeout=0.1, first_retry=60.0, max_first_retry=60.0)
    async with watching(asking(dns, timeout_seconds=30.0), times) as (resolver, _):
        view = await eventually(resolver, lambda view: view.failures > 0)
        assert view.last_error == "timeout"


async def test_localhost_is_one_loopback_address() -> None:
    lookup = CaresLookup(nameservers=["127.0.0.1:9"])
    found = await lookup("localhost")
    assert found == Answer(("127.0.0.1",), None)


async def test_hosts_file_comes_before_the_nameservers(dns: DnsServer) -> None:
    for name, addresses in hosts_file().items():
        dns.replies[name] = Reply(("10.0.0.1",), ttl=60)
        found = await asking(dns)(name)
        assert found.ttl_seconds is None, name
        assert set(found.addresses) <= addresses, name
    assert dns.questions == []


def hosts_file() -> dict[str, set[str]]:
    """Read what this machine's own hosts file says; it names localhost at least."""
    names: dict[str, set[str]] = {}
    with open("/etc/hosts") as file:
        for line in file:
            address, *aliases = line.partition("#")[0].split() or [""]
            for alias in aliases:
                names.setdefault(alias, set()).add(address)
    return names


# The schedule


async def test_addresses_without_a_ttl_are_asked_for_again() -> None:
    lookup = ScriptedLookup(answer("10.0.0.1", ttl=None))
    async with watching(lookup, replace(QUICK, hosts_file_ttl=0.03)):
        await lookup.count(3)
        assert min(lookup.waits()) >= 0.029


async def test_concurrent_lookups_are_bounded() -> None:
    now, most, done = 0, 0, 0
    all_done = asyncio.Event()

    async def lookup(name: str) -> Answer:
        nonlocal now, most, done
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        done += 1
        if done == 50:
            all_done.set()
        return answer("10.0.0.1", ttl=60)

    resolver = Resolver(Changes(), lookup=lookup, max_concurrent_lookups=4)
    for i in range(50):
        resolver.watch(Endpoint(f"name-{i}", 80))
    async with running(resolver):
        await all_done.wait()
    assert most == 4


async def test_name_watched_twice_is_resolved_once_and_kept_until_the_last_unwatch() -> None:
    lookup = ScriptedLookup(answer("10.0.0.1", ttl=60))
    async with watching(lookup) as (resolver, changes):
        await changes.count(1)
        assert resolver.watch(PAYMENTS) == (Endpoint("10.0.0.1", 80),)
        resolver.unwatch(PAYMENTS)
        assert resolver.addresses(PAYMENTS) == (Endpoint("10.0.0.1", 80),)
        resolver.unwatch(PAYMENTS)
        assert resolver.addresses(PAYMENTS) == ()
        assert resolver.view() == ()
        assert len(lookup.asked_at) == 1
        with pytest.raises(KeyError):
            resolver.unwatch(PAYMENTS)


async def test_name_watched_while_running_is_resolved() -> None:
    orders = Endpoint("orders.test", 8080)
    async with watching(ScriptedLookup(answer("10.0.0.1", ttl=60))) as (resolver, changes):
        await changes.count(1)
        assert resolver.watch(orders) == ()
        await changes.count(2)
        assert changes.all[1] == (orders, (Endpoint("10.0.0.1", 8080),))


async def test_nothing_is_told_of_a_name_that_is_unwatched_during_its_lookup(dns: DnsServer) -> None:
    dns.replies["payments.test"] = Reply(is_silent=True)
    async with watching(asking(dns)) as (resolver, changes):
        await dns.asked("payments.test", 1)
        (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "resolve payments.test:80")
        resolver.unwatch(PAYMENTS)
        await asyncio.wait([task])
        assert task.cancelled()
        assert changes.all == []


@pytest.mark.parametrize(
    "literal", [Endpoint("10.0.0.1", 80), Endpoint("::1", 80), Endpoint("", 0, "/run/app.sock")]
)
async def test_literal_endpoint_has_no_name_to_watch(literal: Endpoint) -> None:
    with pytest.raises(ValueError, match="no name to resolve"):
        Resolver(Changes()).watch(literal)


async def test_view_is_the_state_of_each_name() -> None:
    lookup = ScriptedLookup(answer("10.0.0.1", ttl=60))
    async with watching(lookup) as (resolver, changes):
        assert resolver.view() == (NameView(PAYMENTS, (), None, 0.0, None, 0, 0),)
        await changes.count(1)
        (view,) = resolver.view()
        assert view.expires_at is not None
        assert view == NameView(
            PAYMENTS, (Endpoint("10.0.0.1", 80),), view.expires_at, view.expires_at, None, 0, 0
        )


# Life and death


async def test_cancelled_run_leaves_no_task_and_can_run_again() -> None:
    lookup = ScriptedLookup(answer("10.0.0.1"))
    async with watching(lookup) as (resolver, changes):
        await lookup.count(2)
    assert {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("resolve")} == set()
    assert resolver.addresses(PAYMENTS) == (Endpoint("10.0.0.1", 80),)
    asked = len(lookup.asked_at)
    async with running(resolver):
        await lookup.count(asked + 1)
    assert len(changes.all) == 1


@pytest.mark.parametrize("moment", [0.0, 0.001, 0.005, 0.02, 0.05])
async def test_run_cancelled_at_any_moment_closes_its_channels(dns: DnsServer, moment: float) -> None:
    dns.replies["payments.test"] = Reply(is_silent=True)
    before = c_ares_threads()
    async with watching(asking(dns)):
        await asyncio.sleep(moment)
    await no_more_threads_than(before)


async def test_finished_lookups_leave_no_threads(dns: DnsServer) -> None:
    dns.replies["payments.test"] = Reply(("10.0.0.1",))
    before = c_ares_threads()
    async with watching(asking(dns)):
        await dns.asked("payments.test", 10)
    await no_more_threads_than(before)


def c_ares_threads() -> int:
    """Threads that Python did not start."""
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("Threads:"))
    return int(line.split()[1]) - threading.active_count()


async def no_more_threads_than(most: int) -> None:
    async with asyncio.timeout(60):
        while True:  # they end on their own, and tell nobody
            if c_ares_threads() <= most:
                return
            await asyncio.sleep(0.005)


async def test_crash_ends_the_run_and_the_next_one_tells_the_change_again() -> None:
    told: list[tuple[Endpoint, ...]] = []
    again = asyncio.Event()

    def on_change(_: Endpoint, addresses: tuple[Endpoint, ...]) -> None:
        told.append(addresses)
        if len(told) == 1:
            crashing = asyncio.current_task()
            assert crashing is not None
            resolver.watch(Endpoint("orders.test", 80))
            crashing.add_done_callback(lambda _: resolver.watch(Endpoint("late.test", 80)) and None)
            raise RuntimeError("a bug in the listener")
        again.set()

    resolver = Resolver(on_change, lookup=ScriptedLookup(answer("10.0.0.1", ttl=60)), times=QUICK)
    resolver.watch(PAYMENTS)
    with pytest.raises(ExceptionGroup) as caught:
        await resolver.run()
    assert caught.group_contains(RuntimeError, match="a bug in the listener")
    resolver.watch(Endpoint("users.test", 80))
    async with running(resolver):
        await again.wait()
    assert told[:2] == [(Endpoint("10.0.0.1", 80),)] * 2


async def test_the_loop_is_not_blocked_by_a_lookup(dns: DnsServer) -> None:
    dns.replies["payments.test"] = Reply(is_silent=True)
    async with watching(asking(dns)) as (resolver, _):
        await dns.asked("payments.test", 1)
        for _ in range(10):
            await asyncio.sleep(0)
        (view,) = resolver.view()
        assert view.failures == 0, "the look-up is still under way"


def test_aiodns_is_not_imported_until_a_name_is_resolved() -> None:
    code = "import sys, sidecar.upstream.resolver as r; r.Resolver(print); sys.exit('aiodns' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_works_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> Answer:
        async with dns_server() as dns:
            dns.replies["payments.test"] = Reply(("10.0.0.1",), ttl=5)
            return await asking(dns)("payments.test")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == Answer(("10.0.0.1",), 5)


async def test_trouble_is_told_once_until_it_is_over_with_the_host_and_what_is_wrong() -> None:
    told: list[tuple[Endpoint, str | None]] = []
    changes = Changes()
    lookup = ScriptedLookup(
        "not_found", "timeout", answer("10.0.0.1"), "timeout", "timeout", answer("10.0.0.1")
    )
    resolver = Resolver(
        changes, on_trouble=lambda *news: told.append(news), lookup=lookup, times=QUICK, rng=random.Random(1)
    )
    resolver.watch(PAYMENTS)
    async with running(resolver):
        await lookup.count(7)
    assert told == [
        (PAYMENTS, "host payments.test: the name servers know no such name (NXDOMAIN)"),
        (PAYMENTS, None),
        (PAYMENTS, "host payments.test: the name servers did not answer in time"),
        (PAYMENTS, None),
    ]
