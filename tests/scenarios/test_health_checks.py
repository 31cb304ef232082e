"""`health_check`: the sidecar asks each endpoint whether it is well, through real sockets and on virtual time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from sidecar.admin import views
from sidecar.config.load import load_text
from sidecar.core.ejection.change import EndpointChange, Health
from sidecar.core.health import CheckEnd, CheckState
from sidecar.core.snapshot import Endpoint
from sidecar.core.transition import State
from sidecar.forwarding.health import MOST_AT_ONCE, HealthChecks
from sidecar.runtime.worker import Worker
from sidecar.transport.tls.files import server_context
from sidecar.upstream.apart import Apart
from tests.scenarios.checked import CheckedApp
from tests.scenarios.stage import OK, get, saying, scraped
from tests.support.authority import Authority
from tests.support.clean import Complaints, assert_clean
from tests.support.ports import free_ports
from tests.support.proxy import HEADER, port, running
from tests.support.raw import ask, raw_client, raw_upstream

CHECK = "health_check: {path: /healthz, interval: 5s, timeout: 1s}"
FAILURE = b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"


def routes_to(*ports: int, check: str = CHECK, more: str = "", route: str = "") -> str:
    endpoints = ", ".join(f'"127.0.0.1:{one}"' for one in ports)
    return f"""\
upstreams: {{app: {{endpoints: [{endpoints}]{", " + check if check else ""}{more}}}}}
routes: [{{name: app, upstream: app{route}}}]
"""


def named(check: str) -> str:
    """One upstream by a name that stands for nothing."""
    return f"""\
upstreams: {{app: {{endpoints: ["app.invalid:1"], {check}}}}}
routes: [{{name: app, upstream: app}}]
"""


class Stage:
    """Apps, and a sidecar before them that checks them."""

    def __init__(self, worker: Worker, apps: list[CheckedApp]) -> None:
        self.worker = worker
        self.apps = apps
        self.told: list[EndpointChange] = []
        worker.service.on_news = self.told.append  # type: ignore[assignment]

    @property
    def peers(self):  # type: ignore[no-untyped-def]
        return self.worker.assembly.clusters["app"].peers

    def health_of(self, number: int) -> Health:
        return self.peers.members[self.place(number)].health  # type: ignore[no-any-return]

    def state_of(self, number: int) -> CheckState:
        record = self.peers.members[self.place(number)].check
        return CheckState.UNKNOWN if record is None else record.state

    def place(self, number: int) -> Endpoint:
        return Endpoint("127.0.0.1", self.apps[number].port)

    async def ask(self, count: int = 1) -> list[int]:
        return [(await ask(port(self.worker), get())).status for _ in range(count)]

    async def reload(self, routes: str) -> None:
        await self.worker.control.active.install(load_text(HEADER + routes).snapshot)


@asynccontextmanager
async def stage(count: int, check: str = CHECK, more: str = "", route: str = "") -> AsyncIterator[Stage]:
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with AsyncExitStack() as stack:
            apps = [CheckedApp() for _ in range(count)]
            for app in apps:
                app.upstream = await stack.enter_async_context(raw_upstream(app.serve))
            ports = [app.port for app in apps]
            routes = routes_to(*ports, check=check, more=more, route=route)
            worker = await stack.enter_async_context(running(routes))
            yield Stage(worker, apps)
            await assert_clean(worker)
        assert all(app.upstream.problems == [] for app in apps)
    assert complaints.found == []


async def test_each_endpoint_is_asked_once_an_interval_first_anywhere_within_it() -> None:
    async with stage(40) as to:
        assert {to.state_of(number) for number in range(40)} == {CheckState.UNKNOWN}
        await asyncio.sleep(2.5)
        assert 8 <= sum(len(app.checks) for app in to.apps) <= 32
        await asyncio.sleep(2.2)
        assert max(len(app.checks) for app in to.apps) == 1
        await asyncio.sleep(0.4)
        assert min(len(app.checks) for app in to.apps) == 1
        assert {to.state_of(number) for number in range(40)} == {CheckState.HEALTHY}
        await asyncio.sleep(50.0)
        assert all(10 <= len(app.checks) <= 12 for app in to.apps)


async def test_a_check_says_who_asks_and_wants_no_trace() -> None:
    async with stage(1) as to:
        await asyncio.sleep(5.1)
        check = to.apps[0].checks[0]
        assert (check.method, check.value(b"host")) == (b"GET", b"127.0.0.1:%d" % to.apps[0].port)
        assert check.value(b"user-agent") == b"sidecar (health_check)"
        version, trace_id, _, flags = (check.value(b"traceparent") or b"").split(b"-")
        assert (version, flags) == (b"00", b"02")
        assert check.value(b"x-request-id") == trace_id


async def test_a_host_may_be_given() -> None:
    async with stage(1, check="health_check: {path: /healthz, host: shop.internal}") as to:
        await asyncio.sleep(5.1)
        assert to.apps[0].checks[0].value(b"host") == b"shop.internal"


@pytest.mark.parametrize(
    ("health", "why"),
    [
        (FAILURE, "503"),
        (b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", "404"),
        (None, "no whole answer within 1 s"),
        (b"nonsense\r\n\r\n", "malformed response"),
    ],
)
async def test_an_endpoint_whose_checks_fail_three_times_in_a_row_gets_no_requests(
    health: bytes | None, why: str
) -> None:
    async with stage(3) as to:
        await asyncio.sleep(5.1)
        bad = to.apps[1]
        bad.health = health
        await asyncio.sleep(9.4)  # a little less than two of the shortest intervals
        assert to.health_of(1) is Health.USABLE
        await asyncio.sleep(9.5)
        assert to.health_of(1) is Health.UNHEALTHY
        before = bad.served
        assert await to.ask(60) == [200] * 60
        assert bad.served == before
        (change,) = to.told
        assert change.told.startswith(
            f"app: 127.0.0.1:{bad.port} is left out while its health checks fail: 3 in a row, the last one: {why}"
        )


async def test_it_is_used_again_after_two_good_ones_and_begins_with_a_tenth_of_its_share() -> None:
    async with stage(3, check="health_check: {path: /healthz, interval: 1s, timeout: 1s}") as to:
        to.apps[1].health = FAILURE
        await asyncio.sleep(5.0)
        assert to.health_of(1) is Health.UNHEALTHY
        to.apps[1].health = OK
        await asyncio.sleep(2.2)
        assert to.health_of(1) is Health.USABLE
        before = to.apps[1].served
        assert await to.ask(200) == [200] * 200
        assert to.apps[1].served - before < 30
        await asyncio.sleep(10.1)
        before = to.apps[1].served
        await to.ask(300)
        assert to.apps[1].served - before > 60
        assert [change.health for change in to.told] == [Health.UNHEALTHY, Health.USABLE]


async def test_a_first_good_answer_is_enough_at_the_start_and_a_failure_is_not() -> None:
    async with stage(2) as to:
        to.apps[0].health = FAILURE
        await asyncio.sleep(5.1)
        assert (to.state_of(0), to.state_of(1)) == (CheckState.UNKNOWN, CheckState.HEALTHY)
        assert set(await to.ask(40)) == {200}
        assert min(app.served for app in to.apps) > 5


async def test_where_all_fail_their_checks_all_are_used_and_the_breaker_judges() -> None:
    async with stage(3) as to:
        for app in to.apps:
            app.health = FAILURE
        await asyncio.sleep(20.0)
        assert [to.health_of(number) for number in range(3)] == [Health.UNHEALTHY] * 3
        assert await to.ask(90) == [200] * 90
        assert min(app.served for app in to.apps) > 10
        for app in to.apps:
            app.traffic = FAILURE
        statuses = await to.ask(30)
        assert set(statuses) == {503}
        breaker = to.worker.assembly.breakers["app", "app"]
        assert breaker.state is State.OPEN
        for app in to.apps:
            app.health = app.traffic = OK
        await asyncio.sleep(30.0)
        assert await to.ask(30) == [200] * 30
        assert [to.health_of(number) for number in range(3)] == [Health.USABLE] * 3


async def test_one_endpoint_alone_is_used_whatever_its_checks_show() -> None:
    async with stage(1) as to:
        to.apps[0].health = FAILURE
        await asyncio.sleep(20.0)
        assert to.health_of(0) is Health.UNHEALTHY
        assert await to.ask(5) == [200] * 5


async def test_what_an_unhealthy_endpoint_does_counts_for_no_breaker() -> None:
    async with stage(2) as to:
        to.apps[1].health = to.apps[1].traffic = FAILURE
        await asyncio.sleep(20.0)
        assert await to.ask(60) == [200] * 60
        assert to.worker.assembly.breakers["app", "app"].numbers(0.0).failed == 0


async def test_checks_that_pass_end_an_ejection_but_not_twice_in_a_row() -> None:
    check = "health_check: {path: /healthz, interval: 1s, timeout: 1s}"
    async with stage(3, check=check) as to:
        bad = to.apps[2]
        await asyncio.sleep(1.1)
        bad.traffic = FAILURE
        while to.health_of(2) is not Health.EJECTED:
            await to.ask()
            await asyncio.sleep(0.11)
        await asyncio.sleep(2.3)
        assert to.health_of(2) is Health.USABLE
        assert to.told[-1].why == "its health checks pass"
        await asyncio.sleep(10.0)
        while to.health_of(2) is not Health.EJECTED:
            await to.ask()
            await asyncio.sleep(0.11)
        await asyncio.sleep(30.0)
        assert to.health_of(2) is Health.EJECTED, "its checks were wrong, so its time counts"
        await asyncio.sleep(31.0)
        assert to.health_of(2) is Health.USABLE


async def test_tcp_asks_for_a_connection_alone() -> None:
    (dead,) = free_ports(1)
    async with raw_upstream() as well:
        routes = routes_to(well.port, dead, check="health_check: {tcp: {}, interval: 1s}")
        async with running(routes) as worker:
            await asyncio.sleep(5.0)
            peers = worker.assembly.clusters["app"].peers
            states = {one.endpoint.port: one.check.state for one in peers.members.values()}  # type: ignore[union-attr]
            assert states == {well.port: CheckState.HEALTHY, dead: CheckState.UNHEALTHY}
            assert well.received == b""
            assert len(well.peers) >= 4
            assert well.open_count == 0
            await assert_clean(worker)


async def test_a_check_goes_by_the_tls_of_its_upstream_and_a_wrong_name_is_unhealthy(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair("a.test")
    context = server_context()
    context.load_cert_chain(pair.chain, pair.key)
    asked: list[str] = []
    context.sni_callback = lambda _sock, name, _context: asked.append(name)
    for name, state in (("a.test", CheckState.HEALTHY), ("b.test", CheckState.UNHEALTHY)):
        asked.clear()
        tls = f', tls: {{ca: "{authority.path}", server_name: {name}}}'
        async with raw_upstream(saying(OK), context) as app:
            check = "health_check: {path: /healthz, interval: 1s}"
            async with running(routes_to(app.port, check=check, more=tls)) as worker:
                await asyncio.sleep(4.5)
                (standing,) = worker.assembly.clusters["app"].peers.members.values()
                assert standing.check is not None
                assert standing.check.state is state
                assert set(asked) == {name}
                await assert_clean(worker)


async def test_endpoints_that_come_and_go_get_and_lose_their_check() -> None:
    async with (
        stage(2, check="health_check: {path: /healthz, interval: 2s}") as to,
        raw_upstream() as further,
    ):
        to.apps[0].health = FAILURE
        await asyncio.sleep(8.0)
        assert to.health_of(0) is Health.UNHEALTHY
        check = "health_check: {path: /healthz, interval: 2s}"
        await to.reload(routes_to(to.apps[0].port, further.port, check=check))
        assert to.health_of(0) is Health.UNHEALTHY, "what is known of an endpoint that stays is kept"
        gone = len(to.apps[1].checks)
        await asyncio.sleep(20.0)
        assert len(to.apps[1].checks) <= gone + 1
        assert 8 <= len(further.requests) <= 12
        assert to.health_of(0) is Health.UNHEALTHY


async def test_a_reload_that_takes_the_check_away_uses_all_again() -> None:
    async with stage(2) as to:
        to.apps[0].health = FAILURE
        await asyncio.sleep(20.0)
        assert to.health_of(0) is Health.UNHEALTHY
        await to.reload(routes_to(*(app.port for app in to.apps), check=""))
        await asyncio.sleep(1.1)
        asked = len(to.apps[0].checks)
        assert to.health_of(0) is Health.USABLE
        assert to.told[-1].why == "nobody checks its health any more"
        await asyncio.sleep(20.0)
        assert len(to.apps[0].checks) == asked


async def test_another_interval_acts_at_once() -> None:
    async with stage(1, check="health_check: {path: /healthz, interval: 600s}") as to:
        await to.reload(routes_to(to.apps[0].port, check="health_check: {path: /healthz, interval: 1s}"))
        await asyncio.sleep(12.0)
        assert 8 <= len(to.apps[0].checks) <= 14


async def test_no_more_than_so_many_are_under_way_and_who_waited_is_counted() -> None:
    count = MOST_AT_ONCE + 16
    check = "health_check: {path: /healthz, interval: 2s, timeout: 2s}"
    async with stage(count, check=check) as to:
        for app in to.apps:
            app.health = None
        most = 0
        for _ in range(400):
            await asyncio.sleep(0.05)
            most = max(most, sum(app.upstream.open_count for app in to.apps))
        assert most == MOST_AT_ONCE
        assert scraped(to.worker, 'sidecar_health_delayed_total{sidecar_upstream="app"}') > 0
        assert min(len(app.checks) for app in to.apps) >= 5, "everybody has a turn"
        assert {to.health_of(number) for number in range(count)} == {Health.UNHEALTHY}


@pytest.mark.parametrize("protocol", ["http1", "http2", "auto"])
async def test_a_check_leaves_nothing_behind(tmp_path: Path, protocol: str) -> None:
    """Not in a cycle either, which a collection would free: what a reload freezes before that stays for good."""
    authority = Authority(tmp_path)
    pair = authority.pair("a.test")
    context = server_context()
    context.load_cert_chain(pair.chain, pair.key)
    (dead,) = free_ports(1)
    tls = f'protocol: {protocol}, tls: {{ca: "{authority.path}", server_name: a.test}}'
    plain = "protocol: http1" if protocol == "auto" else f"protocol: {protocol}"
    check = "health_check: {path: /healthz, interval: 1s}"
    async with raw_upstream(saying(OK)) as app, raw_upstream(saying(OK), context) as secured:
        routes = f"""\
upstreams:
  app: {{endpoints: ["127.0.0.1:{app.port}", "127.0.0.1:{dead}"], {plain}, {check}}}
  secured: {{endpoints: ["127.0.0.1:{secured.port}", "127.0.0.1:{dead}"], {tls}, {check}}}
routes: [{{name: app, upstream: app}}, {{name: secured, match: {{hosts: [secured]}}, upstream: secured}}]
"""
        async with running(routes) as worker:
            clusters = worker.assembly.clusters.values()
            await asyncio.sleep(3.0)
            gc.collect()
            gc.disable()
            try:
                await asyncio.sleep(10.0)
                for cluster in clusters:
                    cluster.budget.most = 0  # no open file is to be had
                await asyncio.sleep(10.0)
                left = [one for one in gc.get_objects() if isinstance(one, Apart)]
            finally:
                gc.enable()
            assert all(sum(cluster.peers.checks.values()) > 20 for cluster in clusters)
            assert len(left) <= 4, "one for each endpoint, where one is under way"


async def test_no_open_file_to_be_had_says_nothing_of_an_endpoint() -> None:
    async with stage(2, check="health_check: {path: /healthz, interval: 1s}") as to:
        budget = to.worker.assembly.clusters["app"].budget
        most, budget.most = budget.most, 0
        await asyncio.sleep(10.0)
        assert {to.state_of(number) for number in range(2)} == {CheckState.UNKNOWN}
        assert to.peers.checks[CheckEnd.IGNORED] > 10
        budget.most = most
        await asyncio.sleep(2.0)
        assert {to.state_of(number) for number in range(2)} == {CheckState.HEALTHY}
        assert budget.taken == 0


async def test_a_check_counts_in_no_limit_of_its_upstream() -> None:
    limits = ", limits: {max_connections: 1, max_pending: 0, max_requests: 1}"
    async with stage(1, more=limits, check="health_check: {path: /healthz, interval: 1s}") as to:
        to.apps[0].traffic = b""
        async with raw_client(port(to.worker)) as client:
            await client.send(get())
            await asyncio.sleep(5.0)
            assert to.state_of(0) is CheckState.HEALTHY
            assert to.peers.checks[CheckEnd.PASSED] >= 4
            assert to.worker.assembly.clusters["app"].in_flight == 1


async def test_admin_and_metrics_show_what_checks_have_shown() -> None:
    async with stage(2) as to:
        to.apps[1].health = FAILURE
        await asyncio.sleep(20.0)
        cluster = to.worker.assembly.clusters["app"]
        now = to.worker.service.clock()
        told = views.upstream(cluster, views.Moment(now, 0.0), lambda _: None)["endpoints"]
        assert [(one["state"], one["check"]["state"], one["check"]["asks"]) for one in told] == [
            ("usable", "healthy", "/healthz"), ("unhealthy", "unhealthy", "/healthz"),
        ]  # fmt: skip
        assert told[1]["why"] == "3 in a row, the last one: 503"
        assert (told[1]["check"]["why"], told[1]["check"]["passed_in_row"]) == ("503", 0)
        assert told[1]["check"]["failed_in_row"] >= 3
        endpoints = 'sidecar_health_endpoints{sidecar_upstream="app",sidecar_health_state="%s"}'
        states = ("unknown", "healthy", "unhealthy")
        assert [scraped(to.worker, endpoints % state) for state in states] == [0, 1, 1]
        checks = 'sidecar_health_checks_total{sidecar_upstream="app",sidecar_health_result="%s"}'
        assert scraped(to.worker, checks % "passed") == len(to.apps[0].checks)
        assert scraped(to.worker, checks % "failed") == len(to.apps[1].checks)
        ejection = 'sidecar_ejection_endpoints{sidecar_upstream="app",sidecar_endpoint_state="unhealthy"}'
        assert scraped(to.worker, ejection) == 1


async def test_endpoints_that_a_name_gains_and_loses_get_and_lose_their_check() -> None:
    name = Endpoint("app.invalid", 1)
    check = "health_check: {path: /healthz, interval: 1s}"
    routes = named(check)
    async with raw_upstream(saying(OK)) as one, raw_upstream(saying(OK)) as two, running(routes) as worker:
        first, second = (Endpoint("127.0.0.1", app.port, name="app.invalid") for app in (one, two))
        worker.assembly.addresses_changed(name, (first,))
        await asyncio.sleep(5.0)
        assert one.requests[0].value(b"host") == b"app.invalid:%d" % one.port
        assert 3 <= len(one.requests) <= 6
        assert two.requests == []
        worker.assembly.addresses_changed(name, (second,))
        asked = len(one.requests)
        await asyncio.sleep(5.0)
        assert len(one.requests) <= asked + 2
        assert 3 <= len(two.requests) <= 6
        worker.assembly.addresses_changed(name, ())
        asked = len(two.requests)
        await asyncio.sleep(5.0)
        assert len(two.requests) <= asked + 2
        await assert_clean(worker)


async def test_a_crash_of_the_part_forgets_nothing_and_goes_on_asking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check = "health_check: {path: /healthz, interval: 1s}"
    async with AsyncExitStack() as stack:
        apps = [CheckedApp(), CheckedApp()]
        for app in apps:
            app.upstream = await stack.enter_async_context(raw_upstream(app.serve))
        apps[1].health = FAILURE
        worker = await stack.enter_async_context(running(routes_to(*(app.port for app in apps), check=check)))
        to = Stage(worker, apps)
        await asyncio.sleep(5.0)
        assert to.health_of(1) is Health.UNHEALTHY
        with monkeypatch.context() as planted:
            planted.setattr(HealthChecks, "ended", lambda *_: 1 / 0)
            await asyncio.sleep(1.1)
        part = worker.control.parts["health"]
        assert part.restarts >= 1
        assert part.last_error == "ZeroDivisionError: division by zero"
        assert to.health_of(1) is Health.UNHEALTHY
        apps[1].health = OK
        await asyncio.sleep(6.0)
        assert to.health_of(1) is Health.USABLE
        await assert_clean(worker)


async def test_a_thousand_endpoints_have_each_its_check() -> None:
    """All of them by one listening socket, at addresses of their own."""
    answered = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        await reader.readuntil(b"\r\n\r\n")
        answered += 1
        writer.write(OK)
        writer.close()

    server = await asyncio.start_server(serve, "0.0.0.0", 0)
    at = server.sockets[0].getsockname()[1]
    name = Endpoint("app.invalid", 1)
    check = "health_check: {path: /, interval: 10s}"
    routes = named(check)
    async with running(routes) as worker:
        hosts = [f"127.0.{number // 250}.{number % 250 + 1}" for number in range(1000)]
        worker.assembly.addresses_changed(name, tuple(Endpoint(host, at) for host in hosts))
        await asyncio.sleep(12.0)
        peers = worker.assembly.clusters["app"].peers
        assert answered >= 1000
        assert peers.checks[CheckEnd.PASSED] >= 1000
        states = {standing.check and standing.check.state for standing in peers.members.values()}
        assert states == {CheckState.HEALTHY}
        await assert_clean(worker)
    server.close()
    await server.wait_closed()
