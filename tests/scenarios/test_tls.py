"""A listener with TLS, as its clients see it (SPEC-PROTOCOLS 13)."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sidecar.core.memory_budget import CONNECTION_BYTES, SECURED_BYTES, Held
from sidecar.core.tls_numbers import Handshake
from sidecar.downstream.handshake import HANDSHAKES_A_TURN
from sidecar.transport.tls.hello import MAX_HELLO_BYTES
from sidecar.transport.tls.transport import TlsTransport
from tests.scenarios.stage import Stage, saying, stage
from tests.support.authority import Authority, Pair
from tests.support.proxy import HEADER
from tests.support.tls_client import GET, Closed, TlsClient, tls_client

WEB = "spiffe://cluster.local/ns/shop/sa/web"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def listening(*pairs: Pair, tls: str = "", listener: str = "") -> str:
    """The usual header, with TLS on the inbound listener; further keys of its `tls`, and of itself."""
    listed = ", ".join(pair.yaml() for pair in pairs)
    keys = (
        f"tls: {{certificates: [{listed}]{f', {tls}' if tls else ''}}}{f', {listener}' if listener else ''}"
    )
    return HEADER.replace('inbound: {address: "127.0.0.1:0"}', f'inbound: {{address: "127.0.0.1:0", {keys}}}')


def asking(authority: Authority, rule: str) -> str:
    if rule == "off":
        return "client: off"
    return f'client: {rule}, client_ca: "{authority.path}"'


async def shake_and_ask(client: TlsClient) -> None:
    """In TLS 1.3 a refusal comes at the first read."""
    await client.handshake()
    assert (await client.ask()).status == 200


def results(to: Stage) -> dict[Handshake, int]:
    return dict(to.worker.listeners["inbound"].handshakes)


def only(version: ssl.TLSVersion) -> Callable[[ssl.SSLContext], ssl.SSLContext]:
    def limited(context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = context.maximum_version = version
        return context

    return limited


VERSIONS = pytest.mark.parametrize(
    "limited", [only(ssl.TLSVersion.TLSv1_2), only(ssl.TLSVersion.TLSv1_3)], ids=["1.2", "1.3"]
)
Limited = Callable[[ssl.SSLContext], ssl.SSLContext]


# A connection


@VERSIONS
@pytest.mark.parametrize("piece_bytes", [0, 1, 7, 300])
async def test_requests_are_answered_however_the_handshake_is_cut(
    authority: Authority, limited: Limited, piece_bytes: int
) -> None:
    async with stage(saying(OK), header=listening(authority.pair("a.test"))) as to:
        async with tls_client(to.port, limited(authority.client()), is_shaken=False) as client:
            await client.handshake(piece_bytes=piece_bytes)
            for _ in range(3):
                assert (await client.ask()).status == 200
        assert [request.value(b"x-forwarded-proto") for request in to.requests] == [b"https"] * 3
        assert results(to) == {Handshake.DONE: 1}


async def test_forwarded_says_https(authority: Authority) -> None:
    async with (
        stage(saying(OK), header=listening(authority.pair("a.test"))) as to,
        tls_client(to.port, authority.client()) as client,
    ):
        await client.ask(GET.replace(b"\r\n\r\n", b"\r\nForwarded: for=192.0.2.1;proto=http\r\n\r\n"))
        (request,) = to.requests
        assert (
            request.value(b"forwarded") == b"for=192.0.2.1;proto=http, for=127.0.0.1;proto=https;host=a.test"
        )


async def test_end_of_tls_is_said_and_heard(authority: Authority) -> None:
    async with (
        stage(saying(OK), header=listening(authority.pair("a.test"))) as to,
        tls_client(to.port, authority.client()) as client,
    ):
        await client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert (await client.answer()).status == 200
        assert await client.read() == b""


async def test_oldest_version_is_what_the_listener_says(authority: Authority) -> None:
    header = listening(authority.pair("a.test"), tls="minimum_version: 1.3")
    async with stage(saying(OK), header=header) as to:
        async with tls_client(
            to.port, only(ssl.TLSVersion.TLSv1_2)(authority.client()), is_shaken=False
        ) as client:
            with pytest.raises(ssl.SSLError, match="protocol version"):
                await client.handshake()
        async with tls_client(to.port, authority.client()) as client:
            assert (await client.ask()).status == 200
            assert client.tls.version() == "TLSv1.3"
        assert results(to) == {Handshake.FAILED: 1, Handshake.DONE: 1}


@pytest.mark.parametrize(
    ("protocol", "offered", "agreed"),
    [
        ("auto", ("h2", "http/1.1"), "h2"),
        ("auto", ("http/1.1",), "http/1.1"),
        ("auto", ("spdy/1", "http/1.1"), "http/1.1"),
        ("auto", (), None),
        ("http1", ("h2", "http/1.1"), "http/1.1"),
        ("http2", ("h2", "http/1.1"), "h2"),
    ],
)
async def test_protocol_is_agreed_on_in_the_handshake(
    authority: Authority, protocol: str, offered: tuple[str, ...], agreed: str | None
) -> None:
    header = listening(authority.pair("a.test"), listener=f"protocol: {protocol}")
    context = authority.client(alpn=offered)
    async with stage(saying(OK), header=header) as to, tls_client(to.port, context) as client:
        assert client.tls.selected_alpn_protocol() == agreed
        if agreed == "h2":
            settings = await client.read()
            assert settings[3:5] == b"\x04\x00"
        else:
            assert (await client.ask()).status == 200


async def test_a_listener_of_http2_alone_takes_no_http1_from_who_offers_no_protocol(
    authority: Authority,
) -> None:
    header = listening(authority.pair("a.test"), listener="protocol: http2")
    context = authority.client(alpn=())
    async with stage(saying(OK), header=header) as to, tls_client(to.port, context) as client:
        await client.send(GET)
        assert (await client.read())[3:5] == b"\x04\x00"  # SETTINGS
        assert to.requests == []


async def test_client_without_a_protocol_in_common_is_told_so(authority: Authority) -> None:
    async with stage(header=listening(authority.pair("a.test"))) as to:
        context = authority.client(alpn=("spdy/1",))
        async with tls_client(to.port, context, is_shaken=False) as client:
            with pytest.raises(ssl.SSLError, match="no application protocol"):
                await client.handshake()
        assert results(to) == {Handshake.NO_PROTOCOL: 1}


# Which certificate


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.test", ("a.test", "www.a.test")),
        ("A.Test", ("a.test", "www.a.test")),
        ("www.a.test", ("a.test", "www.a.test")),
        ("b.test", ("b.test", "*.b.test")),
        ("x.b.test", ("b.test", "*.b.test")),
        ("exact.b.test", ("exact.b.test",)),
        ("y.x.b.test", ("a.test", "www.a.test")),
        ("unknown.test", ("a.test", "www.a.test")),
        (None, ("a.test", "www.a.test")),
    ],
)
async def test_certificate_is_chosen_by_the_name_asked_for(
    authority: Authority, name: str | None, shown: tuple[str, ...]
) -> None:
    pairs = (
        authority.pair("a.test", "www.a.test"),
        authority.pair("b.test", "*.b.test"),
        authority.pair("exact.b.test"),
    )
    context = authority.client()
    context.check_hostname = False
    async with (
        stage(saying(OK), header=listening(*pairs)) as to,
        tls_client(to.port, context, name) as client,
    ):
        assert client.shown == shown


async def test_certificate_without_names_is_for_every_host(authority: Authority) -> None:
    context = authority.client()
    context.check_hostname = False
    pairs = authority.pair("a.test"), authority.pair(uris=[WEB], common_name="pod")
    async with (
        stage(saying(OK), header=listening(*pairs)) as to,
        tls_client(to.port, context, "payments") as client,
    ):
        assert client.shown == ()
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: payments:80\r\n\r\n")).status == 200
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: anything\r\n\r\n")).status == 200
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")).status == 421


@pytest.mark.parametrize(
    ("name", "host", "status"),
    [
        ("a.test", b"a.test", 200),
        ("a.test", b"A.TEST.:8443", 200),
        ("a.test", b"www.a.test", 200),
        ("a.test", b"unknown.test", 200),
        ("a.test", b"b.test", 421),
        ("a.test", b"x.b.test:443", 421),
        ("b.test", b"x.b.test", 200),
        ("b.test", b"a.test", 421),
        ("b.test", b"unknown.test", 421),
        ("b.test", b"[::1]:80", 421),
        (None, b"a.test", 200),
        (None, b"b.test", 421),
        ("unknown.test", b"unknown.test", 200),
    ],
)
async def test_request_for_a_host_with_another_certificate_is_misdirected(
    authority: Authority, name: str | None, host: bytes, status: int
) -> None:
    context = authority.client()
    context.check_hostname = False
    pairs = authority.pair("a.test", "www.a.test"), authority.pair("b.test", "*.b.test")
    async with stage(saying(OK), header=listening(*pairs)) as to:
        async with tls_client(to.port, context, name) as client:
            for head in (
                b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n",
                b"GET / HTTP/1.1\r\nhost:%b\r\nTE: a\r\n\r\n",
            ):
                answer = await client.ask(head % host)
                assert answer.status == status
                if status == 421:
                    assert b"error=http_request_denied" in (answer.value(b"proxy-status") or b"")
        assert len(to.requests) == (2 if status == 200 else 0)


async def test_misdirected_request_keeps_its_connection_and_reads_its_body(authority: Authority) -> None:
    pairs = authority.pair("a.test"), authority.pair("b.test")
    post = b"POST / HTTP/1.1\r\nHost: b.test\r\nContent-Length: 5\r\n\r\nhello"
    async with (
        stage(saying(OK), header=listening(*pairs)) as to,
        tls_client(to.port, authority.client()) as client,
    ):
        await client.send(post)
        assert (await client.answer(b"POST")).status == 421
        assert (await client.ask()).status == 200


async def test_one_certificate_serves_every_host(authority: Authority) -> None:
    async with (
        stage(saying(OK), header=listening(authority.pair("a.test"))) as to,
        tls_client(to.port, authority.client()) as client,
    ):
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n")).status == 200


# Who the client is


@VERSIONS
@pytest.mark.parametrize(
    ("rule", "is_shown", "is_served"),
    [
        ("off", False, True),
        ("off", True, True),
        ("request", False, True),
        ("request", True, True),
        ("require", False, False),
        ("require", True, True),
    ],
)
async def test_client_shows_what_the_listener_asks_for(
    authority: Authority, limited: Limited, rule: str, is_shown: bool, is_served: bool
) -> None:
    header = listening(authority.pair("a.test"), tls=asking(authority, rule))
    context = limited(authority.client(authority.pair(uris=[WEB], common_name="web") if is_shown else None))
    async with (
        stage(saying(OK), header=header) as to,
        tls_client(to.port, context, is_shaken=False) as client,
    ):
        if is_served:
            await client.handshake()
            assert (await client.ask()).status == 200
            assert results(to) == {Handshake.DONE: 1}
            has_line = to.requests[0].value(b"x-forwarded-client-cert") is not None
            assert has_line == (is_shown and rule != "off")
        else:
            with pytest.raises((ssl.SSLError, Closed)):
                await shake_and_ask(client)
            assert results(to) == {Handshake.CERTIFICATE: 1}


@VERSIONS
@pytest.mark.parametrize("rule", ["request", "require"])
@pytest.mark.parametrize("fault", ["foreign", "expired", "future"])
async def test_bad_certificate_of_a_client_fails_where_one_is_asked_for(
    authority: Authority, tmp_path: Path, limited: Limited, rule: str, fault: str
) -> None:
    (tmp_path / "foreign").mkdir()
    shown = {
        "foreign": lambda: Authority(tmp_path / "foreign").pair("web"),
        "expired": lambda: authority.pair("web", days=-0.5),
        "future": lambda: authority.pair("web", begins_in_days=1),
    }[fault]()
    header = listening(authority.pair("a.test"), tls=asking(authority, rule))
    async with stage(saying(OK), header=header) as to:
        async with tls_client(to.port, limited(authority.client(shown)), is_shaken=False) as client:
            with pytest.raises((ssl.SSLError, Closed)):
                await shake_and_ask(client)
        assert results(to) == {Handshake.CERTIFICATE: 1}
        assert to.requests == []


async def test_upstream_is_told_of_the_client_in_envoys_form_and_nothing_else(authority: Authority) -> None:
    own = authority.pair("a.test", uris=["spiffe://cluster.local/ns/pay"])
    shown = authority.pair("web.shop", uris=[WEB])
    claim = b"\r\nX-Forwarded-Client-Cert: URI=spiffe://x/admin\r\nx_forwarded_client_cert: URI=spiffe://x/admin\r\n\r\n"
    header = listening(own, tls=asking(authority, "require"))
    async with stage(saying(OK), header=header) as to, tls_client(to.port, authority.client(shown)) as client:
        for data in (GET, GET.replace(b"\r\n\r\n", claim), GET):
            assert (await client.ask(data)).status == 200
        told = f'By=spiffe://cluster.local/ns/pay;Hash={shown.sha256};Subject="CN=web.shop";URI={WEB};DNS=web.shop'
        for request in to.requests:
            assert request.values(b"x-forwarded-client-cert") == [told.encode()]
            assert request.values(b"x_forwarded_client_cert") == []


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        (WEB, 200),
        ("spiffe://cluster.local/ns/shopping/sa/web", 404),
        ("spiffe://other.local/ns/shop/sa/web", 404),
        (None, 404),
    ],
)
async def test_route_is_for_the_clients_it_names(authority: Authority, uri: str | None, status: int) -> None:
    header = listening(authority.pair("a.test"), tls=asking(authority, "request"))
    shown = authority.pair("web", uris=[uri]) if uri is not None else None
    route = 'match: {client: ["spiffe://cluster.local/ns/shop"]}'
    context = authority.client(shown)
    async with (
        stage(saying(OK), header=header, route=route) as to,
        tls_client(to.port, context) as client,
    ):
        assert (await client.ask()).status == status


async def test_session_keeps_who_the_client_was(authority: Authority) -> None:
    header = listening(authority.pair("a.test"), tls=asking(authority, "require"))
    context = authority.client(authority.pair("web", uris=[WEB]))
    route = f'match: {{client: ["{WEB}"]}}'
    async with stage(saying(OK), header=header, route=route) as to:
        async with tls_client(to.port, context) as client:
            assert (await client.ask()).status == 200
            session = client.tls.session
        async with tls_client(to.port, context, session=session) as client:
            assert (await client.ask()).status == 200
            assert client.tls.session_reused
        first, second = (request.value(b"x-forwarded-client-cert") for request in to.requests)
        assert first == second != None  # noqa: E711


@VERSIONS
async def test_session_of_another_name_is_not_resumed(authority: Authority, limited: Limited) -> None:
    pairs = authority.pair("a.test"), authority.pair("b.test")
    context = limited(authority.client())
    async with stage(saying(OK), header=listening(*pairs)) as to:
        async with tls_client(to.port, context, "a.test") as client:
            assert (await client.ask()).status == 200
            session = client.tls.session
        async with tls_client(to.port, context, "b.test", session) as client:
            assert client.shown == ("b.test",)
            assert not client.tls.session_reused
        async with tls_client(to.port, context, "a.test", session) as client:
            assert client.tls.session_reused


async def test_ticket_comes_with_the_first_answer_and_brings_the_next_one(authority: Authority) -> None:
    """TLS 1.3: by itself it would be a packet that nobody waits for."""
    context = authority.client()
    session = None
    async with stage(saying(OK), header=listening(authority.pair("a.test"))) as to:
        for _ in range(3):
            async with tls_client(to.port, context, session=session) as client:
                assert client.tls.session_reused == (session is not None)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(1):
                        await client.reader.read(1)
                assert (await client.ask()).status == 200
                session = client.tls.session
                assert session is not None
                assert session.has_ticket


async def test_ticket_comes_with_the_end_where_nothing_was_answered(authority: Authority) -> None:
    context = authority.client()
    header = listening(authority.pair("a.test"), listener="timeouts: {idle: 2s}")
    async with stage(saying(OK), header=header) as to:
        async with tls_client(to.port, context) as client:
            assert await client.read() == b""
            session = client.tls.session
        async with tls_client(to.port, context, session=session) as client:
            assert client.tls.session_reused


# Who does not speak TLS, or takes too long


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 9]
)
async def test_plain_bytes_end_and_are_counted(authority: Authority, data: bytes) -> None:
    async with stage(header=listening(authority.pair("a.test"))) as to:
        reader, writer = await asyncio.open_connection("127.0.0.1", to.port)
        writer.write(data)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
        assert results(to) == {Handshake.NOT_TLS: 1}
        assert to.requests == []


async def test_first_message_has_a_longest_size(authority: Authority) -> None:
    async with stage(header=listening(authority.pair("a.test"))) as to:
        reader, writer = await asyncio.open_connection("127.0.0.1", to.port)
        record = b"\x16\x03\x01\x01\x00" + b"\x01\x00\x3f\x00" + b"x" * 252
        more = b"\x16\x03\x01\x01\x00" + b"x" * 256
        writer.write(record + more * (MAX_HELLO_BYTES // len(more)))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
        assert results(to) == {Handshake.TOO_LONG: 1}


@pytest.mark.parametrize("silence", ["nothing", "half a message", "half a handshake"])
async def test_slow_handshake_ends_by_its_own_clock(authority: Authority, silence: str) -> None:
    header = listening(authority.pair("a.test"), listener="timeouts: {handshake: 4s, head: 60s, idle: 60s}")
    loop = asyncio.get_running_loop()
    async with stage(header=header) as to:
        async with tls_client(to.port, authority.client(), is_shaken=False) as client:
            began = loop.time()
            first = client.first_flight()
            sent = {"nothing": b"", "half a message": first[:100], "half a handshake": first}[silence]
            client.writer.write(sent)
            while True:
                try:
                    if not await client.reader.read(65536):
                        break
                except ConnectionError:
                    break
            assert 4.0 <= loop.time() - began < 4.5
        assert results(to) == {Handshake.TIMEOUT: 1}


async def test_a_byte_a_second_is_no_progress(authority: Authority) -> None:
    header = listening(authority.pair("a.test"), listener="timeouts: {handshake: 4s}")
    loop = asyncio.get_running_loop()
    async with stage(header=header) as to:
        async with tls_client(to.port, authority.client(), is_shaken=False) as client:
            began, first = loop.time(), client.first_flight()
            ended = asyncio.ensure_future(client.reader.read(1))
            for byte in first:
                client.writer.write(bytes((byte,)))
                await asyncio.wait({ended}, timeout=1.0)
                if ended.done():
                    break
            assert 4.0 <= loop.time() - began < 5.5
            ended.exception()
        assert results(to) == {Handshake.TIMEOUT: 1}


async def test_handshakes_count_as_connections(authority: Authority) -> None:
    header = listening(authority.pair("a.test"), listener="limits: {connections: 1}")
    async with stage(saying(OK), header=header) as to:
        async with tls_client(to.port, authority.client(), is_shaken=False) as first:
            first.writer.write(first.first_flight()[:10])
            await first.writer.drain()
            async with tls_client(to.port, authority.client()) as second:
                assert (await second.ask()).status == 503
        assert to.worker.listeners["inbound"].refused_connections == 1


async def test_client_that_leaves_in_its_handshake_is_forgotten(authority: Authority) -> None:
    async with stage(saying(OK), header=listening(authority.pair("a.test"))) as to:
        for size in (0, 1, 100, 5000):
            async with tls_client(to.port, authority.client(), is_shaken=False) as client:
                client.writer.write(client.first_flight()[:size])
                await client.writer.drain()
        async with tls_client(to.port, authority.client()) as client:
            assert (await client.ask()).status == 200
        assert results(to) == {Handshake.LEFT: 4, Handshake.DONE: 1}
        assert to.worker.service.memory.used_bytes >= 0


async def test_client_that_leaves_before_it_is_told_why_its_handshake_failed_is_forgotten(
    authority: Authority,
) -> None:
    context = only(ssl.TLSVersion.TLSv1_2)(authority.client())
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")  # the certificate's key is of an elliptic curve
    async with stage(saying(OK), header=listening(authority.pair("a.test"))) as to:
        for number in range(1, 9):
            async with tls_client(to.port, context, is_shaken=False) as client:
                client.writer.write(client.first_flight())
                await client.writer.drain()
            while sum(results(to).values()) < number:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert results(to) == {Handshake.FAILED: 8}


async def test_client_that_does_not_trust_us_says_so(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other").client()
    async with stage(header=listening(authority.pair("a.test"))) as to:
        async with tls_client(to.port, other, is_shaken=False) as client:
            with pytest.raises(ssl.SSLCertVerificationError):
                await client.handshake()
            await client.flush()
            assert await client.reader.read() == b""
        assert results(to) == {Handshake.ALERT: 1}
        address, detail = to.worker.listeners["inbound"].last_handshakes[Handshake.ALERT]
        assert (address, "unknown_ca" in detail) == ("127.0.0.1", True)


# Many at once


class Beats:
    """Counts the turns of the loop, and what happens in each."""

    def __init__(self) -> None:
        self.turn = 0
        self.seen: list[int] = []
        self._loop = asyncio.get_running_loop()
        self._is_over = False
        self._beat()

    def _beat(self) -> None:
        self.turn += 1
        if not self._is_over:
            self._loop.call_soon(self._beat)

    def note(self) -> None:
        self.seen.append(self.turn)

    def end(self) -> int:
        """The most in one turn."""
        self._is_over = True
        return max(Counter(self.seen).values())


@pytest.mark.plain
@pytest.mark.parametrize("rule", ["off", "require"])
async def test_a_turn_of_the_loop_goes_on_with_eight_handshakes_at_most(
    authority: Authority, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with their second flights, in which the certificates of clients are verified."""
    header = listening(authority.pair("a.test"), tls=asking(authority, rule))
    context = authority.client(authority.pair("web"))
    beats = Beats()

    class Noting(TlsTransport):
        def data_received(self, data: bytes) -> None:
            if self.facts is None:
                beats.note()
            super().data_received(data)

    monkeypatch.setattr("sidecar.downstream.handshake.TlsTransport", Noting)
    async with stage(saying(OK), header=header) as to, AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(tls_client(to.port, context, is_shaken=False)) for _ in range(50)
        ]
        for client in clients:
            client.writer.write(client.first_flight())
        for client in clients:
            await client.handshake()
        answers = [(await client.ask()).status for client in clients]
        assert answers == [200] * 50
        assert beats.end() <= HANDSHAKES_A_TURN
        assert len(beats.seen) >= 100
        assert to.worker.service.beside.handshakes.deferrals >= 30
        assert to.worker.service.turns.deferrals == 0
        assert results(to) == {Handshake.DONE: 50}


async def test_what_waits_for_its_turn_counts_in_the_budget_and_is_given_back(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(saying(OK), header=listening(authority.pair("a.test"))) as to:
        memory = to.worker.service.memory
        async with tls_client(to.port, authority.client(), is_shaken=False) as client:
            while not to.worker.service.open_connections:  # noqa: ASYNC110  # nobody tells of it
                await asyncio.sleep(0.01)
            before = memory.used_bytes
            assert before >= CONNECTION_BYTES + SECURED_BYTES
            first = client.first_flight()
            # a first message of 12 KB that is not whole: as many bytes of names that nobody reads
            client.writer.write(first[:1] + b"\x03\x01\x30\x00\x01\x00\x3f\xf0" + b"x" * 12_284)
            while memory.used_bytes == before:  # noqa: ASYNC110  # nobody tells of it
                await asyncio.sleep(0.01)
            assert memory.used_bytes - before >= 12_000
        while to.worker.service.open_connections:  # noqa: ASYNC110  # the same
            await asyncio.sleep(0.01)
        assert memory.used_bytes == before - CONNECTION_BYTES - SECURED_BYTES
        assert results(to) == {Handshake.LEFT: 1}


async def test_handshakes_are_closed_to_give_memory_back(authority: Authority) -> None:
    async with stage(saying(OK), header=listening(authority.pair("a.test"))) as to:
        async with tls_client(to.port, authority.client(), is_shaken=False) as client:
            client.writer.write(client.first_flight()[:50])
            await client.writer.drain()
            while not (found := to.worker.listeners["inbound"].connections()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            (connection,) = found
            claim = connection.claim(to.worker.service.clock())
            assert claim is not None
            assert connection.end_for_memory() is Held.HANDSHAKE
            with pytest.raises((Closed, ConnectionError)):
                await client.read()
        assert results(to) == {Handshake.MEMORY: 1}


@pytest.mark.plain
async def test_handshakes_that_take_longer_are_fewer_in_a_turn(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with large keys of RSA. The sidecar's clock is set forward by what each would take."""
    beats = Beats()
    async with stage(saying(OK), header=listening(authority.pair("a.test"))) as to, AsyncExitStack() as stack:
        service = to.worker.service
        clock, extra = service.clock, 0.0

        class Slow(TlsTransport):
            def data_received(self, data: bytes) -> None:
                nonlocal extra
                if self.facts is None:
                    beats.note()
                    extra += 0.0021
                super().data_received(data)

        monkeypatch.setattr("sidecar.downstream.handshake.TlsTransport", Slow)
        monkeypatch.setattr(service, "clock", lambda: clock() + extra)
        context = authority.client()
        clients = [
            await stack.enter_async_context(tls_client(to.port, context, is_shaken=False)) for _ in range(12)
        ]
        for client in clients:
            client.writer.write(client.first_flight())
        for client in clients:
            await client.handshake()
        assert [(await client.ask()).status for client in clients] == [200] * 12
        assert beats.end() <= 2


async def test_a_socket_whose_handshake_has_failed_counts_until_it_is_closed(authority: Authority) -> None:
    header = listening(authority.pair("a.test"), listener="limits: {connections: 5}")
    context = only(ssl.TLSVersion.TLSv1_2)(authority.client())
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")  # the certificate's key is of an elliptic curve
    async with stage(saying(OK), header=header) as to, AsyncExitStack() as clients:
        socket = to.worker.listeners["inbound"]
        for number in range(1, 9):
            client = await clients.enter_async_context(tls_client(to.port, context, is_shaken=False))
            client.writer.write(client.first_flight())
            while sum(results(to).values()) < number:  # noqa: ASYNC110
                await asyncio.sleep(0)  # no time passes: each is closed 2 s after it has failed
        assert (len(socket.connections()), socket.refused_connections) == (8, 3)
