"""What a fleet keeps in a Redis, with a real one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar.core.fleet.encoding import MAX_BYTES
from sidecar.core.fleet.messages import PermitAsk, PermitReturn
from sidecar.core.snapshot import CertificateFiles, RedisPolicy, RedisTls
from sidecar.runtime.fleet.failed import Lack, StoreFailed
from sidecar.runtime.fleet.store import MOST_AWAITED, MOST_READ, Store, Writing
from tests.support.certificates import Certificates
from tests.support.ports import free_ports
from tests.support.redis_server import RedisServer, needs_redis, redis_server

pytestmark = [pytest.mark.process, needs_redis]


@asynccontextmanager
async def store_of(policy: RedisPolicy, fleet: str = "orders") -> AsyncIterator[Store]:
    store = await Store.open(policy, "shop", fleet)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as server:
        yield server


def policy_of(server: RedisServer, **given: object) -> RedisPolicy:
    return RedisPolicy(f"redis://127.0.0.1:{server.port}", **given)  # type: ignore[arg-type]


async def test_news_reach_who_waits_and_who_comes_later(server: RedisServer) -> None:
    async with store_of(policy_of(server)) as one, store_of(policy_of(server)) as two:
        waiting = asyncio.create_task(two.wait("0", 20.0))
        await one.write(Writing([b"first"]))
        await one.write(Writing([b"second"]))
        (first, *_) = await waiting
        assert (first.body, first.age) == (b"first", 0.0)
        late, last = await two.catch_up("", 60.0)
        assert [news.body for news in late] == [b"first", b"second"]
        assert all(0.0 <= news.age < 60.0 for news in late)
        assert [news.body for news in (await two.catch_up(first.id, 0.0))[0]] == [b"second"]
        assert last == late[-1].id
        nothing, last = await two.catch_up(last, 60.0)
        assert nothing == []
        assert await two.wait(late[-1].id, 0.001) == []
        await one.write(Writing([b"third"]))
        assert [news.body for news in await two.wait(last, 20.0)] == [b"third"]


async def test_an_id_from_the_future_is_one_of_another_clock_and_hides_nothing(server: RedisServer) -> None:
    """The primary that takes over may be behind."""
    async with store_of(policy_of(server)) as store:
        await store.write(Writing([b"news"]))
        assert [news.body for news in (await store.catch_up("99999999999999-0", 60.0))[0]] == [b"news"]


async def test_the_stream_and_its_answers_are_bounded(server: RedisServer) -> None:
    async with store_of(policy_of(server)) as store:
        for _ in range(20):
            await store.write(Writing([b"x"] * 300))
        assert int((await server.ask("XLEN", "sidecar:shop:{orders}:stream"))[1:]) < 4096 + 300
        assert int((await server.ask("TTL", "sidecar:shop:{orders}:stream"))[1:]) > 0
        assert len((await store.catch_up("", 60.0))[0]) == MOST_READ


async def test_what_is_too_long_to_be_of_a_fleet_stays_in_the_redis(server: RedisServer) -> None:
    """Whoever else may write there must not fill the memory of each replica."""
    stream, long = "sidecar:shop:{orders}:stream", "x" * 1_000_000
    async with store_of(policy_of(server)) as store:
        await store.write(Writing(states={"a": (b"open", 60.0)}))
        await server.ask("SET", "sidecar:shop:{orders}:state:b", f"60000:{long}", "PX", "60000")
        assert [found.id for found in await store.states(["a", "b"])] == ["a"]
        for _ in range(MOST_AWAITED):
            await server.ask("XADD", stream, "*", "b", long, "other", "y")
        await store.write(Writing([b"news"]))
        with pytest.raises(StoreFailed) as failed:
            await store.wait("0", 0.001)
        assert failed.value.lack is Lack.REFUSED
        assert str(failed.value).startswith("a key of sidecar:shop:{orders}:* holds more than a fleet writes")
        found, last = await store.catch_up("", 60.0)
        assert [news.body for news in found] == [b""] * MOST_AWAITED + [b"news"]
        assert await store.wait(last, 0.001) == []


async def test_an_answer_holds_no_more_bytes_than_is_agreed(server: RedisServer) -> None:
    async with store_of(policy_of(server)) as store:
        await store.write(Writing([b"x" * MAX_BYTES] * 5))
        first, last = await store.catch_up("", 60.0)
        rest, _ = await store.catch_up(last, 60.0)
        assert [len(first), len(rest)] == [2, 2]
        assert len(await store.wait("0", 0.001)) == 5


async def test_beats_from_the_future_do_not_count_for_ever(server: RedisServer) -> None:
    async with store_of(policy_of(server)) as store:
        members = "sidecar:shop:{orders}:members"
        await server.ask("ZADD", members, "inf", "a", "99999999999", "b", "-inf", "c")
        assert await store.beat("me") == (1, False)
        assert await store.beat("other") == (2, False)


async def test_states_live_as_long_as_they_are_given(server: RedisServer) -> None:
    async with store_of(policy_of(server)) as store:
        states = {"a": (b"open", 60.0), "b": (b"open", 0.001), "c": (b"open", 60.0), "d": (b"open", 60.0)}
        await store.write(Writing(states=states))
        while await server.ask("EXISTS", "sidecar:shop:{orders}:state:b") != b":0":
            pass
        await store.write(Writing(gone={"c"}))
        await server.ask("SET", "sidecar:shop:{orders}:state:d", "written by hand")
        for name, digits in (("e", 400), ("f", 5000)):
            value = f"{'9' * digits}:open"
            await server.ask("SET", f"sidecar:shop:{{orders}}:state:{name}", value, "EX", "60")
        (found,) = await store.states(["a", "b", "c", "d", "e", "f"])
        assert (found.id, found.body) == ("a", b"open")
        assert 0.0 <= found.age < 60.0
        assert await store.beat("me", ["a"]) == (1, False)
        assert await store.beat("me", ["a", "b"]) == (1, True)


async def test_all_together_have_no_more_permits_than_there_are(server: RedisServer) -> None:
    async with store_of(policy_of(server)) as one, store_of(policy_of(server)) as two:
        asks = [PermitAsk("b", f"p{number}", 2, 3, 60.0, 1) for number in range(4)]
        granted = await one.write(Writing(asks=asks[:2])) + await two.write(Writing(asks=asks[2:]))
        assert [answer.number for answer in granted] == [2, 1, 0, 0]
        again = await two.write(Writing(asks=[asks[0]]))
        assert [answer.number for answer in again] == [2], "a renewal counts what it has"
        (moved,) = await one.write(Writing(returns=[PermitReturn("b", "p0", 1)], asks=[asks[3]]))
        assert (moved.process, moved.number) == ("p3", 2)
        late = [PermitAsk("b", "p3", 1, 3, 60.0, 0)], [PermitReturn("b", "p3", 0)]
        (nothing,) = await one.write(Writing(asks=late[0], returns=late[1]))
        assert (nothing.number, nothing.number_of_ask) == (0, 0)
        (still,) = await one.write(Writing(asks=[PermitAsk("b", "p1", 3, 3, 60.0, 2)]))
        assert still.number == 1, "what came late took nothing from who has asked since"
        other = await one.write(Writing(asks=[PermitAsk("other", "p9", 1, 1, 60.0, 1)]))
        assert [answer.number for answer in other] == [1]


async def test_a_permit_that_nobody_gives_back_is_free_when_its_time_is_over(server: RedisServer) -> None:
    async with store_of(policy_of(server)) as store:
        asks = [PermitAsk("b", "kept", 1, 2, 60.0, 1), PermitAsk("b", "gone", 1, 2, 0.001, 1)]
        assert [answer.number for answer in await store.write(Writing(asks=asks))] == [1, 1]
        more = Writing(asks=[PermitAsk("b", "next", 1, 2, 60.0, 1)])
        while (await store.write(more))[0].number == 0:
            pass
        assert (await store.write(Writing(asks=[PermitAsk("b", "more", 1, 2, 60.0, 1)])))[0].number == 0


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (
            ("SET", "sidecar:shop:{orders}:stream", "x"),
            "a key of sidecar:shop:{orders}:* has a value of another",
        ),
        (
            ("SET", "sidecar:shop:{orders}:members", "x"),
            "a key of sidecar:shop:{orders}:* has a value of anoth",
        ),
        (
            ("RPUSH", "sidecar:shop:{orders}:state:a", "x"),
            "a key of sidecar:shop:{orders}:* has a value of ano",
        ),
        (
            ("XADD", "sidecar:shop:{orders}:stream", f"{2**64 - 1}-{2**64 - 1}", "b", "x"),
            "an id of sidecar:shop:{orders}:stream leaves no room for later ones, delete it: ResponseError",
        ),
        (
            ("ACL", "SETUSER", "default", "resetkeys"),
            "the user needs the rights of deploy/FLEET.md on sidecar:shop:{orders}:*: NoPermissionError",
        ),
    ],
)
async def test_what_others_have_spoiled_is_told_with_its_remedy(
    server: RedisServer, command: tuple[str, ...], why: str
) -> None:
    await server.ask(*command)

    async def take_part() -> None:
        async with store_of(policy_of(server)) as store:
            await store.beat("me")
            await store.catch_up("", 60.0)
            await store.states(["a"])
            await store.write(Writing([b"news"]))

    with pytest.raises(StoreFailed) as failed:
        await take_part()
    assert failed.value.lack is Lack.REFUSED
    assert str(failed.value).startswith(why)


async def test_what_is_lent_for_longer_than_we_lend_holds_nothing(server: RedisServer) -> None:
    """It comes from a hand, or from before the clock of the Redis went back by two hours."""
    later = (int(time.time()) + 7200) * 1000
    key = "sidecar:shop:{orders}:permits:b"
    for who, held in (("hand", f"1:{'9' * 400}:1"), ("clock", f"1:{later}:1"), ("none", "garbage")):
        await server.ask("HSET", key, who, held)
    async with store_of(policy_of(server)) as store:
        (granted,) = await store.write(Writing(asks=[PermitAsk("b", "p", 1, 1, 10.0, 1)]))
        assert granted.number == 1
        (other,) = await store.write(Writing(asks=[PermitAsk("b", "q", 1, 1, 10.0, 1)]))
        assert other.number == 0, "what was lent in earnest holds"


async def test_replicas_count_while_they_beat_and_fleets_do_not_mix(server: RedisServer) -> None:
    async with store_of(policy_of(server)) as store, store_of(policy_of(server), "other") as other:
        counts = [(await store.beat(one))[0] for one in ("a", "b", "a")]
        assert counts == [1, 2, 2]
        assert await other.beat("a") == (1, False)
        await other.write(Writing([b"not for you"]))
        assert (await store.catch_up("", 60.0))[0] == []


async def test_a_password_is_read_at_each_connection(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    async with redis_server(tmp_path, "--requirepass", "new") as server:
        async with store_of(policy_of(server, password_file=str(file))) as store:
            with pytest.raises(StoreFailed) as caught:
                await store.beat("a")
            assert caught.value.lack is Lack.PASSWORD
            file.write_text("new\n")
            assert await store.beat("a") == (1, False)
        file.unlink()
        async with store_of(policy_of(server, password_file=str(file))) as store:
            with pytest.raises(StoreFailed, match="cannot be read") as caught:
                await store.beat("a")
            assert caught.value.lack is Lack.PASSWORD


async def test_what_goes_wrong_has_a_name(server: RedisServer) -> None:
    async with store_of(policy_of(server)) as store:
        assert await store.beat("a") == (1, False)
        await server.ask("SET", "sidecar:shop:{orders}:stream", "no stream")
        with pytest.raises(StoreFailed, match="WRONGTYPE") as caught:
            await store.write(Writing([b"x"]))
        assert caught.value.lack is Lack.REFUSED
        await server.kill()
        with pytest.raises(StoreFailed) as caught:
            await store.beat("a")
        assert caught.value.lack is Lack.UNREACHABLE


async def test_who_gives_up_waiting_leaves_no_answer_for_the_next(server: RedisServer) -> None:
    async with store_of(policy_of(server)) as store:
        for _ in range(20):
            waiting = asyncio.create_task(store.wait("0", 5.0))
            await asyncio.sleep(0)
            beat = asyncio.create_task(store.beat("a"))
            await asyncio.sleep(0)
            waiting.cancel()
            beat.cancel()
            await asyncio.wait([waiting, beat])
            assert await store.beat("a") == (1, False)


async def test_tls_takes_those_alone_who_are_signed_by_the_ca(tmp_path: Path) -> None:
    made, others = Certificates(tmp_path), Certificates(tmp_path, "other")
    pair, client = made.pair("redis", "127.0.0.1", "localhost"), made.pair("client", "sidecar")
    options = ("--tls-port", str(free_ports(1)[0]), "--port", "0", "--tls-ca-cert-file", made.ca)
    options += ("--tls-cert-file", pair.chain, "--tls-key-file", pair.key, "--tls-auth-clients", "yes")
    async with redis_server(tmp_path, *options, port=int(options[1])) as server:
        url = f"rediss://localhost:{server.port}"
        async with store_of(RedisPolicy(url, tls=RedisTls(made.ca, client))) as store:
            assert await store.beat("a") == (1, False)
        async with store_of(RedisPolicy(url, tls=RedisTls(others.ca, client))) as store:
            with pytest.raises(StoreFailed) as caught:
                await store.beat("a")
            assert caught.value.lack is Lack.TLS
    missing = CertificateFiles(str(tmp_path / "none"), client.key)
    with pytest.raises(StoreFailed, match=r"share\.redis\.tls"):
        await Store.open(RedisPolicy(url, tls=RedisTls(made.ca, missing)), "", "orders")


async def test_sentinels_know_where_the_primary_is(server: RedisServer, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor primary 127.0.0.1 {server.port} 1\n")
    options = (str(config), "--sentinel")
    async with redis_server(tmp_path, port=port, first=options):
        url = f"redis+sentinel://127.0.0.1:{port}/primary"
        async with store_of(RedisPolicy(url)) as store:
            assert await store.beat("a") == (1, False)
        async with store_of(RedisPolicy(url.replace("primary", "nobody"))) as store:
            with pytest.raises(StoreFailed) as caught:
                await store.beat("a")
            assert caught.value.lack is Lack.UNREACHABLE


async def test_a_fleet_is_on_one_node_of_a_cluster(tmp_path: Path) -> None:
    (bus,) = free_ports(1)  # its own choice, 10,000 above its port, may be somebody else's
    cluster = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
    async with redis_server(tmp_path, *cluster) as server:
        assert await server.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383") == b"+OK"
        async with store_of(RedisPolicy(f"redis+cluster://127.0.0.1:{server.port}")) as store:
            async with asyncio.timeout(100):
                while not (await server.ask("SET", "x", "y")).startswith(b"+OK"):
                    pass
            asks = [PermitAsk("b", "p", 1, 1, 60.0, 1)]
            answers = await store.write(Writing([b"news"], {"a": (b"open", 60.0)}, {"b"}, asks))
            assert [answer.number for answer in answers] == [1]
            assert [news.body for news in (await store.catch_up("", 60.0))[0]] == [b"news"]
            assert [news.body for news in await store.wait("0", 1.0)] == [b"news"]
            assert [state.body for state in await store.states(["a"])] == [b"open"]
            assert await store.beat("a", ["a"]) == (1, False)


async def test_the_rights_that_the_page_gives_are_enough(server: RedisServer) -> None:
    page = (Path(__file__).parents[2] / "deploy" / "FLEET.md").read_text()
    rights = page.partition("<!-- acl -->\n```\n")[2].partition("\n```")[0]
    assert await server.ask(*rights.split()) == b"+OK"
    url = f"redis://sidecar:PASSWORD@127.0.0.1:{server.port}"
    async with store_of(RedisPolicy(url)) as store:
        asks, returns = [PermitAsk("b", "p", 1, 1, 60.0, 1)], [PermitReturn("b", "p", 1)]
        writing = Writing([b"news"], {"a": (b"open", 60.0)}, {"b"}, asks, returns)
        assert [answer.number for answer in await store.write(writing)] == [1]
        await store.write(writing)
        assert [news.body for news in (await store.catch_up("", 60.0))[0]] == [b"news", b"news"]
        assert len(await store.wait("0", 1.0)) == 2
        assert len(await store.states(["a"])) == 1
        assert await store.beat("a", ["a"]) == (1, False)
    async with store_of(RedisPolicy(url, prefix="other")) as store:
        with pytest.raises(StoreFailed, match=r"NOPERM|permission") as caught:
            await store.beat("a")
        assert caught.value.lack is Lack.REFUSED
