"""A Service that is watched: lists, bookmarks, 410 both ways, broken and silent watches, refusals, garbage."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.listing import Listing
from sidecar.core.snapshot import Endpoint, Source
from sidecar.kubernetes import api, endpoint_slices
from sidecar.kubernetes.api import ApiError, ApiServer, lines
from sidecar.kubernetes.endpoint_slices import EndpointSlices, WatchTimes, cluster_domain
from tests.support.fake_kubernetes import FakeKubernetes, endpoint, fake_kubernetes, sliced

ENTRY = Endpoint("payments.shop:http", 0, source=Source.KUBERNETES)
ALIAS = Endpoint("_http._tcp.payments.shop.svc.cluster.local", 0, source=Source.SRV)
QUICK = WatchTimes(
    least_watch=60.0, gather=0.005, first_retry=0.01, max_retry=0.05, denied_retry=0.05, settled=5.0
)
FROM_DNS = (Endpoint("10.9.9.9", 8080),)


@dataclass
class Dns:
    """Stands in for the resolver."""

    answers: dict[Endpoint, tuple[Endpoint, ...]] = field(default_factory=dict)
    watched: list[Endpoint] = field(default_factory=list)

    def watch(self, name: Endpoint) -> tuple[Endpoint, ...]:
        self.watched.append(name)
        return self.answers.get(name, ())

    def unwatch(self, name: Endpoint) -> None:
        self.watched.remove(name)


class Seen:
    """What was told, with a way to wait for it."""

    def __init__(self) -> None:
        self.lists: list[list[str]] = []
        self.endpoints: tuple[Endpoint, ...] = ()
        self.errors: list[str | None] = []
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def changed(self, _: Endpoint, endpoints: tuple[Endpoint, ...]) -> None:
        self.endpoints = endpoints
        self.lists.append([one.host for one in endpoints])
        self._wake()

    def troubled(self, _: Endpoint, error: str | None) -> None:
        self.errors.append(error)
        self._wake()

    def _wake(self) -> None:
        async def wake() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.get_running_loop().create_task(wake())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def hosts(self, *wanted: str) -> None:
        """Wait until these are the endpoints."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self.lists) and self.lists[-1] == list(wanted))

    async def error(self, part: str | None) -> str | None:
        """Wait until the last word on trouble has this in it, or is that there is none."""

        def is_there() -> bool:
            if not self.errors:
                return False
            last = self.errors[-1]
            return last is None if part is None else last is not None and part in last

        async with self._changed:
            await self._changed.wait_for(is_there)
        return self.errors[-1]


@dataclass
class Stage:
    kubernetes: FakeKubernetes
    server: ApiServer
    slices: EndpointSlices
    seen: Seen
    dns: Dns

    @property
    def listing(self) -> Listing:
        found = self.slices.listing(ENTRY)
        assert found is not None
        return found


@asynccontextmanager
async def stage(
    folder: Path, *, times: WatchTimes = QUICK, has_server: bool = True, environ: dict[str, str] | None = None
) -> AsyncIterator[Stage]:
    async with fake_kubernetes(folder) as (kubernetes, server), asyncio.timeout(100):
        await kubernetes.put(sliced("a", "10.0.0.1", "10.0.0.2"))
        seen, dns = Seen(), Dns()
        slices = EndpointSlices(
            environ or {},
            dns,
            seen.changed,
            seen.troubled,
            server=lambda: server if has_server else None,
            times=times,
            rng=random.Random(1),
            domain=lambda: "cluster.local",
        )
        slices.watch(ENTRY)
        yield Stage(kubernetes, server, slices, seen, dns)


@asynccontextmanager
async def run(to: Stage) -> AsyncIterator[None]:
    task = asyncio.create_task(to.slices.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


# All is well


async def test_a_list_and_then_each_change(tmp_path: Path) -> None:
    async with stage(tmp_path) as to, run(to):
        await to.seen.hosts("10.0.0.1", "10.0.0.2")
        await to.kubernetes.put(sliced("b", "10.0.0.3"))
        await to.seen.hosts("10.0.0.1", "10.0.0.2", "10.0.0.3")
        await to.kubernetes.put(sliced("a", "10.0.0.2", endpoint("10.0.0.4", ready=False)))
        await to.seen.hosts("10.0.0.2", "10.0.0.3")
        await to.kubernetes.remove("b")
        await to.seen.hosts("10.0.0.2")
        assert to.kubernetes.count(is_watch=False) == 1
        assert (to.listing.by, to.listing.count, to.listing.error) == ("kubernetes", 1, None)
        assert to.seen.errors == []


async def test_it_asks_for_bookmarks_for_one_service_and_for_an_end_by_chance(tmp_path: Path) -> None:
    async with stage(tmp_path) as to, run(to):
        await to.kubernetes.seen(1, is_watch=True)
        page, watch = (one["query"] for one in to.kubernetes.requests)
        assert page == {"labelSelector": "kubernetes.io/service-name=payments", "limit": "16"}
        seconds = int(watch.pop("timeoutSeconds"))
        assert 60 <= seconds <= 120
        assert watch == {
            "labelSelector": "kubernetes.io/service-name=payments",
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": "101",
        }


async def test_a_list_of_many_pages_is_told_as_one(tmp_path: Path) -> None:
    async with stage(tmp_path) as to:
        many = [sliced(f"s{number:02}", f"10.0.1.{number}") for number in range(40)]
        await to.kubernetes.put(*many)
        async with run(to):
            await to.kubernetes.seen(1, is_watch=True)
            assert [len(one) for one in to.seen.lists] == [42]
            assert to.kubernetes.count(is_watch=False) == 3


async def test_many_changes_at_once_are_told_together(tmp_path: Path) -> None:
    async with stage(tmp_path, times=WatchTimes(gather=0.2, first_retry=0.01)) as to, run(to):
        await to.seen.hosts("10.0.0.1", "10.0.0.2")
        await to.kubernetes.seen(1, is_watch=True)
        for number in range(50):
            await to.kubernetes.put(sliced(f"s{number}", f"10.0.1.{number}"))
        await to.seen.hosts("10.0.0.1", "10.0.0.2", *(f"10.0.1.{number}" for number in range(50)))
        assert len(to.seen.lists) <= 3


# A watch ends


async def test_a_watch_goes_on_from_the_last_bookmark(tmp_path: Path) -> None:
    async with stage(tmp_path) as to, run(to):
        await to.kubernetes.seen(1, is_watch=True)
        await to.kubernetes.bookmark()
        version = to.kubernetes.version
        to.kubernetes.garbage = [b""]  # the next one ends at once, as when its time is up
        await to.kubernetes.put(sliced("b", "10.0.0.3"))
        await to.seen.hosts("10.0.0.1", "10.0.0.2", "10.0.0.3")
        await to.kubernetes.end_watches()
        await to.kubernetes.seen(3, is_watch=True)
        versions = [
            int(one["query"]["resourceVersion"]) for one in to.kubernetes.requests if "watch" in one["query"]
        ]
        assert versions == sorted(versions)
        assert versions[-1] > version
        assert to.kubernetes.count(is_watch=False) == 1


@pytest.mark.parametrize("is_event", [False, True], ids=["status", "event"])
async def test_a_watch_that_is_too_old_begins_with_a_new_list(tmp_path: Path, is_event: bool) -> None:
    async with stage(tmp_path) as to, run(to):
        await to.kubernetes.seen(1, is_watch=True)
        to.kubernetes.gone_as_event = is_event
        to.kubernetes.slices["a"] = sliced("a", "10.0.0.7")  # which no watch will ever tell
        await to.kubernetes.compact()
        await to.seen.hosts("10.0.0.7")
        assert to.kubernetes.count(is_watch=False) == 2
        await to.kubernetes.put(sliced("b", "10.0.0.8"))
        await to.seen.hosts("10.0.0.7", "10.0.0.8")
        assert to.seen.errors == []


async def test_pages_that_expire_are_asked_for_from_the_beginning(tmp_path: Path) -> None:
    async with stage(tmp_path) as to:
        await to.kubernetes.put(*(sliced(f"s{number:02}", f"10.0.1.{number}") for number in range(40)))
        to.kubernetes.expire_pages = 2
        async with run(to):
            await to.kubernetes.seen(1, is_watch=True)
            assert [len(one) for one in to.seen.lists] == [42]


async def test_another_error_of_a_watch_is_told_and_begins_anew(tmp_path: Path) -> None:
    async with stage(tmp_path) as to, run(to):
        await to.kubernetes.seen(1, is_watch=True)
        await to.kubernetes.error(500)
        await to.seen.error("the watch ended: no")
        await to.seen.error(None)
        assert to.seen.lists == [["10.0.0.1", "10.0.0.2"]]


async def test_a_silent_watch_is_given_up_and_nothing_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "READ_SECONDS", 0.2)
    async with stage(tmp_path) as to, run(to):
        await to.kubernetes.seen(1, is_watch=True)
        to.kubernetes.hangs = True
        await to.kubernetes.put(sliced("b", "10.0.0.3"))
        await to.seen.error("the watch broke off")
        to.kubernetes.hangs = False
        await to.kubernetes.bookmark()
        await to.seen.hosts("10.0.0.1", "10.0.0.2", "10.0.0.3")
        await to.seen.error(None)
        assert to.kubernetes.count(is_watch=False) == 1


# What is not believed


async def test_no_endpoint_at_all_is_believed_only_from_a_list(tmp_path: Path) -> None:
    async with stage(tmp_path) as to, run(to):
        await to.kubernetes.seen(1, is_watch=True)
        await to.kubernetes.remove("a")
        await to.seen.hosts()
        assert to.kubernetes.count(is_watch=False) == 2
        await to.kubernetes.put(sliced("a", "10.0.0.5"))
        await to.seen.hosts("10.0.0.5")
        assert to.seen.lists == [["10.0.0.1", "10.0.0.2"], [], ["10.0.0.5"]]


async def test_a_list_that_contradicts_an_empty_watch_is_right(tmp_path: Path) -> None:
    async with stage(tmp_path) as to, run(to):
        await to.kubernetes.seen(1, is_watch=True)
        kept = to.kubernetes.slices["a"]
        await to.kubernetes.claim_deleted(kept)
        await to.kubernetes.seen(2, is_watch=True)
        assert to.seen.lists == [["10.0.0.1", "10.0.0.2"]]


GARBAGE = [
    b"nonsense\n",
    b"[]\n",
    b'{"type":"ADDED"}\n',
    b'{"type":"ADDED","object":[]}\n',
    b'{"type":"NEW","object":{"metadata":{"resourceVersion":"7"}}}\n',
    b'{"type":"BOOKMARK","object":{"metadata":{}}}\n',
    b'{"type":"ADDED","object":{"metadata":{"name":"x","resourceVersion":"7"},"addressType":"IPv4",'
    b'"endpoints":[{"addresses":["here"]}]}}\n',
    b"[" * 100_000 + b"\n",
    b"\xff\xfe\n",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_changes_nothing_and_is_got_over(tmp_path: Path, garbage: bytes) -> None:
    async with stage(tmp_path) as to:
        to.kubernetes.garbage = [garbage]
        async with run(to):
            await to.seen.hosts("10.0.0.1", "10.0.0.2")
            await to.seen.error("")
            await to.seen.error(None)
            await to.kubernetes.put(sliced("b", "10.0.0.3"))
            await to.seen.hosts("10.0.0.1", "10.0.0.2", "10.0.0.3")
            assert to.seen.lists[0] == ["10.0.0.1", "10.0.0.2"]
            assert len(to.seen.lists) == 2


async def test_a_line_without_an_end_is_cut_at_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "MOST_LINE_BYTES", 10_000)
    async with stage(tmp_path) as to:
        to.kubernetes.garbage = [b"x" * 200_000]
        async with run(to):
            await to.seen.error("a line of more than 10000 bytes")
            await to.seen.error(None)
            assert to.seen.lists == [["10.0.0.1", "10.0.0.2"]]


async def test_a_page_beyond_its_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST_PAGE_BYTES", 100)
    async with stage(tmp_path) as to, run(to):
        await to.seen.error("an answer of more than 100 bytes")
        assert to.seen.lists == []


@settings(deadline=None)
@given(st.lists(st.binary(max_size=12).map(lambda one: one.replace(b"z", b"\n")), max_size=12))
def test_lines_are_the_same_however_they_come(chunks: list[bytes]) -> None:
    async def each(parts: list[bytes]) -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    async def cut(parts: list[bytes]) -> list[bytes]:
        return [line async for line in lines(each(parts))]

    whole = b"".join(chunks)
    expected = [line for line in whole.split(b"\n")[:-1] if line.strip()]
    assert asyncio.run(cut(chunks)) == asyncio.run(cut([whole])) == expected


async def test_a_line_at_the_bound_is_taken_and_one_byte_more_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST_LINE_BYTES", 10)

    async def each(*parts: bytes) -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    assert [line async for line in lines(each(b"12345", b"67890\n"))] == [b"1234567890"]
    for parts in ((b"12345", b"678901\n"), (b"12345678901",)):
        with pytest.raises(ApiError, match="a line of more than 10 bytes"):
            [line async for line in lines(each(*parts))]


# Access


async def test_without_a_token_dns_is_asked_and_that_is_told_once(tmp_path: Path) -> None:
    async with stage(tmp_path, has_server=False) as to:
        to.dns.answers[ALIAS] = FROM_DNS
        async with run(to):
            await to.seen.hosts("10.9.9.9")
            error = await to.seen.error("there is no token")
            assert error is not None
            assert error.endswith(f"; {ALIAS} is asked meanwhile")
            to.slices.resolved(ALIAS, (*FROM_DNS, Endpoint("10.9.9.8", 8080)))
            await to.seen.hosts("10.9.9.9", "10.9.9.8")
            failures = to.listing.failures
            while failures < 3:
                await asyncio.sleep(0.01)
                failures = to.listing.failures
            assert (to.listing.by, to.listing.error, to.seen.errors) == ("srv", error, [error])
    assert to.dns.watched == []


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_is_told_with_the_remedy_and_ends_when_it_is_lifted(
    tmp_path: Path, status: int
) -> None:
    async with stage(tmp_path) as to:
        to.dns.answers[ALIAS] = FROM_DNS
        to.kubernetes.refuse_with = status
        async with run(to):
            await to.seen.hosts("10.9.9.9")
            error = await to.seen.error(
                f"{status}: it is forbidden: let the pod's service account list and watch"
            )
            assert error is not None
            assert "namespace shop (RoleBinding in deploy/endpoint-slices)" in error
            to.kubernetes.refuse_with = 0
            await to.seen.hosts("10.0.0.1", "10.0.0.2")
            await to.seen.error(None)
            assert (to.listing.by, to.dns.watched, to.seen.errors) == ("kubernetes", [], [error, None])


async def test_a_port_with_a_number_is_asked_of_dns_by_its_addresses(tmp_path: Path) -> None:
    async with stage(tmp_path, has_server=False) as to:
        numbered = Endpoint("payments.shop:9090", 0, source=Source.KUBERNETES)
        to.slices.unwatch(ENTRY)
        to.slices.watch(numbered)
        async with run(to):
            await to.seen.error("there is no token")
            assert to.dns.watched == [Endpoint("payments.shop.svc.cluster.local", 9090)]


async def test_what_is_known_outlives_a_refusal_of_the_next_list_but_dns_takes_over(tmp_path: Path) -> None:
    async with stage(tmp_path) as to, run(to):
        await to.kubernetes.seen(1, is_watch=True)
        to.kubernetes.refuse_with = 503
        await to.kubernetes.error(410)
        await to.seen.error("503")
        assert to.dns.watched == []  # an outage of the API server takes nothing away
        to.kubernetes.refuse_with = 403
        to.dns.answers[ALIAS] = FROM_DNS
        await to.seen.hosts("10.9.9.9")


async def test_an_api_server_that_hangs_from_the_start_leaves_it_to_dns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "PAGE_SECONDS", 0.1)
    async with stage(tmp_path) as to:
        to.dns.answers[ALIAS] = FROM_DNS
        to.kubernetes.hangs = True
        async with run(to):
            await to.seen.hosts("10.9.9.9")
            await to.seen.error("no whole answer within 0.1 s")
            to.kubernetes.hangs = False
            await to.seen.hosts("10.0.0.1", "10.0.0.2")


async def test_a_renewed_token_is_read_at_the_next_request_and_once_more_at_401(tmp_path: Path) -> None:
    async with stage(tmp_path) as to:
        reads: list[str] = []
        real = ApiServer.token

        def token(server: ApiServer) -> str:
            found = real(server)
            reads.append(found)
            if len(reads) == 1:  # the kubelet renews it between our reading and the server's
                to.kubernetes.token = "t1"
                (tmp_path / "token").write_text("t1")
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ApiServer, "token", token)
            async with run(to):
                await to.kubernetes.seen(1, is_watch=True)
        assert reads == ["t0", "t1", "t1"]
        assert to.seen.errors == []


# The pod


def test_the_api_server_is_found_as_a_pod_finds_it(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    second.mkdir()
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    folders = (str(first), str(second))
    assert ApiServer.of(environ, folders) is None
    (second / "token").write_text("t")
    assert ApiServer.of(environ, folders) == ApiServer("https://[fd00::1]:6443", second)
    assert ApiServer.of({}, folders) is None


async def test_the_family_is_that_of_the_pod_else_that_of_the_api_server(tmp_path: Path) -> None:
    for environ, wanted in (
        ({"POD_IP": "fd00::7"}, "fd00::1"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::8"}, "fd00::1"),
        ({"POD_IP": "10.1.1.1", "KUBERNETES_SERVICE_HOST": "fd00::8"}, "10.0.0.1"),
    ):
        async with stage(tmp_path, environ=environ) as to:
            await to.kubernetes.put(sliced("a", "10.0.0.1"), sliced("b", "fd00::1", family="IPv6"))
            async with run(to):
                await to.seen.hosts(wanted)


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("search shop.svc.corp.local svc.corp.local corp.local\nnameserver 10.0.0.10\n", "corp.local"),
        ("search example.com\n", "cluster.local"),
        (None, "cluster.local"),
    ],
)
def test_the_domain_of_the_cluster_is_that_of_the_search_list(
    tmp_path: Path, text: str | None, domain: str
) -> None:
    file = tmp_path / "resolv.conf"
    if text is not None:
        file.write_text(text)
    assert cluster_domain(str(file)) == domain


async def test_an_unwatched_service_is_asked_for_no_more(tmp_path: Path) -> None:
    async with stage(tmp_path) as to, run(to):
        await to.kubernetes.seen(1, is_watch=True)
        to.slices.unwatch(ENTRY)
        await to.kubernetes.no_watches()
        assert to.slices.listing(ENTRY) is None


async def test_a_list_without_an_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_slices, "MOST_PAGES", 2)
    async with stage(tmp_path) as to:
        await to.kubernetes.put(*(sliced(f"s{number:02}", f"10.0.1.{number}") for number in range(40)))
        async with run(to):
            await to.seen.error("a list of more than 2 pages")
            assert to.seen.lists == []
