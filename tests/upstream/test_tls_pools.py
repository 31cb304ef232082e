"""What TLS changes about pools: names of one address apart, the HTTP agreed on, sessions of one name alone."""

from __future__ import annotations

import asyncio
import random
import ssl
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.errors import Reason
from sidecar.core.snapshot import Endpoint, HttpVersion, Upstream, UpstreamTls
from sidecar.transport.tls.client import (
    MAX_SESSIONS,
    MAX_SESSIONS_OF_ONE,
    ClientContext,
    ServerIdentity,
    Sessions,
    context_key,
)
from sidecar.transport.tls.failures import TlsFailed
from sidecar.transport.tls.files import server_context
from sidecar.transport.turns import Turns
from sidecar.upstream.cluster import Cluster
from sidecar.upstream.http2_pool import Http2Pool
from sidecar.upstream.pool import Pool
from tests.support.certificates import Certificates

NAMES = (Endpoint("a.test", 443), Endpoint("b.test", 443))


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def cluster_of(
    made: Certificates, tls: UpstreamTls | None = None, protocol: HttpVersion = HttpVersion.HTTP1
) -> Cluster:
    loop = asyncio.get_running_loop()
    policy = Upstream("app", NAMES, protocol=protocol, tls=tls or UpstreamTls(ca=made.ca))
    key = context_key(policy)
    context = ClientContext(key, ClientContext.load(key))
    cluster = Cluster(policy, random.Random(7), loop.time, Turns(loop), tls=context)
    for name in NAMES:
        cluster.set_addresses(name, [Endpoint("10.0.0.1", 443, name=name.host)])
    return cluster


async def test_two_names_of_one_address_are_two_endpoints_unless_one_name_is_asked_for(
    made: Certificates,
) -> None:
    apart = cluster_of(made)
    assert [pool.secure.name for pool in apart.pools if pool.secure] == ["a.test", "b.test"]
    together = cluster_of(made, UpstreamTls(ca=made.ca, server_name="c.test"))
    assert [pool.secure.name for pool in together.pools if pool.secure] == ["c.test"]
    before = list(apart.pools)
    apart.set_addresses(NAMES[1], [Endpoint("10.0.0.1", 443, name="b.test")])
    assert apart.pools == before


async def test_what_is_agreed_on_is_remembered_for_its_endpoint_alone(made: Certificates) -> None:
    cluster = cluster_of(made, protocol=HttpVersion.AUTO)
    first, second = cluster.pools
    assert isinstance(first, Http2Pool)
    spoken = cluster.pool_speaking(first, "http/1.1")
    assert isinstance(spoken, Pool)
    assert cluster.pools == [spoken, second]
    assert first.is_retired
    assert spoken.secure is not None
    assert spoken.secure.name == "a.test"
    assert cluster.pool_speaking(first, None) is spoken  # another connection that was under way
    again = cluster.pool_speaking(spoken, "h2")
    assert isinstance(again, Http2Pool)
    assert cluster.pools == [again, second]


async def test_a_connection_to_an_endpoint_that_has_left_is_used_up(made: Certificates) -> None:
    cluster = cluster_of(made, protocol=HttpVersion.AUTO)
    first = cluster.pools[0]
    cluster.set_addresses(NAMES[0], [])
    assert cluster.pool_speaking(first, "h2") is first
    last = cluster.pool_speaking(first, "http/1.1")
    assert last.is_retired
    assert last not in cluster.pools


async def test_nothing_but_http2_is_taken_where_http2_is_wanted(made: Certificates) -> None:
    cluster = cluster_of(made, protocol=HttpVersion.HTTP2)
    for alpn in (None, "http/1.1"):
        with pytest.raises(TlsFailed) as caught:
            cluster.pool_speaking(cluster.pools[0], alpn)
        assert caught.value.reason is Reason.TLS_PROTOCOL
    assert cluster.pool_speaking(cluster.pools[0], "h2") is cluster.pools[0]


async def test_an_upstream_with_tls_is_never_spoken_to_without(made: Certificates) -> None:
    loop = asyncio.get_running_loop()
    policy = Upstream("app", NAMES, tls=UpstreamTls())
    with pytest.raises(AssertionError, match="nothing falls back to clear text"):
        Cluster(policy, random.Random(7), loop.time, Turns(loop))


async def test_another_tls_is_another_cluster(made: Certificates) -> None:
    cluster = cluster_of(made)
    assert cluster.fits(cluster.policy)
    assert not cluster.fits(Upstream("app", NAMES))
    assert not cluster.fits(Upstream("app", NAMES, tls=UpstreamTls(ca=made.ca, server_name="a.test")))


# Sessions


class Forced:
    """What `ServerIdentity.verify` looks at, of a handshake in memory that resumed whatever session it was given."""

    def __init__(
        self, client: ssl.SSLContext, server: ssl.SSLContext, name: str, session: Any = None
    ) -> None:
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client.wrap_bio(back, there, server_hostname=name, session=session)
        other = server.wrap_bio(there, back, server_side=True)
        for _ in range(6):
            for side in (self.tls, other):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        other.write(b"x")
        assert self.tls.read(1) == b"x"
        self.facts: Any = None

    @property
    def peer_certificate(self) -> Any:
        return self.tls.getpeercert() or {}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_of_another_name_is_seen_though_openssl_takes_it(
    made: Certificates, version: ssl.TLSVersion
) -> None:
    server = server_context()
    pair = made.pair("a", "a.test")
    server.load_cert_chain(pair.chain, pair.key)
    server.maximum_version = version
    policy = Upstream("app", NAMES, tls=UpstreamTls(ca=made.ca))
    key = context_key(policy)
    loaded = ClientContext.load(key)
    context = ClientContext(key, loaded)
    first = Forced(loaded.context, server, "a.test")
    resumed = Forced(loaded.context, server, "b.test", first.tls.session)
    assert resumed.tls.session_reused  # that is the hole
    who = ServerIdentity(context, "app", NAMES[1], "b.test", UpstreamTls())
    with pytest.raises(TlsFailed, match=r"certificate refused: it is not for b\.test but for a\.test"):
        who.verify(resumed)  # type: ignore[arg-type]
    someone = ServerIdentity(context, "app", NAMES[1], "b.test", UpstreamTls(identities=("spiffe://shop/b",)))
    with pytest.raises(TlsFailed, match=r"it has none of `identities`; it is for a\.test"):
        someone.verify(resumed)  # type: ignore[arg-type]


def session_of(made: Certificates) -> ssl.SSLSession:
    server = server_context()
    pair = made.pair("a", "a.test")
    server.load_cert_chain(pair.chain, pair.key)
    key = context_key(Upstream("app", NAMES, tls=UpstreamTls(ca=made.ca)))
    found = Forced(ClientContext.load(key).context, server, "a.test").tls.session
    assert found is not None
    return found


async def test_a_session_is_given_once_and_no_more_are_kept_than_there_is_room(made: Certificates) -> None:
    session = session_of(made)
    sessions = Sessions()
    assert sessions.take("a") is None
    for _ in range(MAX_SESSIONS_OF_ONE):
        assert sessions.has_room("a")
        sessions.keep("a", session)
    assert not sessions.has_room("a")
    sessions.keep("a", session)
    assert (len(sessions), sessions.dropped) == (MAX_SESSIONS_OF_ONE, 1)
    assert sessions.take("b") is None
    for left in range(MAX_SESSIONS_OF_ONE - 1, -1, -1):
        assert sessions.take("a") is session
        assert len(sessions) == left
    assert sessions.take("a") is None
    for number in range(MAX_SESSIONS):
        sessions.keep(number, session)
    assert (len(sessions), sessions.dropped) == (MAX_SESSIONS, 1)
    sessions.keep("one more", session)
    assert (len(sessions), sessions.dropped) == (MAX_SESSIONS, 2)
    assert sessions.take(0) is None
    assert sessions.take("one more") is session


async def test_a_cluster_that_was_replaced_joins_nobody_to_the_peers_of_its_successor(
    made: Certificates,
) -> None:
    cluster = cluster_of(made, protocol=HttpVersion.AUTO)
    first, loop = cluster.pools[0], asyncio.get_running_loop()
    context = cluster._tls
    turns = Turns(loop)
    successor = Cluster(cluster.policy, random.Random(7), loop.time, turns, tls=context, predecessor=cluster)
    for name in NAMES:
        successor.set_addresses(name, [Endpoint("10.0.0.1", 443, name=name.host)])
    cluster.retire(successor)
    places = [len(one.places) for one in successor.peers.members.values()]
    spoken = cluster.pool_speaking(first, "http/1.1")  # its handshake was under way
    assert isinstance(spoken, Pool)
    assert spoken.is_retired
    assert [len(one.places) for one in successor.peers.members.values()] == places
    for name in NAMES:
        successor.set_addresses(name, [Endpoint("10.0.0.9", 443, name=name.host)])
    assert [one.host for one in successor.peers.members] == ["10.0.0.9"]
