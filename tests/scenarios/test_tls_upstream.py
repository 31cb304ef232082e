"""TLS towards an upstream: it works, or the reason that is told is the right one, whatever the other side does."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.dev_certificates import make_ca, make_pair
from sidecar.core.snapshot import CertificateFiles
from sidecar.core.transition import State
from sidecar.transport.tls.files import server_context
from sidecar.transport.tls.transport import TlsTransport
from tests.scenarios.stage import GET, OK, get, post, saying, stage
from tests.support.certificates import Certificates
from tests.support.proxy import port
from tests.support.raw import RawPeer, raw_client

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return VERSIONS[request.param]


def serving(
    pair: CertificateFiles,
    version: ssl.TLSVersion | None = None,
    *,
    alpn: tuple[str, ...] = (),
    client_ca: str | None = None,
) -> ssl.SSLContext:
    """A server of this certificate, which asks its clients for one of `client_ca`, if that is given."""
    context = server_context()
    context.load_cert_chain(pair.chain, pair.key)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def tls(made: Certificates, more: str = "server_name: a.test") -> str:
    return f'tls: {{ca: "{made.ca}", {more}}}'


def shown(pair: CertificateFiles) -> str:
    return f'certificate: {{chain: "{pair.chain}", key: "{pair.key}"}}'


async def test_a_request_goes_by_tls_and_the_connection_is_used_again(
    made: Certificates, version: ssl.TLSVersion
) -> None:
    context = serving(made.pair("a", "a.test"), version)
    async with stage(upstream=tls(made), tls=context) as to:
        assert (await to.ask(get(b"/x"))).body == b"GET /x"
        assert (await to.ask(post(b"hello"))).status == 200
        assert len(to.app.peers) == 1
        facts = to.cluster.pools[0].facts.tls
        assert facts is not None
        assert (facts.sni, facts.identity, facts.alpn) == ("a.test", "a.test", None)


async def test_a_body_is_whole_that_the_upstream_ends_by_closing(
    made: Certificates, version: ssl.TLSVersion
) -> None:
    """By the end of TLS, that is: without it somebody may have cut it (RFC 9112 9.8)."""

    async def ends(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async def cut(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nsome of it")
        peer.writer.transport.abort()

    context = serving(made.pair("a", "a.test"), version)
    async with stage(ends, upstream=tls(made), tls=context) as to:
        assert (await to.ask()).body == b"all of it"
    async with stage(cut, upstream=tls(made), tls=context) as to, raw_client(to.port) as client:
        await client.send(GET)
        (response,) = await client.responses([b"GET"])
        assert response.is_cut


# What is refused, and why it is said to be


def _another_ca(made: Certificates) -> CertificateFiles:
    return made.pair("a", "a.test", signed_by=make_ca("stranger"))


def _without_the_chain(made: Certificates) -> CertificateFiles:
    return made.pair("a", "a.test", signed_by=make_ca("between", issuer=made.authority))


CERTIFICATES: dict[str, tuple[Callable[[Certificates], CertificateFiles], str]] = {
    "expired": (lambda made: made.expired("a", "a.test"), "it has expired"),
    "not_yet_valid": (lambda made: made.future("a", "a.test"), "it is not valid yet"),
    "wrong_name": (lambda made: made.pair("a", "b.test"), "it is not for 'a.test'"),
    "common_name_alone": (
        lambda made: made.pair("a", common_name="a.test"), "it is not for 'a.test'"
    ),
    "wildcard_too_deep": (lambda made: made.pair("a", "*.test"), "it is not for 'a.test'"),
    "self_signed": (lambda made: made.self_signed("a", "a.test"), "it is self-signed"),
    "another_ca": (_another_ca, "its CA is not trusted here"),
    "chain_missing": (_without_the_chain, "its CA is not trusted here, or a certificate of its chain is missing"),
    "for_clients_alone": (lambda made: made.pair("a", "a.test", is_server=False), "it is not made for this purpose"),
}  # fmt: skip


@pytest.mark.parametrize("case", CERTIFICATES)
async def test_a_certificate_that_is_not_good_is_refused(
    made: Certificates, version: ssl.TLSVersion, case: str
) -> None:
    make, words = CERTIFICATES[case]
    async with stage(upstream=tls(made), tls=serving(make(made), version)) as to:
        response = await to.ask()
        assert response.status == 502
        told = response.values(b"proxy-status")[0].decode()
        assert told.startswith(
            'sidecar; error=tls_certificate_error; details="tls_certificate_error: 127.0.0.1:'
        )
        assert f"certificate refused: {words}" in told
        assert to.requests == []
        assert to.metric("sidecar_upstream_connections_open") == 0


async def test_a_name_among_several_and_an_address_are_found(made: Certificates) -> None:
    context = serving(made.pair("a", "*.shop.test", "127.0.0.1"))
    async with stage(upstream=tls(made, "server_name: pay.shop.test"), tls=context) as to:
        assert (await to.ask()).status == 200
    async with stage(upstream=f'tls: {{ca: "{made.ca}"}}', tls=context) as to:
        assert (await to.ask()).status == 200
        facts = to.cluster.pools[0].facts.tls
        assert facts is not None
        assert facts.identity == "*.shop.test"


@pytest.mark.parametrize(
    ("wanted", "is_taken"),
    [
        ("spiffe://shop/ns/a", True),
        ("spiffe://shop/ns/b", False),
        ("a.test", True),
        ("b.test", False),
    ],
)
async def test_identities_take_the_place_of_the_name(
    made: Certificates, version: ssl.TLSVersion, wanted: str, is_taken: bool
) -> None:
    context = serving(made.pair("a", "a.test", "spiffe://shop/ns/a"), version)
    more = f'server_name: b.test, identities: ["spiffe://other", "{wanted}"]'
    async with stage(upstream=tls(made, more), tls=context) as to:
        response = await to.ask()
        assert response.status == (200 if is_taken else 502)
        if not is_taken:
            told = response.values(b"proxy-status")[0].decode()
            assert "it has none of `identities`; it is for a.test, spiffe://shop/ns/a" in told


async def test_identities_never_take_the_place_of_the_chain(made: Certificates) -> None:
    pair = made.pair("a", "spiffe://shop/ns/a", signed_by=make_ca("stranger"))
    more = 'server_name: a.test, identities: ["spiffe://shop/ns/a"]'
    async with stage(upstream=tls(made, more), tls=serving(pair)) as to:
        assert b"tls_certificate_error" in (await to.ask()).values(b"proxy-status")[0]


async def test_a_peer_that_speaks_no_tls_is_told_as_such(made: Certificates) -> None:
    async def answers(peer: RawPeer) -> None:
        await peer.read_some()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with stage(answers, upstream=tls(made)) as to:
        told = (await to.ask()).values(b"proxy-status")[0]
        assert b"error=tls_protocol_error" in told
        assert b"the other side does not speak TLS there" in told
        assert b"GET" not in b"".join(peer.received for peer in to.app.peers)


async def test_a_peer_that_closes_in_the_handshake(made: Certificates) -> None:
    async def closes(peer: RawPeer) -> None:
        await peer.read_some()

    async with stage(closes, upstream=tls(made)) as to:
        told = (await to.ask()).values(b"proxy-status")[0]
        assert b"error=tls_protocol_error" in told
        assert b"the other side closed in the handshake" in told


async def test_a_peer_that_stalls_in_the_handshake_is_cut_by_the_time_to_connect(made: Certificates) -> None:
    async def stalls(peer: RawPeer) -> None:
        while await peer.read_some():
            pass

    async with stage(stalls, upstream=f"{tls(made)}, timeouts: {{connect: 2s}}") as to:
        response = await to.ask()
        assert response.status == 504
        told = response.values(b"proxy-status")[0]
        assert b"error=connection_timeout" in told
        assert b"no TLS handshake with 127.0.0.1" in told
        assert b"within 2 s" in told


async def test_http2_that_is_not_agreed_on_is_no_http2(made: Certificates) -> None:
    pair = made.pair("a", "a.test")
    for alpn in ((), ("http/1.1",)):
        async with stage(upstream=f"{tls(made)}, protocol: http2", tls=serving(pair, alpn=alpn)) as to:
            told = (await to.ask()).values(b"proxy-status")[0]
            assert b"error=tls_protocol_error" in told
            assert b"HTTP/2 was not agreed on in the handshake (ALPN)" in told


# Our own certificate


async def test_a_client_certificate_is_shown_to_who_asks(made: Certificates, version: ssl.TLSVersion) -> None:
    seen: list[Any] = []

    async def notes(peer: RawPeer) -> None:
        seen.append(peer.writer.get_extra_info("peercert"))
        await peer.echo()

    context = serving(made.pair("a", "a.test"), version, client_ca=made.ca)
    us = made.pair("us", "spiffe://shop/ns/us")
    async with stage(notes, upstream=tls(made, f"server_name: a.test, {shown(us)}"), tls=context) as to:
        assert (await to.ask()).status == 200
    assert seen[0]["subjectAltName"] == (("URI", "spiffe://shop/ns/us"),)


async def test_what_is_wrong_with_the_upstream_counts_as_a_failed_connection(made: Certificates) -> None:
    context = serving(made.expired("a", "a.test"))
    async with stage(
        upstream=tls(made), tls=context, route="circuit_breaker: {consecutive_failures: 1, warm_up: 0s}"
    ) as to:
        await to.ask()
        assert to.breaker.state is State.OPEN
        assert to.breaker.history[-1].causes[0].error_type == "tls_certificate_error"


async def test_one_handshake_that_fails_is_one_failure_whoever_waited(made: Certificates) -> None:
    context = serving(made.expired("a", "a.test"), alpn=("h2",))
    async with stage(
        upstream=f"{tls(made)}, protocol: http2",
        tls=context,
        route="circuit_breaker: {consecutive_failures: 2, warm_up: 0s}",
    ) as to:
        answers = await asyncio.gather(*(to.ask() for _ in range(10)))
        assert {answer.status for answer in answers} == {502}
        assert to.breaker.state is State.CLOSED
        assert len(to.app.peers) == 0


# Sessions


async def test_a_session_is_used_once_and_again_made(made: Certificates, version: ssl.TLSVersion) -> None:
    resumed: list[bool] = []

    async def once(peer: RawPeer) -> None:
        resumed.append(peer.writer.get_extra_info("ssl_object").session_reused)
        await saying(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))(peer)

    context = serving(made.pair("a", "a.test"), version)
    async with stage(once, upstream=tls(made), tls=context) as to:
        for _ in range(4):
            assert (await to.ask()).status == 200
        assert resumed == [False, True, True, True]
        (kept,) = to.worker.assembly.tls
        assert len(kept.sessions) == 1
        facts = to.cluster.pools[0].facts.tls
        assert facts is not None
        assert facts.is_resumed
        assert facts.identity == "a.test"
        kept.use(type(kept).load(kept.key))  # as when a file changes
        assert (await to.ask()).status == 200
        assert resumed[-1] is False


async def test_a_connection_of_before_goes_on_when_files_change(made: Certificates) -> None:
    us = made.pair("us", "us.test")
    seen: list[Any] = []

    async def notes(peer: RawPeer) -> None:
        seen.append(peer.writer.get_extra_info("peercert")["serialNumber"])
        await peer.echo()

    context = serving(made.pair("a", "a.test"), client_ca=made.ca)
    async with stage(notes, upstream=tls(made, f"server_name: a.test, {shown(us)}"), tls=context) as to:
        await to.ask()
        (kept,) = to.worker.assembly.tls
        made.pair("us", "us.test")
        kept.use(type(kept).load(kept.key))
        await to.ask()
        assert len(seen) == 1
        to.cluster.close_all_idle()
        await to.ask()
        assert len(set(seen)) == 2


# What was agreed on


async def test_auto_takes_what_the_handshake_agrees_on_and_remembers_it(made: Certificates) -> None:
    context = serving(made.pair("a", "a.test"), alpn=("http/1.1",))
    async with stage(upstream=f"{tls(made)}, protocol: auto", tls=context) as to:
        answers = await asyncio.gather(*(to.ask(get(b"/%d" % number)) for number in range(20)))
        assert sorted(answer.body for answer in answers) == sorted(
            b"GET /%d" % number for number in range(20)
        )
        assert not to.cluster.pools[0].is_shared
        before = len(to.app.peers)
        await to.ask()
        assert len(to.app.peers) == before


async def test_auto_without_alpn_is_http1(made: Certificates) -> None:
    async with stage(upstream=f"{tls(made)}, protocol: auto", tls=serving(made.pair("a", "a.test"))) as to:
        assert (await to.ask(get(b"/x"))).body == b"GET /x"


async def test_a_chain_with_its_middle_is_followed(made: Certificates, version: ssl.TLSVersion) -> None:
    between = make_ca("between", issuer=made.authority)
    pair = made.write("a", make_pair(between, ["a.test"]), between)
    async with stage(upstream=tls(made), tls=serving(pair, version)) as to:
        assert (await to.ask()).status == 200


@pytest.mark.parametrize("case", ["wrong_name", "self_signed", "silent", "called_off"])
async def test_a_failed_handshake_leaves_nothing_behind(made: Certificates, case: str) -> None:
    """Not in a cycle either, which a collection would free: what a reload freezes before that stays for good."""
    context = serving(CERTIFICATES[case][0](made)) if case in CERTIFICATES else None
    async with stage(upstream=tls(made), tls=context) as to:

        async def try_it() -> None:
            if case != "called_off":
                assert (await to.ask()).status >= 502
                return
            async with raw_client(port(to.worker)) as client:
                await client.send(GET)
                await asyncio.sleep(0.5)

        await try_it()
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                await try_it()
            await asyncio.sleep(1.0)
            assert [one for one in gc.get_objects() if isinstance(one, TlsTransport)] == []
        finally:
            gc.enable()
