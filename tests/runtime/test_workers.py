"""What several processes share and tell each other: bounded, added up, and never lost by a death."""

import asyncio
import itertools
import os
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sidecar.admin import merged
from sidecar.admin.events import Events
from sidecar.admin.readings import Readings, Table
from sidecar.admin.recent import Recent, Sample
from sidecar.admin.server import AdminServer
from sidecar.admin.tap import Taps, Wanted
from sidecar.config.load import load_text
from sidecar.config.process.pickles import pack
from sidecar.config.tell.diff import diff
from sidecar.core import source_totals
from sidecar.core.numbers import OVERFLOW_STATUS, Numbers
from sidecar.core.observe import Notice
from sidecar.core.place import WorkerPlace
from sidecar.core.snapshot import MOST_SERIES, Address, Direction, Snapshot
from sidecar.core.source_totals import remains, summed
from sidecar.core.sources import AdaptiveNumbers, BreakerReading, Sources, UpstreamNumbers
from sidecar.core.totals import states_of
from sidecar.core.transition import State
from sidecar.downstream.accept_queues import AcceptQueues
from sidecar.downstream.connected import Connected
from sidecar.downstream.listener import ListenerSocket
from sidecar.forwarding.service import Service
from sidecar.runtime import file_limits
from sidecar.runtime.crossing import Crossing
from sidecar.runtime.datapath import Next
from sidecar.runtime.foundation import Ground
from sidecar.runtime.workers import channel as channels
from sidecar.runtime.workers import kinds
from sidecar.runtime.workers.binder import Binder
from sidecar.runtime.workers.channel import AskRefused, Message, NoAnswer, WorkerChannel
from sidecar.runtime.workers.control_end import ControlEnd
from sidecar.runtime.workers.cores import cores
from sidecar.runtime.workers.dealer import AGAIN_SECONDS, RETRY_SECONDS, Dealer
from sidecar.runtime.workers.divided import divided
from sidecar.runtime.workers.figures import Figures, Report
from sidecar.runtime.workers.hub import SILENCE_SECONDS, Hub
from sidecar.runtime.workers.inherited import Inherited, packed_file
from sidecar.runtime.workers.lifeline import Lifeline
from sidecar.runtime.workers.orders import BindThese, KeepSockets, NewSockets, Order
from sidecar.runtime.workers.pod_readings import PodReadings, in_pieces
from sidecar.runtime.workers.sockets import MOST_ADDRESSES, SharedSockets, identity
from sidecar.runtime.workers.told_events import ToldEvents
from sidecar.runtime.workers.worker_process import WorkerProcess
from sidecar.transport.bind import BACKLOG, Bound
from sidecar.transport.handed import receive
from sidecar.transport.last_accepts import last_accepts, listen_again
from tests.telemetry.fakes import FakeExchange, count_ended

CONFIG = """\
version: 1
listeners: {inbound: {address: "127.0.0.1:0", limits: {connections: 5}}}
limits: {max_requests: 7, memory: 9MiB}
upstreams:
  app: {endpoints: ["127.0.0.1:1"], limits: {max_connections: 10, max_pending: 1, max_requests: 3}}
routes:
- {name: app, match: {path: {prefix: /}}, upstream: app}
"""


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110
        await asyncio.sleep(0)


@asynccontextmanager
async def pair(answer: Any) -> AsyncIterator[tuple[WorkerChannel, WorkerChannel, list[Message]]]:
    """Two ends; `answer(channel, message)` is what the second does with what it is told."""
    lost: list[WorkerChannel] = []
    heard: list[Message] = []

    def receive(channel: WorkerChannel, message: Message) -> None:
        heard.append(message)
        answer(channel, message)

    one, other = socket.socketpair()
    first = await WorkerChannel.over(one, lambda *_: None, lost.append)
    second = await WorkerChannel.over(other, receive, lost.append)
    try:
        yield first, second, heard
    finally:
        first.close()
        second.close()
        await until(lambda: len(lost) == 2)


async def test_a_question_is_answered_or_refused_and_never_waits_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(channel: WorkerChannel, message: Message) -> None:
        match message.kind:
            case "double":
                channel.answer(message, message.body * 2)
            case "refuse":
                channel.fail(message, "not now")
            case "leave":
                channel.close()

    async with pair(answer) as (one, _, heard):
        assert await one.ask("double", 21, 5.0) == 42
        with pytest.raises(AskRefused, match="not now"):
            await one.ask("refuse", None, 5.0)
        with pytest.raises(NoAnswer, match="no answer to silence"):
            await one.ask("silence", None, 0.01)
        monkeypatch.setattr(channels, "MAX_ASKED", 0)
        with pytest.raises(NoAnswer, match="questions wait"):
            await one.ask("double", 1, 5.0)
        monkeypatch.undo()
        with pytest.raises(NoAnswer, match="gone"):
            await one.ask("leave", None, 5.0)
        with pytest.raises(NoAnswer, match="not there"):
            await one.ask("double", 1, 5.0)
        assert not one.tell("double", 1)
        assert [one.kind for one in heard] == ["double", "refuse", "silence", "leave"]
        assert one.refused == 3


async def test_a_channel_takes_no_more_than_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(lambda *_: None) as (one, other, heard):
        monkeypatch.setattr(channels, "MAX_FRAME_BYTES", 1000)
        assert one.tell("fits", b"x" * 900)
        assert not one.tell("does not", b"x" * 1000)
        await until(lambda: bool(heard))
        monkeypatch.setattr(channels, "MAX_FRAME_BYTES", 10_000_000)
        monkeypatch.setattr(channels, "MAX_UNSENT_BYTES", 5_000_000)
        assert other.is_open
        sent = 0
        while one.tell("flood", b"x" * 1_000_000):
            sent += 1
        assert sent <= 5 + 1, "nobody reads meanwhile, beside what the kernel takes"
        monkeypatch.setattr(channels, "MAX_FRAME_BYTES", 100)
        await until(lambda: not other.is_open)  # a longer frame than allowed comes from no one of ours


def test_limits_are_divided_and_add_up() -> None:
    whole = load_text(CONFIG).snapshot
    parts = [divided(whole, WorkerPlace(number, 3), None) for number in (1, 2, 3)]
    assert [one.limits.max_requests for one in parts] == [3, 2, 2]
    assert sum(one.limits.memory_bytes or 0 for one in parts) == 9 * 1024 * 1024
    assert [one.listeners["inbound"].limits.connections for one in parts] == [2, 2, 1]
    limits = [one.upstreams["app"].limits for one in parts]
    assert [one.max_connections for one in limits] == [4, 3, 3]
    assert [one.max_pending for one in limits] == [1, 1, 1], "at least one each"
    assert divided(whole, WorkerPlace(), None) is whole


def test_where_nobody_may_wait_nobody_waits_in_any_worker() -> None:
    whole = load_text(CONFIG.replace("max_pending: 1", "max_pending: 0")).snapshot
    parts = [divided(whole, WorkerPlace(number, 3), None) for number in (1, 2, 3)]
    assert [one.upstreams["app"].limits.max_pending for one in parts] == [0, 0, 0]


def test_what_a_route_may_have_in_all_is_divided() -> None:
    policies = "retry: {attempts: 1, budget: {min_per_second: 3}}, mirror: {upstream: app, max_in_flight: 4}"
    whole = load_text(CONFIG.replace("{name: app,", f"{{name: app, {policies},")).snapshot
    parts = [divided(whole, WorkerPlace(number, 2), None).routes[0] for number in (1, 2)]
    assert [one.retry.min_per_second for one in parts] == [1.5, 1.5]
    assert [one.mirror and one.mirror.most_in_flight for one in parts] == [2, 2]
    whole = load_text(CONFIG).snapshot
    assert divided(whole, WorkerPlace(1, 3), None).routes[0].mirror is None


def report(pid: int, timeouts: int, successes: int, state: State) -> Report:
    numbers = Numbers()
    for _ in range(timeouts):
        numbers.noticed(Notice.INVALID_TIMEOUT_HEADER, "app")
    breaker = BreakerReading("app", "app", state, successful=successes)
    upstream = UpstreamNumbers("app", active=2, idle=1)
    return Report(pid, states_of(numbers), Sources(breakers=[breaker], upstreams=[upstream]))


def told(figures: Figures) -> tuple[int, int, State, int]:
    """Notices and successes in all, the breaker's state, and connections that are busy."""
    own = Sources(breakers=[BreakerReading("app", "app", State.CLOSED)], upstreams=[UpstreamNumbers("app")])
    numbers, sources = figures.total(own)
    notices = sum(route.notices.get(Notice.INVALID_TIMEOUT_HEADER, 0) for route in numbers.routes())
    (breaker,), (upstream,) = sources.breakers, sources.upstreams
    return notices, breaker.successful, breaker.state, upstream.active


def test_what_a_dead_worker_had_counted_stays_in_the_sum() -> None:
    kept: list[int] = []
    figures = Figures(Numbers(), None, lambda file: kept.append(os.dup(file)))
    figures.reported(1, report(11, 3, 10, State.OPEN))
    figures.reported(2, report(12, 4, 20, State.CLOSED))
    figures.reported(2, report(12, 4, 20, State.CLOSED))
    assert told(figures) == (7, 30, State.OPEN, 4), "twice the same report changes nothing"
    figures.gone(1)
    figures.gone(1)
    assert told(figures) == (7, 30, State.CLOSED, 2), "it holds nothing any more"
    figures.reported(1, report(13, 1, 1, State.CLOSED))
    figures.reported(1, report(14, 0, 0, State.CLOSED))
    assert told(figures)[:2] == (8, 31), "another process has its place, though nobody said that it died"
    later = Figures(Numbers(), kept[-1], lambda _: None)
    assert told(later)[:2] == (4, 11), "what the next control process is left"
    later.retain({"other"})
    assert told(later)[0] == 0
    for file in kept:
        os.close(file)


def test_adaptive_limits_of_workers_are_added_up_and_a_dead_one_leaves_its_counters() -> None:
    def limited(*numbers: AdaptiveNumbers) -> list[Sources]:
        return [Sources(upstreams=[UpstreamNumbers("app", adaptive=one)]) for one in numbers]

    control, one, other = limited(
        AdaptiveNumbers(1024),
        AdaptiveNumbers(30, 0.05, 20, 4, 1, {"used": 2}),
        AdaptiveNumbers(20, 0.06, 9, 2, 0, {"used": 1}),
    )
    assert summed(control, [one, other]).upstreams[0].adaptive == AdaptiveNumbers(
        50, 0.06, 29, 6, 1, {"used": 3}
    )
    assert summed(control, [remains(one), other]).upstreams[0].adaptive == AdaptiveNumbers(
        20, 0.06, 9, 6, 1, {"used": 3}
    )


def test_the_last_change_of_any_workers_limit_is_shown_for_all() -> None:
    def row(number: int, at: str, reason: str) -> dict[str, Any]:
        limit = {"mode": "on", "limit": 10 * number, "in_flight": number, "base_seconds": None}
        shown = {"adaptive": {**limit, "changed": {"at": at, "reason": reason}}, "name": "app", "limits": {}}
        return {
            **shown,
            "in_flight": 0,
            "pending": 0,
            "connections": 0,
            "refused_by_limits": 0,
            "endpoints": [],
        }

    early, late = row(1, "2026-11-29T00:00:00+00:00", "start"), row(2, "2026-11-29T00:00:01+00:00", "used")
    (whole,) = merged.upstreams({1: [early], 2: [late], 3: [{**early, "adaptive": None}]})
    assert whole["adaptive"] == {
        "mode": "on",
        "limit": 30,
        "in_flight": 3,
        "base_seconds": None,
        "changed": {"at": "2026-11-29T00:00:01+00:00", "reason": "used"},
    }


def test_what_policies_that_only_count_have_seen_is_added_up() -> None:
    key = ("candidate", "failure")
    rows = [
        BreakerReading(
            "app",
            "app",
            State.CLOSED,
            timed_out=count,
            slow=1,
            candidate=state,
            would_have_rejected={key: count},
        )
        for count, state in ((0, State.CLOSED), (2, State.OPEN), (3, State.CLOSED))
    ]
    parts = [Sources(breakers=[row]) for row in rows]
    (whole,) = source_totals.summed(parts[0], parts[1:]).breakers
    assert (whole.timed_out, whole.slow, whole.candidate) == (5, 3, State.OPEN)
    assert whole.would_have_rejected == {key: 5}
    (left,) = source_totals.remains(parts[1]).breakers
    assert (left.timed_out, left.candidate, left.would_have_rejected) == (2, None, {key: 2})


def test_the_sum_does_not_go_back_while_a_dead_worker_is_added_to_the_departed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the thread of a scrape sees it."""
    seen: list[tuple[int, int, State, int]] = []
    remains = source_totals.remains

    def looked_at_meanwhile(sources: Sources) -> Sources:
        seen.append(told(figures))
        return remains(sources)

    monkeypatch.setattr(source_totals, "remains", looked_at_meanwhile)
    figures = Figures(Numbers(), None, lambda _: None)
    figures.reported(1, report(11, 3, 10, State.OPEN))
    figures.reported(2, report(12, 4, 20, State.CLOSED))
    figures.gone(1)
    assert seen == [(7, 30, State.OPEN, 4)]
    assert told(figures) == (7, 30, State.CLOSED, 2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_series", [MOST_SERIES, 100], ids=["of a route", "of all"])
def test_no_row_of_the_sum_goes_back_where_there_is_no_room_for_all(seed: int, max_series: int) -> None:
    """Workers see other statuses first, and die."""
    rng = random.Random(seed)
    kept: list[int] = []
    bound = Numbers(max_series=max_series)
    figures = Figures(bound, None, lambda file: kept.append(os.dup(file)))
    workers = {1: Numbers(max_series=max_series), 2: Numbers(max_series=max_series)}
    pids = itertools.count(1)
    lives = {number: next(pids) for number in workers}
    before: dict[object, int] = {}
    for _ in range(60):
        for number, numbers in workers.items():
            for _ in range(8):
                name, status = rng.choice(["a", "b"]), rng.randrange(200, 299)
                count_ended(numbers, FakeExchange(route_name=name, status=status, attempts=()))
            figures.reported(number, Report(lives[number], states_of(numbers), Sources()))
        if rng.random() < 0.1:
            number = rng.choice([1, 2])
            figures.gone(number)
            workers[number], lives[number] = Numbers(max_series=max_series), next(pids)
        rows = {
            (one.name, key): sum(row.counts) for one in figures.routes() for key, row in one.server.items()
        }
        assert [key for key, count in before.items() if rows.get(key, 0) < count] == []
        before = rows
    assert any(key[1] == OVERFLOW_STATUS for _, key in rows), "there was no room for all"
    bound.max_series = 10
    assert {(one.name, key) for one in figures.routes() for key in one.server} == set(rows), (
        "who is there stays"
    )
    for file in kept:
        os.close(file)


def test_the_worst_state_is_shown() -> None:
    assert source_totals.worst([State.CLOSED, State.HALF_OPEN]) is State.HALF_OPEN
    assert source_totals.worst([State.FORCED_CLOSED, State.CLOSED]) is State.CLOSED
    assert set(source_totals.WORST_FIRST) == set(State)


def test_what_workers_show_is_added_up() -> None:
    assert merged.total([{"a": 1, "b": {"x": 1.5}}, {"a": 2, "c": 3}, None]) == {
        "a": 3,
        "b": {"x": 1.5},
        "c": 3,
    }
    assert merged.total([[1, 2], [3, 4]]) == [4, 6]
    assert merged.total([False, True]) is True
    assert merged.total([None, "x", "y"]) == "x"
    assert merged.total([]) is None


def test_a_pod_is_shown_alone_in_its_fleet_where_one_of_its_workers_is() -> None:
    nothing = {"open": [], "open_count": 0, "probe_due_count": 0, "overridden_count": 0}
    linked = {"is_alone": False, "reason": None, "writes": 3, "failures": {"slow": 1}}
    alone = {"is_alone": True, "reason": "slow", "writes": 2, "failures": {"slow": 2}}
    counts = dict.fromkeys(("reads", "sent", "received", "refused", "unheard", "dropped"), 1)
    rest = {"breakers": nothing, "parts": [], "untied_calls": None, "overload": {}}
    parts = {number: {**rest, "fleet": {**one, **counts}} for number, one in ((1, linked), (2, alone))}
    shown = merged.status({"parts": []}, parts)["fleet"]
    assert (shown["is_alone"], shown["reason"]) == (True, "slow")
    assert (shown["writes"], shown["reads"], shown["failures"]) == (5, 2, {"slow": 3})
    without = {number: {**rest, "fleet": None} for number in (1, 2)}
    assert merged.status({"parts": []}, without)["fleet"] is None


def test_of_what_workers_take_up_in_an_overload_the_smallest_share_is_shown() -> None:
    """It is a share of the usual: the sum of two workers said 2."""
    nothing = {"open": [], "open_count": 0, "probe_due_count": 0, "overridden_count": 0}
    rest = {"breakers": nothing, "parts": [], "untied_calls": None, "fleet": None}
    calm = {"is_on": False, "admission": 1.0, "waiting": 0, "refused": 2}
    busy = {"is_on": True, "admission": 0.4, "waiting": 7, "refused": 3}
    parts = {1: {**rest, "overload": {"inbound": calm}}, 2: {**rest, "overload": {"inbound": busy}}}
    shown = merged.status({"parts": []}, parts)["overload"]
    assert shown == {"inbound": {"is_on": True, "admission": 0.4, "waiting": 7, "refused": 5}}
    assert merged.status({"parts": []}, {1: parts[1]})["overload"] == {"inbound": calm}


async def test_the_last_minute_of_all_is_read_by_the_loop_which_writes_it() -> None:
    """In a thread, a look in the middle of it broke the answer."""
    readers = []

    class Watched(Recent):
        def before(self, name: str, seconds: float) -> tuple[Sample | None, float]:
            readers.append(threading.current_thread())
            return super().before(name, seconds)

    class Answered:
        turn = asyncio.Lock()

        async def ask_all(self, *_: object) -> dict[int, list[bytes]]:
            row = {"name": "app", "errors": 1, "finished": 2, "duration_counts": [2, 0], "breakers": []}
            return {number: await in_pieces([row]) for number in (1, 2)}

        async def routes(self, _: None) -> Table:
            return Table({"cursor": "1"}, "routes", [])

    workers = Answered()
    recent = Watched(Numbers(duration_bounds=(1.0,)), asyncio.get_running_loop().time)
    table = await PodReadings(cast(Hub, workers), cast(Readings, workers), recent).routes(None)
    (row,) = await table.all_rows()
    assert (row["errors"], row["finished"], row["minute"]["finished"]) == (2, 4, 0)
    assert readers == [threading.main_thread()]


async def test_a_reader_sees_what_it_wants_though_another_one_had_its_number() -> None:
    """Of a control process that has died; the next one gives the same numbers."""
    taps = Taps(lambda _: {})
    told = ToldEvents(Events(), taps, cast(AdminServer, None), ControlEnd())
    one, other, third = Wanted("app"), Wanted("other"), Wanted()
    told.tap({1: one, 2: other})
    kept = {tap for tap in taps.readers if tap.wanted is other}
    told.tap({1: third, 2: other})
    assert {tap.wanted for tap in taps.readers} == {other, third}
    assert kept < taps.readers, "who stays keeps what waits for it"
    told.tap({})
    assert not taps.readers


class Heard:
    """In the place of the way to control."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def tell(self, kind: str, body: Any) -> bool:
        self.told.append((kind, body))
        return True


async def test_the_last_events_of_a_worker_are_passed_on_without_a_pause() -> None:
    events, heard = Events(), Heard()
    words = SimpleNamespace(words=lambda event: event.number)
    told = ToldEvents(events, Taps(lambda _: {}), cast(AdminServer, words), cast(ControlEnd, heard))
    for _ in range(300):
        events.told("config", {})
    told.pass_on_all()
    passed = [number for kind, (rows, _) in heard.told if kind == kinds.EVENTS for _, number in rows]
    assert passed == list(range(1, 301))


class Roomy:
    """In the place of who decides how many are let in."""

    def has_room(self) -> bool:
        return True


async def test_a_socket_that_another_process_has_ended_wakes_the_loop_no_more() -> None:
    """It would for ever: poll(2) reports POLLHUP of it, and nothing can be accepted."""
    loop, taken = asyncio.get_running_loop(), list[socket.socket]()
    visitors = SimpleNamespace(is_short_of_files=False, keep_files=lambda: None)
    service = cast(Service, SimpleNamespace(loop=loop, beside=SimpleNamespace(visitors=visitors)))
    queues = AcceptQueues(cast(Connected, Roomy()), service)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        for each in (one, other):
            each.setblocking(False)
        queues.bound = Bound.of(one)
        queues.start(taken.append)
        queues.add(other)
        one.shutdown(socket.SHUT_RDWR)
        await until(lambda: queues.in_kernel() == [other])
        with socket.create_connection(other.getsockname()):
            await until(lambda: len(taken) == 1)
        assert not loop.remove_reader(one.fileno())
        assert loop.remove_reader(other.fileno())
    taken[0].close()


async def test_a_worker_prepares_one_snapshot_after_the_other() -> None:
    """A control process died in the middle of a reload, and the next one begins another at once."""
    snapshot = load_text(CONFIG).snapshot
    inherited = Inherited.make(snapshot, 2)
    one, other = Lifeline.pair()
    worker = WorkerProcess(WorkerPlace(1, 2), inherited, one, Ground({}, file_limits.present(), None))
    told: list[tuple[str, int]] = []

    async def prepare(_: Snapshot) -> Next:
        number = len(told)
        told.append(("begun", number))
        await asyncio.sleep(1.0)
        told.append(("prepared", number))
        return cast(Next, number)

    def discard(following: Next) -> None:
        told.append(("discarded", cast(int, following)))

    datapath: Any = worker.datapath
    datapath.prepare, datapath.discard = prepare, discard
    asked, parts = worker.control_end.handlers, list(pack(snapshot))
    await asyncio.gather(asked[kinds.PREPARE](parts), asked[kinds.PREPARE](parts), asked[kinds.DISCARD](None))
    assert told == [
        ("begun", 0),
        ("prepared", 0),
        ("discarded", 0),
        ("begun", 3),
        ("prepared", 3),
        ("discarded", 3),
    ]
    for end in (one, other):
        end.close()
    inherited.sockets.keep(())
    inherited.crossing.close()


async def test_a_worker_that_says_nothing_is_known_to_hang() -> None:
    now = [0.0]
    hub = Hub(1, Figures(Numbers(), None, lambda _: None), lambda: now[0])
    one, other = socket.socketpair()
    with other:
        await hub.connect(1, 4711, one)
        now[0] = SILENCE_SECONDS
        assert not hub.silent()
        now[0] += 0.001
        assert [link.pid for link in hub.silent()] == [4711]
        hub.close()
        await until(lambda: not hub.links)


async def test_sockets_outlive_their_worker_and_a_configuration_its_control() -> None:
    snapshot = load_text(CONFIG).snapshot
    inherited = Inherited.make(snapshot, 2)
    (one,) = inherited.sockets.identities()
    first, second = inherited.sockets.all_of(one)
    assert first.getsockname() == second.getsockname()
    binder = Binder(inherited.sockets, 2, list)
    bound = await binder.bind(snapshot.listeners["inbound"].address, "listeners.inbound.address")
    assert bound.port == first.getsockname()[1]
    bound.listening.shutdown(socket.SHUT_RDWR)
    bound.listening.close()
    again = await binder.bind(snapshot.listeners["inbound"].address, "listeners.inbound.address")
    assert again.listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), "it listens again"
    again.listening.close()
    file = packed_file(load_text(CONFIG.replace("max_requests: 7", "max_requests: 8")).snapshot)
    inherited.configured(2, file)
    assert inherited.as_begun(inherited.latest()).limits.max_requests == 8
    inherited.configured(3, packed_file(snapshot))
    assert inherited.as_begun(inherited.latest()).limits.max_requests == 7
    inherited.sockets.keep(())
    inherited.crossing.close()
    assert not inherited.sockets.identities()


def test_who_begins_after_a_reload_keeps_what_waits_for_the_next_start() -> None:
    snapshot = load_text(CONFIG).snapshot
    inherited = Inherited.make(snapshot, 2)
    other = (
        "workers: 3\ntelemetry: {access_log: {format: text}}\nprobes: {address: '127.0.0.1:1'}\n"
        "admin: {address: '127.0.0.1:2'}\n"
    )
    new = load_text(CONFIG.replace("max_requests: 7", "max_requests: 8") + other).snapshot
    waiting = diff(snapshot, new).pending_restart
    assert {change.key.partition(".")[0] for change in waiting} == {"workers", "telemetry", "probes", "admin"}
    inherited.configured(2, packed_file(new))
    begins_with = inherited.as_begun(inherited.latest())
    assert not diff(snapshot, begins_with).pending_restart, "as its siblings have it"
    assert diff(snapshot, begins_with).process, "and the rest as it is in use"
    assert begins_with.digest == new.digest
    inherited.sockets.keep(())
    inherited.crossing.close()


def test_no_more_addresses_are_shared_than_fit_into_a_lifeline(tmp_path: Path) -> None:
    longest = [(Address("", 0, f"/{'x' * 102}{number:03}"), "") for number in range(MOST_ADDRESSES)]
    keys = [(address, f"listeners.{'n' * 128}.address") for address, _ in longest]
    supervisor, child = Lifeline.pair()
    with socket.socket() as one:
        files = [one.fileno()] * 8
        orders: list[Order] = [*map(NewSockets, longest), KeepSockets(tuple(longest))]
        for order in orders:
            supervisor.send(order, files if isinstance(order, NewSockets) else ())
    child.send(BindThese(tuple(keys)))
    assert supervisor.receive() == (BindThese(tuple(keys)), [])
    for order in orders:
        received = child.receive()
        assert received is not None
        assert received[0] == order
        for file in received[1]:
            os.close(file)
    supervisor.close()
    child.close()


def test_a_configuration_with_more_addresses_is_refused_with_several_workers(tmp_path: Path) -> None:
    lines = [
        f'  n{number}: {{address: "unix:{tmp_path}/{number}", direction: inbound}}' for number in range(129)
    ]
    routes = 'upstreams: {a: {endpoints: ["127.0.0.1:1"]}}\nroutes: [{name: a, listener: n0, upstream: a}]\n'
    snapshot = load_text("\n".join(["version: 1", "workers: 2", "listeners:", *lines, routes])).snapshot
    with pytest.raises(
        OSError, match="listeners: 129 addresses are more than 128, which several workers can share"
    ):
        SharedSockets(2).bind_all(snapshot)
    assert not list(tmp_path.iterdir())


def test_a_unix_socket_is_one_for_all(tmp_path: Path) -> None:
    sockets = SharedSockets(3)
    one = sockets.bind(Address("", 0, path=str(tmp_path / "socket")), "listeners.x.address")
    assert len(sockets.all_of(one)) == 1
    assert sockets.of(one, 3) == sockets.of(one, 1) == sockets.all_of(one)
    assert not list(sockets.neighbours(2)), "all take from it anyway"
    sockets.keep(())


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"pod/cpu.max": "max 100000\n", "cpu.max": "300000 100000\n"}, 3),
        ({"pod/cpu.max": "50000 100000\n", "cpu.max": "max 100000\n"}, 1),
        ({"cpu/pod/cpu.cfs_quota_us": "400000\n", "cpu/pod/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu.max": "what else\n"}, 8),
    ],
)
def test_auto_heeds_the_cpu_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    membership = tmp_path / "membership"
    membership.write_text("0::/pod\n3:cpu,cpuacct:/pod\n")
    assert cores(tmp_path, membership) == expected


@dataclass(frozen=True)
class OneWorker:
    """A dealer with one worker and one listener."""

    dealer: Dealer
    queue: socket.socket
    listeners: list[ListenerSocket]
    own: socket.socket
    """Where the worker gets its connections."""
    given: socket.socket


@contextmanager
def dealt() -> Iterator[OneWorker]:
    policy = load_text(CONFIG.replace("limits: {connections: 5}", "balance: exact")).snapshot.listeners[
        "inbound"
    ]
    sockets, crossing = SharedSockets(1), Crossing(1)
    sockets.bind(policy.address, "listeners.inbound.address")
    (queue,) = sockets.all_of(identity(policy.address, "listeners.inbound.address"))
    queue.listen()
    listeners = [cast(ListenerSocket, SimpleNamespace(name="inbound", policy=policy))]
    dealer = Dealer(crossing, sockets, lambda: listeners)
    dealer.joined(1)
    dealer.listeners_changed()
    yield OneWorker(dealer, queue, listeners, *crossing.hands[0])
    dealer.close()
    sockets.keep(())
    crossing.close()


async def test_a_socket_that_a_worker_has_ended_is_accepted_from_when_another_listens_again() -> None:
    """Control forgot it: a share of the connections hung until the next reload."""
    with dealt() as at:
        assert last_accepts(at.queue, is_shared=True) == []
        await asyncio.sleep(2 * RETRY_SECONDS)
        listen_again(at.queue, BACKLOG)
        with socket.create_connection(at.queue.getsockname()):
            await asyncio.sleep(AGAIN_SECONDS)
            assert at.dealer.numbers()["handed_over"] == 1
        received = receive(at.own)
        assert received is not None
        received[1].close()
        last_accepts(at.queue, is_shared=True)
        await asyncio.sleep(2 * RETRY_SECONDS)
        at.dealer.hand_on()  # while it is ended
        await asyncio.sleep(AGAIN_SECONDS)


async def test_a_connection_that_nobody_took_is_dealt_though_its_listener_has_gone_meanwhile() -> None:
    """It stayed in control's hand for ever, and no listener that came later was accepted from."""
    with dealt() as at:
        with suppress(BlockingIOError):
            while True:
                at.given.send(b"x")
        with (
            socket.create_connection(at.queue.getsockname()),
            socket.create_connection(at.queue.getsockname()),
        ):
            await until(lambda: at.dealer.numbers()["waited"] > 0)
            gone = at.listeners.pop()
            at.dealer.listeners_changed()
            with suppress(BlockingIOError):
                while True:
                    at.own.recv(1)
            await asyncio.sleep(RETRY_SECONDS)
            assert at.dealer.numbers()["handed_over"] == 1
            at.listeners.append(gone)
            at.dealer.listeners_changed()
            await until(lambda: at.dealer.numbers()["handed_over"] == 2)
            for _ in range(2):
                received = receive(at.own)
                assert received is not None
                assert received[0] == "inbound"
                received[1].close()
            at.dealer.hand_on()
            at.dealer.listeners_changed()
            with socket.create_connection(at.queue.getsockname()):
                await asyncio.sleep(RETRY_SECONDS)
                at.queue.accept()[
                    0
                ].close()  # it was left to another process, though a reload was still under way


def test_the_last_worker_that_takes_from_a_socket_is_known_and_the_dead_take_nothing() -> None:
    crossing = Crossing(3)
    for worker in range(3):
        crossing.join(worker)
    assert not crossing.is_last(0, Direction.INBOUND)
    crossing.bury(1, 0.0)
    assert crossing.is_last(2, Direction.INBOUND)
    assert not crossing.is_last(0, Direction.OUTBOUND)
    crossing.join(1)
    assert not crossing.is_last(2, Direction.OUTBOUND), "one has come in its place"
    assert crossing.is_last(1, Direction.OUTBOUND)
    crossing.close()
