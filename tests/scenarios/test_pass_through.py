"""What no route names goes where it was going, and nowhere else: absolute form, `Host` and CONNECT."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from sidecar.core.transition import State
from sidecar.forwarding.passing import MOST_TOLD, PassedDestination
from sidecar.runtime.worker import Worker
from sidecar.transport import namespace
from sidecar.upstream.lookup import Answer, LookupFailed
from tests.support.clean import Complaints, assert_clean
from tests.support.http2_ends import Http2End, Stream, http2_client
from tests.support.own_address import own_address
from tests.support.proxy import HEADER, port, running
from tests.support.raw import (
    RawClient,
    RawPeer,
    RawUpstream,
    Response,
    Script,
    ask,
    raw_client,
    raw_upstream,
    turns,
)

ROUTES = """\
upstreams: {named: {endpoints: ["127.0.0.1:9"]}}
routes: [{name: named, listener: outbound, match: {hosts: [named.test]}, upstream: named}]
"""


def passing(options: str = "", defaults: str = "") -> str:
    """A header whose outbound listener passes through."""
    line = f'  outbound: {{address: "127.0.0.1:0", unmatched: pass_through{options}}}'
    return HEADER.replace('  outbound: {address: "127.0.0.1:0"}', line) + defaults


class Names:
    """A table of names."""

    def __init__(self, names: Mapping[str, tuple[str, ...]]) -> None:
        self.names = dict(names)
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def look_up(self, host: str) -> Answer:
        self.asked.append(host)
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        if host not in self.names:
            raise LookupFailed("not_found")
        return Answer(self.names[host], 30.0)


@dataclass
class Passage:
    """A sidecar that passes through, and something at the machine's own address that no route names."""

    worker: Worker
    there: RawUpstream
    names: Names

    @property
    def port(self) -> int:
        return port(self.worker, "outbound")

    @property
    def authority(self) -> bytes:
        return b"%b:%d" % (own_address().encode(), self.there.port)

    @property
    def destinations(self) -> list[PassedDestination]:
        return self.worker.assembly.passing.destinations()

    async def get(self, authority: bytes, *, is_absolute: bool = True) -> Response:
        target = b"http://%b/there" % authority if is_absolute else b"/there"
        return await self.ask(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, authority))

    async def ask(self, data: bytes, listener: str = "outbound") -> Response:
        return await ask(port(self.worker, listener), data)

    def rename(self, **names: str) -> None:
        """What names stand for from now on; those that were asked for before are asked for anew."""
        self.names.names.update({name: (address,) for name, address in names.items()})


@asynccontextmanager
async def passage(
    script: Script = RawPeer.echo, *, options: str = "", defaults: str = "", routes: str = ROUTES
) -> AsyncIterator[Passage]:
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with (
            raw_upstream(script, host=own_address()) as there,
            running(routes, passing(options, defaults)) as worker,
        ):
            names = Names({"there.test": (own_address(),)})
            worker.assembly.passing.names = names
            to = Passage(worker, there, names)
            yield to
            await assert_clean(worker)
            for destination in to.destinations:
                cluster = destination.cluster
                assert (cluster.in_flight, cluster.pending, destination.waiting) == (0, 0, [])
                assert cluster.connections == sum(pool.idle_count for pool in cluster.pools)
        assert there.problems == []
    assert complaints.found == []


def connect(authority: bytes) -> bytes:
    return b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority)


async def head_of(client: RawClient) -> tuple[bytes, bytes]:
    while b"\r\n\r\n" not in client.received and not client.is_ended:
        await client.read_some()
    head, _, rest = client.received.partition(b"\r\n\r\n")
    return head, rest


async def until(client: RawClient, end: bytes) -> None:
    while not client.received.endswith(end):
        assert not client.is_ended
        await client.read_some()


def error_of(response: Response) -> tuple[int, str]:
    status = (response.value(b"proxy-status") or b"").decode()
    return response.status, status.partition("error=")[2].partition(";")[0]


# Requests


@pytest.mark.parametrize("is_absolute", [True, False])
async def test_a_request_that_no_route_names_goes_to_the_host_it_asks_for(is_absolute: bool) -> None:
    async with passage() as to:
        response = await to.get(to.authority, is_absolute=is_absolute)
        assert (response.status, response.body) == (200, b"GET /there")
        (seen,) = to.there.requests
        assert (seen.target, seen.value(b"host")) == (b"/there", to.authority)
        (destination,) = to.destinations
        assert (str(destination.endpoint), destination.count) == (to.authority.decode(), 1)


async def test_a_name_is_asked_for_once_until_its_time_is_up() -> None:
    async with passage() as to:
        authority = b"there.test:%d" % to.there.port
        for _ in range(3):
            assert (await to.get(authority)).status == 200
        assert to.names.asked == ["there.test"]
        await asyncio.sleep(31)
        assert (await to.get(authority)).status == 200
        assert to.names.asked == ["there.test"] * 2


async def test_requests_that_come_at_once_share_one_look_up() -> None:
    async with passage() as to:
        to.names.may_answer.clear()
        authority = b"there.test:%d" % to.there.port
        asked = [asyncio.create_task(to.get(authority)) for _ in range(5)]
        while len(to.destinations) < 1 or len(to.destinations[0].waiting) < 5:
            await turns()
        to.names.may_answer.set()
        assert [(await one).status for one in asked] == [200] * 5
        assert to.names.asked == ["there.test"]


async def test_a_client_that_leaves_while_its_name_is_asked_for_is_forgotten() -> None:
    async with passage() as to:
        to.names.may_answer.clear()
        async with raw_client(to.port) as client:
            await client.send(b"GET http://there.test:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % to.there.port)
            while not to.destinations:
                await turns()
        while to.worker.service.exchanges:
            await turns()
        to.names.may_answer.set()
        await turns(20)
        assert to.there.peers == []


async def test_the_deadline_holds_while_a_name_is_asked_for() -> None:
    async with passage() as to:
        to.names.may_answer.clear()
        response = await to.get(b"there.test:%d" % to.there.port)
        assert error_of(response) == (504, "http_response_timeout")
        to.names.may_answer.set()


@pytest.mark.parametrize(
    ("error", "expected"),
    [(LookupFailed("not_found"), (502, "dns_error")), (TimeoutError(), (504, "dns_timeout"))],
)
async def test_a_name_that_is_not_found_is_told_at_once(error: Exception, expected: tuple[int, str]) -> None:
    async with passage() as to:
        to.names.error = error
        assert error_of(await to.get(b"nowhere.test")) == expected
        assert error_of(await to.ask(connect(b"nowhere.test:443"))) == expected


async def test_what_was_known_of_a_name_holds_while_it_cannot_be_asked_for() -> None:
    async with passage() as to:
        authority = b"there.test:%d" % to.there.port
        assert (await to.get(authority)).status == 200
        to.names.error = TimeoutError()
        await asyncio.sleep(31)
        assert (await to.get(authority)).status == 200


async def test_each_destination_has_a_breaker_of_its_own() -> None:
    async def failing(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    async with passage(failing) as to, raw_upstream(host=own_address()) as other:
        for _ in range(5):
            assert (await to.get(to.authority)).status == 500
        refused = await to.get(to.authority)
        assert error_of(refused) == (503, "destination_unavailable")
        assert (await to.get(b"%b:%d" % (own_address().encode(), other.port))).status == 200
        states = {str(one.endpoint): one.breaker.state for one in to.destinations}
        assert states[to.authority.decode()] is State.OPEN
        assert list(states.values()).count(State.CLOSED) == 1


async def test_the_defaults_hold_for_what_is_passed_through() -> None:
    async def slow(peer: RawPeer) -> None:
        while await peer.read_some():
            pass

    async with passage(slow, defaults="defaults: {timeouts: {request: 300ms}}\n") as to:
        before = asyncio.get_running_loop().time()
        assert error_of(await to.get(to.authority)) == (504, "http_response_timeout")
        assert asyncio.get_running_loop().time() - before == pytest.approx(0.3, abs=0.1)


async def test_metrics_name_no_host() -> None:
    async with passage() as to:
        await to.get(to.authority)
        await to.get(b"there.test:%d" % to.there.port)
        (route,) = [one for one in to.worker.numbers.routes() if one.name == "pass_through"]
        assert {key[0] for key in route.client} == {"pass_through"}


# Who may, and where


@pytest.mark.parametrize("form", ["absolute", "host", "connect"])
@pytest.mark.parametrize(
    "authority",
    [
        "127.0.0.1:PORT", "127.9.9.9:PORT", "0.0.0.0:PORT", "[::]:PORT", "[::1]:PORT", "[::ffff:127.0.0.1]:PORT",
        "169.254.169.254:80", "[fd00:ec2::254]:80", "168.63.129.16:80", "100.100.100.200:80",
        "[::ffff:169.254.169.254]:80", "[64:ff9b::a9fe:a9fe]:80", "[2002:a9fe:a9fe::]:80", "[fe80::1]:80",
        "[64:ff9b::7f00:1]:PORT", "[2002:7f00:1::1]:PORT", "[::7f00:1]:PORT", "OWN:ADMIN", "OWN:OUTBOUND",
        "OWN:INBOUND", "OWN:PROBES", "[::ffff:OWN]:OUTBOUND",
        "loopback.test:PORT", "metadata.test:80", "mapped.test:80", "own.test:OUTBOUND",
    ],
)  # fmt: skip
async def test_closed_addresses_are_refused_in_every_form(authority: str, form: str) -> None:
    async with passage() as to:
        worker = to.worker
        to.rename(**{
            "loopback.test": "127.0.0.1", "metadata.test": "169.254.169.254", "mapped.test": "::ffff:169.254.169.254",
            "own.test": own_address(),
        })  # fmt: skip
        for name, value in {
            "PORT": to.there.port,
            "OWN": own_address(),
            "ADMIN": worker.control.admin.server.port,
            "PROBES": worker.control.probes.server.port,
            "OUTBOUND": to.port,
            "INBOUND": port(worker, "inbound"),
        }.items():
            authority = authority.replace(name, str(value))
        asked = authority.encode()
        if form == "connect":
            response = await to.ask(connect(asked))
        else:
            response = await to.get(asked, is_absolute=form == "absolute")
        assert error_of(response) == (403, "destination_ip_prohibited")
        assert to.there.peers == []


async def test_of_a_name_only_its_open_addresses_are_used() -> None:
    async with passage() as to:
        to.names.names["both.test"] = ("127.0.0.1", own_address())
        async with raw_upstream(host="127.0.0.1") as inside:
            for _ in range(8):
                assert (await to.get(b"both.test:%d" % to.there.port)).status == 200
            assert inside.peers == []
        assert [pool.endpoint.host for pool in to.destinations[0].cluster.pools] == [own_address()]


async def test_a_name_that_turns_into_a_closed_address_is_refused_from_then_on() -> None:
    async with passage() as to:
        authority = b"there.test:%d" % to.there.port
        assert (await to.get(authority)).status == 200
        to.rename(**{"there.test": "127.0.0.1"})
        await asyncio.sleep(31)
        assert error_of(await to.get(authority)) == (403, "destination_ip_prohibited")


async def test_only_the_given_ports_are_passed_through_to() -> None:
    async with passage(options=", pass_through_ports: [443]") as to:
        assert error_of(await to.get(to.authority)) == (403, "destination_ip_prohibited")
        assert error_of(await to.ask(connect(to.authority))) == (403, "destination_ip_prohibited")
        assert to.there.peers == []


@pytest.mark.plain
async def test_callers_outside_the_pod_are_not_passed_through(monkeypatch: pytest.MonkeyPatch) -> None:
    async with passage() as to:
        monkeypatch.setattr("sidecar.forwarding.passing.is_local", lambda address: address != "127.0.0.1")
        assert error_of(await to.get(to.authority)) == (404, "destination_not_found")
        assert (await to.ask(connect(to.authority))).status == 405
        assert to.there.peers == []


async def test_whoever_calls_the_pod_chooses_nobody_by_host() -> None:
    header = HEADER.replace(
        'inbound: {address: "127.0.0.1:0"}', 'inbound: {address: "127.0.0.1:0", unmatched: pass_through}'
    )
    async with raw_upstream(host=own_address()) as there, running(ROUTES, header) as worker:
        async with raw_client(port(worker)) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: %b:%d\r\n\r\n" % (own_address().encode(), there.port))
            (response,) = await client.responses([b"GET"])
        assert response.status == 404
        assert there.peers == []


def test_the_addresses_of_the_machine_are_local_and_others_are_not() -> None:
    assert namespace.is_local(own_address())
    assert namespace.is_local(f"::ffff:{own_address()}")
    assert namespace.is_local("127.0.0.6")
    assert namespace.is_local("::1")
    assert not namespace.is_local("198.51.100.7")
    assert not namespace.is_local("no address")


# CONNECT


async def test_connect_reaches_a_host_that_no_route_names() -> None:
    async with passage() as to, raw_client(to.port) as client:
        await client.send(connect(to.authority))
        head, rest = await head_of(client)
        assert (head.split(b"\r\n")[0], rest) == (b"HTTP/1.1 200 OK", b"")
        assert b"content-length" not in head.lower()
        assert b"transfer-encoding" not in head.lower()
        await client.send(b"GET /inside HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(client, b"GET /inside")
        assert to.there.peers[0].received == b"GET /inside HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"", b""), (b"HTTP/1.1", b"HTTP/1.0"), (b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")],
)
async def test_bytes_that_come_with_a_connect_are_the_tunnels(old: bytes, new: bytes) -> None:
    async with passage() as to, raw_client(to.port) as client:
        await client.send(
            connect(to.authority).replace(old, new, 1) + b"GET /early HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        await until(client, b"GET /early")
        assert len(to.there.requests) == 1


async def test_a_server_that_speaks_first_is_heard() -> None:
    async def greeting(peer: RawPeer) -> None:
        await peer.send(b"220 hello\r\n")
        await peer.send(b"you said " + await peer.reader.readuntil(b"\n"))

    async with passage(greeting) as to, raw_client(to.port) as client:
        await client.send(connect(to.authority))
        await until(client, b"220 hello\r\n")
        await client.send(b"EHLO\n")
        await until(client, b"you said EHLO\n")
        await client.read_to_end()


async def test_a_tunnel_keeps_half_closes() -> None:
    async def counting(peer: RawPeer) -> None:
        data = await peer.reader.read()
        await peer.send(b"%d bytes" % len(data))

    async with passage(counting) as to, raw_client(to.port) as client:
        await client.send(connect(to.authority))
        await head_of(client)
        await client.send(b"x" * 1000)
        client.writer.write_eof()
        await until(client, b"1000 bytes")
        await client.read_to_end()


async def test_the_failure_to_connect_is_the_status_of_the_connect() -> None:
    async with passage() as to:
        async with raw_upstream(host=own_address()) as gone:
            number = gone.port
        response = await to.ask(connect(b"%b:%d" % (own_address().encode(), number)))
        assert error_of(response) == (502, "connection_refused")


async def test_connecting_is_judged_by_the_destinations_breaker() -> None:
    async with passage(defaults="defaults: {circuit_breaker: {warm_up: 1ms}}\n") as to:
        async with raw_upstream(host=own_address()) as gone:
            authority = b"%b:%d" % (own_address().encode(), gone.port)
        await asyncio.sleep(0.1)
        answers = [error_of(await to.ask(connect(authority))) for _ in range(7)]
        assert answers[:5] == [(502, "connection_refused")] * 5
        assert answers[5:] == [(503, "destination_unavailable")] * 2


async def test_a_tunnel_is_counted_in_bytes_and_time() -> None:
    async with passage() as to:
        async with raw_client(to.port) as client:
            await client.send(connect(to.authority))
            await head_of(client)
            await client.send(b"GET /inside HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(client, b"GET /inside")
            await asyncio.sleep(2)
        while to.worker.service.exchanges:
            await turns()
        (route,) = [one for one in to.worker.numbers.routes() if one.name == "pass_through"]
        route.fold()
        ((key, row),) = route.server.items()
        assert key[:2] == (b"CONNECT", 200)
        assert row.state[1] == pytest.approx(2.0, abs=0.5)


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT there.test HTTP/1.1\r\nHost: there.test\r\n\r\n",
        b"CONNECT there.test: HTTP/1.1\r\nHost: there.test\r\n\r\n",
        b"CONNECT there.test:0 HTTP/1.1\r\nHost: there.test\r\n\r\n",
        b"CONNECT /path HTTP/1.1\r\nHost: there.test\r\n\r\n",
        b"CONNECT http://there.test:80/ HTTP/1.1\r\nHost: there.test\r\n\r\n",
        b"CONNECT user@there.test:80 HTTP/1.1\r\nHost: there.test\r\n\r\n",
        b"CONNECT there.test:443 HTTP/1.1\r\nHost: there.test\r\nContent-Length: 5\r\n\r\nhello",
        b"CONNECT there.test:443 HTTP/1.1\r\nHost: there.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_a_malformed_connect_is_refused_and_closes(head: bytes) -> None:
    async with passage() as to, raw_client(to.port) as client:
        await client.send(head)
        await client.read_to_end()
        assert client.received.startswith(b"HTTP/1.1 400 ")
        assert to.there.peers == []


async def test_connect_is_refused_where_nothing_is_passed_through() -> None:
    async with running(ROUTES) as worker:
        for listener in ("outbound", "inbound"):
            async with raw_client(port(worker, listener)) as client:
                await client.send(connect(b"elsewhere.test:443") + b"\x16\x03\x01 not a request")
                await client.read_to_end()
                assert client.received.startswith(b"HTTP/1.1 405 ")


async def test_what_comes_behind_a_refused_connect_is_no_request() -> None:
    async with passage() as to, raw_client(to.port) as client:
        smuggled = b"GET http://%b/smuggled HTTP/1.1\r\nHost: x\r\n\r\n" % to.authority
        await client.send(connect(b"127.0.0.1:80") + smuggled)
        await client.read_to_end()
        assert client.received.count(b"HTTP/1.1 ") == 1
        assert to.there.peers == []


# Bounds


async def test_the_table_of_destinations_has_a_bound() -> None:
    async with passage() as to:
        passing_through = to.worker.assembly.passing
        passing_through.most = 3
        to.rename(**{f"host{number}.test": own_address() for number in range(5)})
        for number in range(5):
            assert (await to.get(b"host%d.test:%d" % (number, to.there.port))).status == 200
        assert [one.endpoint.host for one in to.destinations] == ["host4.test", "host3.test", "host2.test"]
        assert passing_through.evicted == 2


async def test_destinations_in_use_keep_their_places() -> None:
    async with passage() as to:
        to.worker.assembly.passing.most = 1
        async with raw_client(to.port) as client:
            await client.send(connect(to.authority))
            await head_of(client)
            refused = await to.get(b"there.test:%d" % to.there.port)
            assert error_of(refused) == (503, "connection_limit_reached")
        while to.worker.service.exchanges:
            await turns()
        assert (await to.get(b"there.test:%d" % to.there.port)).status == 200


async def test_an_unused_destination_makes_room_however_many_before_it_are_in_use() -> None:
    """Database connections lie open for hours: they are who was asked for the longest time ago."""
    async with passage() as to, AsyncExitStack() as stack:
        hosts = [f"host{number}.test" for number in range(102)]
        to.rename(**dict.fromkeys(hosts, own_address()))
        to.worker.assembly.passing.most = len(hosts) - 1
        *used, unused, another = (b"%b:%d" % (host.encode(), to.there.port) for host in hosts)
        for authority in used:
            client = await stack.enter_async_context(raw_client(to.port))
            await client.send(connect(authority))
            assert (await head_of(client))[0].startswith(b"HTTP/1.1 200 ")
        assert (await to.get(unused)).status == 200
        assert (await to.get(another)).status == 200
        assert {one.endpoint.host for one in to.destinations} == {*hosts[:100], hosts[101]}


async def test_each_host_is_told_once_and_the_log_has_a_bound() -> None:
    async with passage() as to:
        told: list[str] = []
        table = to.worker.assembly.passing
        table.tell = lambda passed: told.append(str(passed.endpoint))
        for _ in range(3):
            await to.get(to.authority)
        assert told == [to.authority.decode()]
        table.told = MOST_TOLD
        await to.get(b"there.test:%d" % to.there.port)
        assert told == [to.authority.decode()]


# HTTP/2


async def connect_by_http2(end: Http2End, authority: bytes) -> Stream:
    stream = Stream(end, end.codec.open_stream(((b":method", b"CONNECT"), (b":authority", authority)), ()))
    end.flush()
    return stream


async def test_connect_by_http2_makes_a_tunnel_of_its_stream() -> None:
    async def counting(peer: RawPeer) -> None:
        data = await peer.reader.read()
        await peer.send(b"%d bytes" % len(data))

    async with passage(counting) as to:
        async with http2_client(to.port) as end:
            streams = [await connect_by_http2(end, to.authority) for _ in range(3)]
            assert [await stream.head() for stream in streams] == [200] * 3
            for number, stream in enumerate(streams):
                await stream.send(b"x" * (1000 + number))
                await stream.end()
            answers = [await stream.read_to_end() for stream in streams]
        assert answers == [b"1000 bytes", b"1001 bytes", b"1002 bytes"]


async def test_the_failure_to_connect_is_the_status_of_the_connect_by_http2() -> None:
    async with passage() as to:
        async with raw_upstream(host=own_address()) as gone:
            nowhere = b"%b:%d" % (own_address().encode(), gone.port)
        async with http2_client(to.port) as end:
            for authority, status in ((nowhere, 502), (b"127.0.0.1:80", 403), (b"there.test", 400)):
                stream = await connect_by_http2(end, authority)
                assert await stream.head() == status
                await stream.read_to_end()
