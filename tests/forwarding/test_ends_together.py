"""Whatever ends many requests at once ends a bounded number of them in each turn of the loop, and each once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, cast

import pytest

from sidecar.core.errors import Reason
from sidecar.core.tracecontext import IdSource
from sidecar.forwarding import lineage
from sidecar.forwarding.story import Story
from sidecar.http2.slices import END_UNITS
from sidecar.transport.turns import ENDS_A_TURN, TURN_UNITS
from sidecar.upstream.http1 import UpstreamConnection
from sidecar.upstream.lease import Fate
from tests.downstream.http2_stage import Http2Stage
from tests.downstream.stage import GET, Stage, post
from tests.forwarding.test_sweep import Item
from tests.http2 import wire
from tests.support.by_hand import HandLoop, Hearing, Path, connected, hand_cluster
from tests.upstream.http2_stage import Peer, Upstream

pytestmark = pytest.mark.plain
"""Some of what ends here is no exchange, which a compiled module would ask for."""

MANY = 200
AT_MOST = max(ENDS_A_TURN, TURN_UNITS // END_UNITS)


class Scene:
    """Many that one event ends, and the loop that is moved by hand."""

    def __init__(self, loop: HandLoop, ended: Callable[[], int], event: Callable[[], object]) -> None:
        """`ended` says how many have ended so far."""
        self._loop = loop
        self._ended = ended
        self._event = event

    def ends_by_turn(self) -> list[int]:
        """How many ended within the event, and in each turn behind it until nothing is left to do."""
        counts = [self._ended()]
        self._event()
        counts.append(self._ended())
        while self._loop.is_ready:
            self._loop.turn()
            counts.append(self._ended())
        return [after - before for before, after in pairwise(counts)]


def roomy_path() -> Path:
    return Path(max_connections=2 * MANY, max_pending=2 * MANY, max_requests=2 * MANY)


def client_with_streams() -> Http2Stage:
    stage = Http2Stage(roomy_path())
    for number in range(1, 2 * MANY, 2):
        stage.upstream()
        stage.send(wire.request(number))
    stage.frames()
    assert len(stage.path.service.exchanges) == MANY
    return stage


def finished(stage: Stage) -> Callable[[], int]:
    return lambda: len(stage.path.told.finishes)


def a_client_with_many_streams_leaves() -> Scene:
    stage = client_with_streams()
    return Scene(stage.loop, finished(stage), stage.lose)


def a_client_resets_its_streams() -> Scene:
    stage = client_with_streams()
    resets = b"".join(wire.rst(number) for number in range(1, 2 * MANY, 2))
    return Scene(stage.loop, finished(stage), partial(stage.served.data_received, resets))


def a_client_is_closed_for_the_memory_of_its_streams() -> Scene:
    stage = client_with_streams()
    stage.served.keeps(1 << 20)
    return Scene(stage.loop, finished(stage), stage.served.end_for_memory)


def clients_leave() -> Scene:
    stage = Stage(roomy_path(), connections=2 * MANY)
    clients = [stage.connect()[0] for _ in range(MANY)]
    for client in clients:
        stage.upstream()
        client.data_received(GET)
    stage.loop.settle()
    return Scene(stage.loop, finished(stage), lambda: [client.connection_lost(None) for client in clients])


def an_upstream_with_connections_dies() -> Scene:
    loop = HandLoop()
    pool = hand_cluster(loop, max_connections=MANY).pools[0]
    sinks = [Hearing() for _ in range(MANY)]
    connections = [UpstreamConnection(pool) for _ in sinks]
    for connection, sink in zip(connections, sinks, strict=True):
        connected(connection)
        connection.begin(sink)
    return Scene(
        loop,
        lambda: sum(bool(sink.notes) for sink in sinks),
        lambda: [connection.connection_lost(None) for connection in connections],
    )


def upstream_with_streams() -> tuple[Upstream, Peer, Callable[[], int]]:
    upstream = Upstream()
    peer = upstream.connect(limit=MANY)
    calls = [upstream.ask() for _ in range(MANY)]
    return upstream, peer, lambda: sum("failed" in call.sink.names for call in calls)


def a_connection_of_many_streams_is_lost() -> Scene:
    upstream, peer, failed = upstream_with_streams()
    return Scene(upstream.turns_loop, failed, peer.lose)


def an_upstream_says_goodbye_to_streams_that_it_did_not_process() -> Scene:
    upstream, peer, failed = upstream_with_streams()
    return Scene(upstream.turns_loop, failed, partial(peer.say, wire.goaway(0)))


def an_upstream_breaks_the_protocol_under_many_streams() -> Scene:
    upstream, peer, failed = upstream_with_streams()
    return Scene(upstream.turns_loop, failed, partial(peer.say, wire.frame(wire.DATA, 0, 0, b"x")))


def idle_connections_with_an_upstream_are_closed() -> Scene:
    loop = HandLoop()
    pool = hand_cluster(loop, max_connections=MANY).pools[0]
    connections = [UpstreamConnection(pool) for _ in range(MANY)]
    transports = [connected(connection) for connection in connections]
    pool.idle.update(dict.fromkeys(connections))
    return Scene(loop, lambda: sum(transport.is_aborted for transport in transports), pool.retire)


def connections_with_clients_are_retired() -> Scene:
    stage = Stage(roomy_path(), connections=2 * MANY)
    for _ in range(MANY - 1):
        stage.connect()
    before = stage.loop.timers
    return Scene(stage.loop, lambda: stage.loop.timers - before, stage.listener.retire)


def copies_of_requests_are_stopped() -> Scene:
    path = Path()
    stopped: list[Copied] = []
    path.service.beside.copies.update(Copied(stopped) for _ in range(MANY))
    return Scene(path.loop, lambda: len(stopped), path.service.beside.stop_copies)


class Copied:
    """A copy of a request."""

    def __init__(self, stopped: list[Copied]) -> None:
        self._stopped = stopped

    def stop(self) -> None:
        self._stopped.append(self)


def deadlines_fall_due_together() -> Scene:
    path = Path()
    items = [Item(path.loop.now + 1.0) for _ in range(MANY)]
    for item in items:
        path.service.sweep.add(cast(Any, item), path.loop.now)
    path.loop.now += 1.0
    due = partial(path.service.sweep.expire_bucket, cast(Any, items[0].bucket))
    return Scene(path.loop, lambda: sum(len(item.expired) for item in items), due)


class Call:
    """One of an app that was called by somebody who has left."""

    def __init__(self, ended: list[Call]) -> None:
        self._ended = ended

    def caller_gone(self) -> None:
        self._ended.append(self)


class Caller:
    def __init__(self, path: Path) -> None:
        self.service = path.service


def a_caller_with_many_calls_leaves() -> Scene:
    path, span_id = Path(), IdSource().span_id()
    entry = path.service.callers.enter(span_id, None, 99.0, 0.0)
    ended: list[Call] = []
    for _ in range(MANY):
        path.service.callers.attach(entry, Call(ended))
    leave = partial(lineage._end, cast(Story, Caller(path)), span_id, Reason.CLIENT_GONE, 0.0)
    return Scene(path.loop, lambda: len(ended), leave)


SCENES = [
    a_caller_with_many_calls_leaves,
    a_client_is_closed_for_the_memory_of_its_streams,
    a_client_resets_its_streams,
    a_client_with_many_streams_leaves,
    a_connection_of_many_streams_is_lost,
    an_upstream_breaks_the_protocol_under_many_streams,
    an_upstream_says_goodbye_to_streams_that_it_did_not_process,
    an_upstream_with_connections_dies,
    clients_leave,
    connections_with_clients_are_retired,
    copies_of_requests_are_stopped,
    deadlines_fall_due_together,
    idle_connections_with_an_upstream_are_closed,
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_a_turn_of_the_loop_has_a_bounded_number_of_ends(scene: Callable[[], Scene]) -> None:
    by_turn = scene().ends_by_turn()
    assert sum(by_turn) == MANY
    assert max(by_turn) <= AT_MOST


# What happens between an event and the end that it brings


def use_up_the_turn(path: Path) -> None:
    """Whatever ends now waits for a later one."""
    for _ in range(ENDS_A_TURN):
        path.service.turns.end(lambda: None)


def test_an_attempt_that_has_let_go_meanwhile_does_not_hear_of_its_connection() -> None:
    loop = HandLoop()
    cluster = hand_cluster(loop)
    sink, connection = Hearing(), UpstreamConnection(cluster.pools[0])
    connected(connection)
    connection.begin(sink)
    for _ in range(ENDS_A_TURN):
        cluster.turns.end(lambda: None)
    connection.connection_lost(None)
    connection.release(Fate.BROKEN, loop.now)
    loop.settle()
    assert (sink.notes, loop.errors) == ([], [])


def test_an_answer_that_comes_before_its_client_is_known_to_be_gone_ends_it_once() -> None:
    stage = Stage()
    lease = stage.upstream()
    stage.send(GET)
    use_up_the_turn(stage.path)
    stage.lose()
    assert stage.path.told.finishes == []
    stage.answer(lease)
    stage.loop.settle()
    assert [status for status, _, _ in stage.path.told.finishes] == [200]
    assert (stage.loop.errors, stage.path.service.exchanges) == ([], set())


def test_what_is_held_back_for_a_client_that_has_gone_is_charged_to_nobody() -> None:
    stage = Stage()
    lease = stage.upstream()
    stage.send(post(100), b"some")
    use_up_the_turn(stage.path)
    stage.lose()
    assert lease.heard_by is not None
    lease.heard_by.blocked()
    stage.loop.settle()
    assert [reason for _, reason, _ in stage.path.told.finishes] == [Reason.CLIENT_GONE]
    assert stage.path.service.memory.used_bytes == 0


def test_a_client_closed_for_memory_has_given_it_back_before_its_streams_have_ended() -> None:
    stage = Http2Stage()
    memory = stage.path.service.memory
    before = memory.used_bytes
    stage.upstream()
    stage.send(wire.request(1))
    stage.served.keeps(1 << 20)
    use_up_the_turn(stage.path)
    assert memory.used_bytes > before + (1 << 20) - 4096
    stage.served.end_for_memory()
    assert (memory.used_bytes, len(stage.path.service.exchanges)) == (before, 1)
    assert stage.served.claim(stage.loop.now) is None
    stage.lose()
    stage.loop.settle()
    assert [reason for _, reason, _ in stage.path.told.finishes] == [Reason.OVERLOADED]
    assert memory.used_bytes == 0
