"""`failover`: another upstream takes over from one with too few usable endpoints, through real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.config.load import load_text
from sidecar.core.ejection.change import EndpointChange
from sidecar.core.failover import FailoverChange, FailoverPhase
from sidecar.core.override import Override
from sidecar.core.transition import State
from sidecar.runtime.worker import Worker
from tests.scenarios.checked import CheckedApp
from tests.scenarios.operator import operator
from tests.scenarios.stage import OK, get, hang, post, scraped, tried_again
from tests.support.clean import Complaints, assert_clean
from tests.support.ports import free_ports
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawPeer, ask, raw_client, raw_upstream

FAILURE = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
CHECK = "health_check: {path: /healthz, interval: 1s, timeout: 1s}"


class Stage:
    """Upstreams of several apps each, the first one with `failover`, and a sidecar before them."""

    def __init__(self, worker: Worker, groups: list[list[CheckedApp]]) -> None:
        self.worker = worker
        self.groups = groups
        self.told: list[FailoverChange] = []
        worker.service.on_news = self._heard

    def _heard(self, change: EndpointChange | FailoverChange) -> None:
        self.worker.control._upstreams_news(change)
        if isinstance(change, FailoverChange):
            self.told.append(change)

    @property
    def kept(self) -> float:
        return self.worker.assembly.failovers["app", "u0"].kept

    def state(self, number: int = 0) -> State:
        return self.worker.assembly.breakers["app", f"u{number}"].state

    def served(self) -> list[int]:
        """By upstream, since the last look."""
        now = [sum(app.served for app in group) for group in self.groups]
        before, self._before = getattr(self, "_before", [0] * len(now)), now
        return [one - other for one, other in zip(now, before, strict=True)]

    async def ask(self, count: int = 1, data: bytes = get()) -> list[int]:  # bytes do not change
        return [(await ask(port(self.worker), data)).status for _ in range(count)]

    def set(self, group: int, answer: bytes, *apps: int) -> None:
        """To checks and requests alike, of all or of these."""
        for number in apps or range(len(self.groups[group])):
            app = self.groups[group][number]
            app.health = app.traffic = answer


def routes(groups: list[list[CheckedApp]], failover: str, upstream: str, route: str) -> str:
    lines = []
    for number, group in enumerate(groups):
        endpoints = ", ".join(f'"127.0.0.1:{app.upstream.port}"' for app in group)
        keys = [f"endpoints: [{endpoints}]", *([upstream] if upstream else [])]
        if not number:
            keys.append(f"failover: {failover}")
        lines.append(f"  u{number}: {{{', '.join(keys)}}}")
    return "upstreams:\n" + "\n".join(lines) + f"\nroutes: [{{name: app, upstream: u0{route}}}]\n"


def two_upstreams(home: int, other: int) -> str:
    """Of one endpoint each, by their ports."""
    return f"""\
upstreams:
  u0: {{endpoints: ["127.0.0.1:{home}"], failover: [u1]}}
  u1: {{endpoints: ["127.0.0.1:{other}"]}}
routes:
  - name: app
    upstream: u0
    circuit_breaker: {{open_for: 5s, max_open_for: 5s}}
    timeouts: {{request: 10s}}
"""


@asynccontextmanager
async def stage(
    *counts: int, failover: str = "[u1]", upstream: str = CHECK, route: str = ""
) -> AsyncIterator[Stage]:
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with AsyncExitStack() as stack:
            groups = [[CheckedApp() for _ in range(count)] for count in counts]
            for app in [app for group in groups for app in group]:
                app.upstream = await stack.enter_async_context(raw_upstream(app.serve))
            worker = await stack.enter_async_context(running(routes(groups, failover, upstream, route)))
            yield Stage(worker, groups)
            await assert_clean(worker)
    assert complaints.found == []


async def test_all_goes_to_the_upstream_itself_while_half_of_it_is_well() -> None:
    async with stage(4, 4) as to:
        to.set(0, FAILURE, 0, 1)
        await asyncio.sleep(5.0)
        assert set(await to.ask(60)) == {200}
        assert to.served() == [60, 0]
        assert to.told == []


async def test_load_goes_over_by_degrees_as_endpoints_go() -> None:
    async with stage(10, 10) as to:
        to.set(0, FAILURE, *range(6))
        await asyncio.sleep(5.0)
        assert set(await to.ask(300)) == {200}
        home, other = to.served()
        assert 130 < home < 205  # 4 of 10 usable: 56 %
        assert home + other == 300
        to.set(0, FAILURE, *range(9))
        await asyncio.sleep(5.0)
        assert set(await to.ask(300)) == {200}
        home, other = to.served()
        assert 20 < home < 70  # 1 of 10: 14 %
        (change,) = to.told
        assert (
            change.told
            == "app: u1 takes over from u0: 4 of 10 endpoints are usable, it keeps 56% of its load"
        )


async def test_it_comes_back_after_30_s_over_30_s() -> None:
    async with stage(2, 2) as to:
        to.set(0, FAILURE)
        await asyncio.sleep(5.0)
        assert set(await to.ask(30)) == {200}
        assert to.served() == [0, 30]
        to.set(0, OK)
        await asyncio.sleep(25.0)
        await to.ask(30)
        assert to.served() == [0, 30]
        await asyncio.sleep(20.0)
        assert 0.2 < to.kept < 0.8
        await to.ask(100)
        home, other = to.served()
        assert home > 10
        assert other > 10
        await asyncio.sleep(22.0)
        await to.ask(30)
        assert to.served() == [30, 0]
        assert [change.phase for change in to.told] == [FailoverPhase.AWAY, FailoverPhase.HOME]


async def test_what_flaps_each_10_s_moves_nothing_to_and_fro() -> None:
    async with stage(2, 2) as to:
        to.set(0, FAILURE)
        await asyncio.sleep(5.0)
        for _ in range(10):
            to.set(0, OK)
            await asyncio.sleep(10.0)
            to.set(0, FAILURE)
            await asyncio.sleep(10.0)
            assert set(await to.ask(10)) == {200}
        assert to.served() == [0, 100]
        assert len(to.told) == 1


async def test_an_upstream_whose_breaker_is_open_has_no_usable_endpoint_and_its_checks_are_the_probe() -> (
    None
):
    async with stage(1, 1) as to:
        to.groups[0][0].traffic = FAILURE
        assert await to.ask(5) == [500] * 5
        assert to.state() is State.OPEN
        assert set(await to.ask(100)) == {200}
        assert to.served() == [5, 100]
        to.groups[0][0].traffic = OK
        await asyncio.sleep(6.0)
        assert to.state() is State.CLOSED, "by its health check: no request was needed"
        assert to.served() == [0, 0]
        await asyncio.sleep(62.0)
        await to.ask(20)
        assert to.served() == [20, 0]


async def test_without_checks_one_request_each_open_for_asks_and_is_sent_on_if_it_fails() -> None:
    async with stage(1, 1, upstream="", route=", circuit_breaker: {open_for: 5s, max_open_for: 5s}") as to:
        to.set(0, FAILURE)
        await to.ask(5)
        assert to.state() is State.OPEN
        to.served()
        for _ in range(30):
            assert await to.ask(10) == [200] * 10, "who asks for the others does not pay for it"
            await asyncio.sleep(1.0)
        home, other = to.served()
        assert 5 <= home <= 7
        assert other == 300
        to.set(0, OK)
        await asyncio.sleep(6.0)
        assert await to.ask() == [200]
        assert to.state() is State.CLOSED
        assert to.served() == [1, 0]


async def test_a_probe_that_hangs_leaves_time_for_the_other() -> None:
    hangs = ", circuit_breaker: {open_for: 5s, max_open_for: 5s}, timeouts: {request: 10s}"
    async with stage(1, 1, upstream="", route=hangs) as to:
        to.set(0, FAILURE)
        await to.ask(5)
        to.groups[0][0].traffic = b""
        await asyncio.sleep(6.0)
        began = to.worker.service.clock()
        assert await to.ask() == [200]
        assert to.worker.service.clock() - began == pytest.approx(0.8, abs=0.05)
        assert to.served() == [6, 1]
        assert to.state() is State.OPEN
        assert tried_again(to.worker) == {"failover": 1}


async def test_a_probe_that_hangs_behind_a_stale_connection_leaves_time_for_the_other() -> None:
    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            if is_hanging:
                await hang(peer)
                return
            await peer.send(FAILURE)
            if peer.number == 0 and len(home.requests) == 5:
                await closing.wait()
                return

    is_hanging, closing = False, asyncio.Event()
    async with (
        raw_upstream(script) as home,
        raw_upstream() as other,
        running(two_upstreams(home.port, other.port)) as worker,
    ):
        to = Stage(worker, [])
        assert await to.ask(5) == [500] * 5
        await asyncio.sleep(6.0)
        is_hanging, began = True, worker.service.clock()
        async with raw_client(port(worker)) as client:
            closing.set()
            await client.send(get())
            (answer,) = await client.responses([b"GET"])
        assert answer.status == 200
        assert worker.service.clock() - began == pytest.approx(0.8, abs=0.05)
        assert tried_again(worker) == {"stale_connection": 1, "failover": 1}
        await assert_clean(worker)


async def test_a_hedge_of_a_probe_that_hangs_too_leaves_time_for_the_other() -> None:
    route = (
        ", circuit_breaker: {mode: disabled, open_for: 5s}, hedge: {after: 100ms}, timeouts: {request: 10s}"
    )
    async with stage(2, 1, upstream="ejection: {max_ejected: 0%}", route=route) as to:
        to.set(0, FAILURE)
        for _ in range(60):
            await to.ask()
            await asyncio.sleep(0.11)
        assert to.kept == 0.0
        to.set(0, b"")
        await asyncio.sleep(6.0)
        to.served()
        began = to.worker.service.clock()
        assert await to.ask() == [200]
        assert to.worker.service.clock() - began == pytest.approx(0.8, abs=0.05)
        assert to.served() == [2, 1]


async def test_a_slow_probe_that_nobody_takes_has_its_whole_time() -> None:
    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(2.0 if is_slow else 0.0)
            await peer.send(OK if is_slow else FAILURE)

    is_slow = False
    async with (
        raw_upstream(script) as home,
        raw_upstream() as other,
        running(two_upstreams(home.port, other.port)) as worker,
    ):
        to = Stage(worker, [])
        await to.ask(5)
        is_slow = True
        await asyncio.sleep(6.0)
        worker.assembly.breakers["app", "u1"].override(Override.OPEN, worker.service.clock())
        assert await to.ask() == [200]
        assert len(home.requests) == 6
        assert to.state() is State.CLOSED
        await assert_clean(worker)


async def test_a_probe_that_finds_no_room_at_its_upstream_is_sent_on() -> None:
    route = ", circuit_breaker: {open_for: 1s}"
    async with stage(1, 1, upstream="limits: {max_requests: 1}", route=route) as to:
        to.set(0, FAILURE)
        await to.ask(5)
        cluster = to.worker.assembly.clusters["u0"]
        cluster.in_flight += 1
        await asyncio.sleep(2.0)
        assert await to.ask() == [200]
        assert to.served() == [5, 1]
        cluster.in_flight -= 1


async def test_a_probe_that_is_sent_on_goes_to_the_endpoint_of_its_key() -> None:
    keyed = "load_balancing: {policy: ring_hash, hash_on: {header: x-user}}"
    async with stage(1, 4, upstream=keyed, route=", circuit_breaker: {open_for: 5s, max_open_for: 5s}") as to:
        to.set(0, FAILURE)
        await to.ask(5)
        for _ in range(8):
            await asyncio.sleep(6.0)
            assert await to.ask(1, get(b"/", b"x-user: a")) == [200]
        assert tried_again(to.worker) == {"failover": 8}
        assert sorted(app.served for app in to.groups[1]) == [0, 0, 0, 8]


async def test_a_failed_probe_that_nobody_takes_is_the_answer() -> None:
    async with stage(1, 1, upstream="", route=", circuit_breaker: {open_for: 5s, max_open_for: 5s}") as to:
        to.set(0, FAILURE)
        await to.ask(5)
        await asyncio.sleep(6.0)
        to.worker.assembly.breakers["app", "u1"].override(Override.OPEN, to.worker.service.clock())
        assert await to.ask() == [500]
        assert to.served() == [6, 0]


async def test_a_failing_answer_that_comes_in_pieces_is_sent_on_too() -> None:
    pieces = b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"

    async def slowly(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(pieces)
            await asyncio.sleep(0.1)
            await peer.send(b"0\r\n\r\n")

    async with raw_upstream(slowly) as bad, raw_upstream() as good:
        text = (
            f'upstreams: {{u0: {{endpoints: ["127.0.0.1:{bad.port}"], failover: [u1]}}, '
            f'u1: {{endpoints: ["127.0.0.1:{good.port}"]}}}}\nroutes: [{{name: app, upstream: u0}}]\n'
        )
        async with running(text) as worker:
            to = Stage(worker, [])
            assert await to.ask(5) == [500] * 5
            for _ in range(4):
                await asyncio.sleep(20.0)
                assert await to.ask() == [200]
            assert len(bad.requests) >= 7
            await assert_clean(worker)


async def test_a_client_that_leaves_during_a_probe_ends_it() -> None:
    async with stage(1, 1, upstream="", route=", circuit_breaker: {open_for: 1s}") as to:
        to.set(0, FAILURE)
        await to.ask(5)
        to.groups[0][0].traffic = b""
        await asyncio.sleep(2.0)
        async with raw_client(port(to.worker)) as client:
            await client.send(get())
            await asyncio.sleep(0.1)
        await asyncio.sleep(2.0)
        assert to.served() == [6, 0]
        assert await to.ask() == [200]


async def test_what_must_not_be_sent_twice_is_no_probe() -> None:
    async with stage(1, 1, upstream="", route=", circuit_breaker: {open_for: 1s, max_open_for: 1s}") as to:
        to.set(0, FAILURE)
        await to.ask(5)
        to.served()
        for _ in range(10):
            assert await to.ask(1, post(b"x")) == [200]
            await asyncio.sleep(1.0)
        assert to.served() == [0, 10]


async def test_a_probe_that_cannot_be_connected_is_sent_on() -> None:
    (dead,) = free_ports(1)
    async with raw_upstream() as other:
        text = (
            f'upstreams: {{u0: {{endpoints: ["127.0.0.1:{dead}"], failover: [u1]}}, '
            f'u1: {{endpoints: ["127.0.0.1:{other.port}"]}}}}\n'
            "routes: [{name: app, upstream: u0, circuit_breaker: {consecutive_failures: 1, warm_up: off}}]\n"
        )
        async with running(text) as worker:
            to = Stage(worker, [])
            assert await to.ask() == [502]
            for _ in range(12):
                assert await to.ask(5) == [200] * 5
                await asyncio.sleep(1.0)
            states = [change.to_state for change in worker.assembly.breakers["app", "u0"].history]
            assert states == [State.OPEN, State.HALF_OPEN, State.OPEN]
            await assert_clean(worker)


async def test_endpoints_that_are_all_bad_are_asked_again_by_a_request() -> None:
    """The breaker is not open, and nothing but a request shows that they are well."""
    async with stage(
        2, 2, upstream="ejection: {max_ejected: 0%}", route=", circuit_breaker: {mode: metrics_only}"
    ) as to:
        to.set(0, FAILURE)
        for _ in range(60):
            await to.ask()
            await asyncio.sleep(0.11)
        assert to.kept == 0.0
        to.set(0, OK)
        for _ in range(200):
            assert await to.ask() == [200]
            await asyncio.sleep(1.0)
        to.served()
        await to.ask(20)
        assert to.served() == [20, 0]


async def test_where_the_other_is_no_better_the_upstream_keeps_its_share() -> None:
    async with stage(10, 3) as to:
        to.set(0, FAILURE, *range(6))
        await asyncio.sleep(5.0)
        assert set(await to.ask(50)) == {200}
        assert to.served() == [50, 0], "4 are left, and the other has 3 in all"
        to.set(0, FAILURE, *range(8))
        await asyncio.sleep(5.0)
        await to.ask(100)
        home, other = to.served()
        assert home > 10
        assert other > 50


async def test_where_both_breakers_are_open_the_client_hears_of_the_first() -> None:
    async with stage(1, 1, upstream="") as to:
        to.set(0, FAILURE)
        to.set(1, FAILURE)
        statuses = await to.ask(30)
        assert to.state(0) is to.state(1) is State.OPEN
        assert statuses[-1] == 503
        answer = await ask(port(to.worker), get())
        assert b"breaker of app to u0 is open" in answer.values(b"proxy-status")[0]


async def test_several_take_over_in_their_order() -> None:
    async with stage(2, 2, 2, failover="[u1, u2]") as to:
        to.set(0, FAILURE)
        await asyncio.sleep(5.0)
        await to.ask(30)
        assert to.served() == [0, 30, 0]
        to.set(1, FAILURE, 0)
        await asyncio.sleep(5.0)
        assert set(await to.ask(200)) == {200}
        _, first, second = to.served()
        assert 110 < first < 170  # 1 of 2 usable: 70 %
        assert first + second == 200
        to.set(1, FAILURE)
        await asyncio.sleep(5.0)
        assert set(await to.ask(30)) == {200}
        assert to.served() == [0, 0, 30]


async def test_other_weights_come_before_the_failover() -> None:
    """The other member of the weights takes as much again as it gets anyway, the failover the rest."""
    async with stage(1, 1, 1, upstream="") as to:
        text = routes(to.groups, "[u1]", "", "").replace("upstream: u0", "weights: {u0: 80, u2: 20}")
        await to.worker.control.active.install(load_text(HEADER + text).snapshot)
        to.set(0, FAILURE)
        await to.ask(20)
        assert to.state() is State.OPEN
        to.served()
        assert set(await to.ask(500)) == {200}
        home, other, member = to.served()
        assert home <= 1
        assert 140 < member < 260  # 40 %
        assert home + other + member == 500


async def test_the_fallback_comes_after_the_failover() -> None:
    fallback = ", fallback: {status: 203, body: last}"
    async with stage(1, 1, upstream="", route=fallback) as to:
        to.set(0, FAILURE)
        await to.ask(5)
        assert await to.ask(5) == [200] * 5
        to.set(1, FAILURE)
        await to.ask(10)
        assert await to.ask(5) == [203] * 5


async def test_an_operator_who_opens_the_breaker_moves_the_load() -> None:
    async with stage(1, 1) as to:
        breaker = to.worker.assembly.breakers["app", "u0"]
        breaker.override(Override.OPEN, to.worker.service.clock())
        assert await to.ask(20) == [200] * 20
        assert to.served() == [0, 20]


async def test_a_reload_keeps_how_much_is_kept_and_takes_new_bounds() -> None:
    async with stage(4, 4) as to:
        to.set(0, FAILURE)
        await asyncio.sleep(5.0)
        await to.ask()
        assert to.kept == 0.0
        text = routes(to.groups, "{to: [u1], back: 60% for 5s}", CHECK, ", timeouts: {request: 9s}")
        await to.worker.control.active.install(load_text(HEADER + text).snapshot)
        assert to.kept == 0.0
        to.served()
        await to.ask(20)
        assert to.served() == [0, 20]
        to.set(0, OK)
        await asyncio.sleep(3.0 + 5.0 + 31.0)
        await to.ask(20)
        assert to.served() == [20, 0]
        text = routes(to.groups, "[u1]", CHECK, "").replace(", failover: [u1]", "")
        await to.worker.control.active.install(load_text(HEADER + text).snapshot)
        assert to.worker.assembly.failovers == {}
        assert ("app", "u1") not in to.worker.assembly.breakers


async def test_admin_events_metrics_and_status_say_who_keeps_how_much() -> None:
    async with stage(10, 10) as to:
        events = to.worker.control.events.reader(None)
        to.set(0, FAILURE, *range(6))
        await asyncio.sleep(5.0)
        await to.ask(100)
        home, other = to.served()
        state = await operator(to.worker).get("/upstreams")
        first, second = state["upstreams"]
        assert second["failover"] is None
        assert {key: first["failover"][key] for key in ("to", "below", "back")} == {
            "to": ["u1"], "below": 0.5, "back": {"share": 0.7, "seconds": 30.0},
        }  # fmt: skip
        (row,) = first["failover"]["routes"]
        assert (row["route"], row["phase"], row["kept_share"], row["moved"]) == (
            "app",
            "away",
            0.56,
            {"u1": other},
        )
        names = 'sidecar_route="app",sidecar_upstream="u0"'
        assert scraped(to.worker, f"sidecar_failover_kept{{{names}}}") == pytest.approx(0.56)
        assert scraped(to.worker, f"sidecar_failover_requests_total{{{names}") == other == 100 - home
        found, _ = events._events.since(1)
        kinds = [event.kind for event in found]
        assert kinds.count("failover") == 1
        assert kinds.count("endpoint") == 6
        breakers = await operator(to.worker).get("/breakers/app")
        told = [(one["upstream"], one["is_fallback"]) for one in breakers["breakers"]]
        assert told == [("u0", False), ("u1", True)]


def test_explain_says_who_takes_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text(
        'version: 1\nupstreams: {a: {endpoints: ["a:80"], failover: {to: [b, c], below: 40%}}, '
        'b: {endpoints: ["b:80"]}, c: {endpoints: ["c:80"]}}\nroutes: [{name: r, upstream: a}]\n'
    )
    assert main(["explain", str(file), "/"]) == 0
    assert (
        "→ upstream a (weight 1): a:80; b, then c takes over when less than 40% of the endpoints is usable or the "
        "breaker is open, until 70% for 30s"
    ) in capsys.readouterr().out
