"""Opening one connection for one or several who wait: each hears once, and no place of one that failed is lost."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import pytest

from sidecar.core.errors import Reason
from sidecar.transport.turns import ENDS_A_TURN
from sidecar.upstream.connecting import Connecting
from sidecar.upstream.http1 import UpstreamConnection
from sidecar.upstream.lease import LeasePool
from sidecar.upstream.pool import Pool
from tests.support.by_hand import HERE, HandLoop, HandTransport, Note, Waiting, hand_cluster
from tests.support.raw import turns


class Door:
    """In the place of the network: the test says when and how a connection comes about."""

    def __init__(self) -> None:
        self.transports: list[HandTransport] = []
        self.connections: list[UpstreamConnection] = []
        self._error: Exception | None = None
        self._closes = False
        self._open = asyncio.Event()
        self.waits_for = asyncio.Event()
        """Set, unless a test holds up what follows the opening, as a loop may that has other things to do first."""
        self.waits_for.set()

    async def __call__(self, connection: UpstreamConnection, pool: LeasePool) -> None:
        assert pool.endpoint == HERE
        await self._open.wait()
        if self._error is not None:
            raise self._error
        self.connections.append(connection)
        self.transports.append(HandTransport())
        connection.connection_made(self.transports[-1])
        if self._closes:
            connection.abort()
        await self.waits_for.wait()

    def open(self, error: Exception | None = None, *, closes: bool = False) -> None:
        self._error, self._closes = error, closes
        self._open.set()


class Stage:
    """A pool, what waits at its door, and what was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 5.0) -> None:
        loop = asyncio.get_running_loop()
        self.door = Door()
        monkeypatch.setattr("sidecar.upstream.connecting._open", self.door)
        self.hand_loop = HandLoop()
        self.cluster = hand_cluster(self.hand_loop)
        self.cluster._clock = loop.time
        self.pool: Pool = self.cluster.pools[0]
        self.told: list[Note] = []
        self.failures = 0
        self.connecting = Connecting(self.pool, seconds, self._ended)

    def _ended(self, connecting: Connecting, has_worked: bool) -> None:
        assert connecting is self.connecting
        if has_worked:
            return
        self.failures += 1
        self.told.append(("place", "free", None))

    def seek(self, *names: str) -> list[Waiting]:
        seekers = [Waiting(name, self.told) for name in names]
        self.connecting.seekers += seekers
        return seekers

    @property
    def heard(self) -> list[tuple[str, str]]:
        return [(name, what) for name, what, _ in self.told]


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


async def test_who_waits_gets_the_connection(stage: Stage) -> None:
    stage.seek("a")
    await turns(3)
    assert stage.told == []
    stage.door.open()
    await turns(3)
    (connection,) = stage.door.connections
    assert stage.told == [("a", "leased", connection)]
    assert (connection.is_open, connection.is_reused, stage.pool.open_count) == (True, False, 1)
    assert stage.failures == 0


async def test_several_who_share_it_hear_of_it_in_their_order(stage: Stage) -> None:
    stage.seek("a", "b", "c")
    stage.door.open()
    await turns(3)
    assert stage.heard == [("a", "leased"), ("b", "leased"), ("c", "leased")]
    assert stage.pool.open_count == 1


async def test_who_waits_no_more_when_its_turn_comes_hears_nothing(stage: Stage) -> None:
    first, second, third = stage.seek("a", "b", "c")
    for _ in range(ENDS_A_TURN - 1):  # the turn has time for one more
        stage.cluster.turns.end(lambda: None)
    stage.door.open(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
    await turns(3)
    assert stage.heard == [("place", "free"), ("a", "not leased")]
    stage.connecting.cancel(second)
    stage.hand_loop.settle()
    assert stage.heard == [("place", "free"), ("a", "not leased"), ("c", "not leased")]
    assert [one.uncounted for one in (first, second, third)] == [0, 0, 1]


async def test_a_failure_is_counted_where_the_first_has_left_before_it_was_told(stage: Stage) -> None:
    first, second, third = stage.seek("a", "b", "c")
    for _ in range(ENDS_A_TURN):
        stage.cluster.turns.end(lambda: None)
    stage.door.open(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
    await turns(3)
    stage.connecting.cancel(first)
    stage.hand_loop.settle()
    assert stage.heard == [("place", "free"), ("b", "not leased"), ("c", "not leased")]
    assert [one.uncounted for one in (first, second, third)] == [0, 0, 1]


async def test_one_failure_is_told_to_each_and_frees_one_place_first(stage: Stage) -> None:
    seekers = stage.seek("a", "b", "c")
    stage.door.open(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
    await turns(3)
    assert stage.heard == [("place", "free"), *[(name, "not leased") for name in "abc"]]
    assert [seeker.uncounted for seeker in seekers] == [0, 1, 1]  # the upstream is judged once
    assert {what[2] for what in stage.told[1:]} == {Reason.CONNECTION_REFUSED}
    assert (stage.failures, stage.pool.open_count) == (1, 0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), Reason.CONNECTION_REFUSED),
        (OSError(errno.EHOSTUNREACH, ""), Reason.CONNECTION_REFUSED),
        (OSError(errno.EMFILE, ""), Reason.OVERLOADED),
        (OSError(errno.ENFILE, ""), Reason.OVERLOADED),
        (OSError(errno.EADDRNOTAVAIL, ""), Reason.OVERLOADED),
        (FileNotFoundError(errno.ENOENT, ""), Reason.CONNECTION_REFUSED),
    ],
)
async def test_what_is_our_own_lack_is_not_the_upstreams(
    error: OSError, reason: Reason, stage: Stage
) -> None:
    stage.seek("a")
    stage.door.open(error)
    await turns(3)
    assert stage.told[-1] == ("a", "not leased", reason)


async def test_a_connection_that_does_not_come_in_time_is_told_then(stage: Stage) -> None:
    stage.seek("a")
    await asyncio.sleep(4.99)
    assert stage.told == []
    await asyncio.sleep(0.02)
    assert stage.told[-1] == ("a", "not leased", Reason.CONNECTION_TIMEOUT)
    assert stage.failures == 1


async def test_one_of_two_that_leaves_does_not_end_it_for_the_other(stage: Stage) -> None:
    first, _ = stage.seek("a", "b")
    stage.connecting.cancel(first)
    stage.connecting.cancel(first)
    stage.door.open()
    await turns(3)
    assert stage.heard == [("b", "leased")]
    assert stage.failures == 0


@pytest.mark.parametrize("after_turns", [0, 1, 3])
async def test_when_all_have_left_it_is_called_off_and_its_place_comes_free(
    after_turns: int, stage: Stage
) -> None:
    """Also before its first step."""
    seekers = stage.seek("a", "b")
    await turns(after_turns)
    for seeker in seekers:
        stage.connecting.cancel(seeker)
    await turns(3)
    assert stage.heard == [("place", "free")]
    assert (stage.failures, stage.door.connections, stage.pool.open_count) == (1, [], 0)


async def test_one_that_is_called_off_between_its_opening_and_the_word_of_it_leaves_nothing(
    stage: Stage,
) -> None:
    """uvloop closes such a transport without `connection_lost`: the two would keep each other for ever."""
    (seeker,) = stage.seek("a")
    stage.door.waits_for.clear()
    stage.door.open()
    await turns(3)
    (connection,) = stage.door.connections
    stage.connecting.cancel(seeker)
    await turns(3)
    assert (connection.is_open, connection.link.is_lost) == (False, True)
    assert (stage.heard, stage.pool.open_count) == ([("place", "free")], 0)
    assert stage.cluster.memory.connections == 0


async def test_a_connection_that_is_there_when_the_last_one_leaves_goes_to_the_pool(stage: Stage) -> None:
    """It has been opened, and who waited for it is to hear of it in the next turn."""
    (seeker,) = stage.seek("a")
    stage.door.open()
    for _ in range(10):
        if not stage.pool.open_count:
            await asyncio.sleep(0)
    stage.connecting.cancel(seeker)
    await turns(3)
    (connection,) = stage.door.connections
    assert (stage.told, stage.failures) == ([], 0)
    assert list(stage.pool.idle) == [connection]
    assert (connection.is_reused, stage.door.transports[0].is_aborted) == (False, False)
    if stage.cluster.idle_timer is not None:
        stage.cluster.idle_timer.cancel()


async def test_a_connection_that_closes_at_once_is_told_as_reset(stage: Stage) -> None:
    stage.seek("a")
    stage.door.open(closes=True)
    await turns(3)
    assert stage.told[-1] == ("a", "not leased", Reason.CONNECTION_RESET)


async def test_one_that_the_first_seeker_closes_is_told_to_the_second(stage: Stage) -> None:
    """As a first one does that has no time left."""

    class Closing(Waiting):
        def leased(self, lease: object) -> None:
            stage.door.connections[0].abort()

    stage.connecting.seekers.append(Closing())
    stage.seek("b")
    stage.door.open()
    await turns(3)
    assert stage.told == [("b", "not leased", Reason.CONNECTION_RESET)]


async def test_a_mistake_of_ours_is_told_to_the_loop_and_frees_the_place(
    stage: Stage, complaints: Callable[[], list[str]]
) -> None:
    stage.seek("a")
    stage.door.open(LookupError("broken"))
    await turns(3)
    assert stage.failures == 1
    assert complaints() == ["LookupError"]


@pytest.fixture
async def complaints() -> Callable[[], list[str]]:
    """The errors that the loop's handler was told."""
    found: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: found.append(type(context["exception"]).__name__))
    return lambda: found
