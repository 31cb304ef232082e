"""What a new snapshot leaves alone is the same object after it; what it changes, changes at once."""

import asyncio
import gc
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from sidecar.config.load import load_text
from sidecar.core.breaker import Breaker, Override
from sidecar.core.breaker.machine import Machine
from sidecar.core.outcome import Verdict
from sidecar.core.snapshot import Snapshot
from sidecar.core.transition import State
from sidecar.runtime import assembly, first_loading
from sidecar.runtime.actor import Mailbox
from sidecar.runtime.reload import Outcome, Reloading, Request, Warm
from sidecar.runtime.worker import Worker
from tests.core.breaker_calls import settle
from tests.support.ports import free_ports
from tests.support.proxy import HEADER, port, running
from tests.support.upstream import Peer, answering, scripted

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ROUTES = """\
upstreams:
  a: {endpoints: ["127.0.0.1:9001"]}
  b: {endpoints: ["127.0.0.1:9002"]}
routes:
- {name: one, match: {path: {prefix: /one}}, upstream: a, admission: {mode: observe}}
- {name: two, match: {path: {prefix: /two}}, upstream: b}
"""
GET = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def exchange(to: int, request: bytes) -> bytes:
    """Send `request`, which asks for a close, and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", to)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


def snapshot(routes: str, header: str = HEADER) -> Snapshot:
    return load_text(header + routes).snapshot


async def install(worker: Worker, routes: str, header: str = HEADER) -> None:
    await worker.control.active.install(snapshot(routes, header))


async def test_an_unchanged_route_is_the_same_object() -> None:
    async with running(ROUTES) as worker:
        before = worker.assembly.routes["one"]
        two = worker.assembly.routes["two"]
        await install(worker, ROUTES.replace("upstream: b}", "upstream: b, timeouts: {request: 3s}}"))
        assert worker.assembly.routes["one"] is before
        assert worker.assembly.routes["two"] is not two
        assert worker.assembly.routes["two"].destinations[0].breaker is two.destinations[0].breaker
        assert worker.assembly.routes["two"].destinations[0].cluster is two.destinations[0].cluster
        assert worker.control.active.generation == 2


async def test_an_unchanged_route_keeps_everything_when_others_come_and_go() -> None:
    async with running(ROUTES) as worker:
        before = worker.assembly.routes["one"]
        breaker = worker.assembly.breakers["one", "a"]
        pools = list(worker.assembly.clusters["a"].pools)
        breaker.override(Override.OPEN, worker.service.clock(), 300.0)
        more = ROUTES.replace("  b:", '  c: {endpoints: ["127.0.0.1:9003"]}\n  b:')
        await install(worker, more + "- {name: three, match: {path: {prefix: /3}}, upstream: c}\n")
        await install(worker, ROUTES)
        assert worker.assembly.routes["one"] is before
        assert worker.assembly.breakers["one", "a"] is breaker
        assert worker.assembly.clusters["a"].pools == pools
        assert breaker.state is State.FORCED_OPEN
        assert before.admission is not None
        assert set(worker.assembly.clusters) == {"a", "b"}


async def test_the_breaker_of_a_route_that_leaves_is_freed_without_a_collection() -> None:
    """A collection does not look at what a reload has frozen, so a cycle would stay for ever."""
    async with running(ROUTES) as worker:
        give_doors(worker)
        gc.collect()
        gc.disable()
        try:
            before = machines()
            await install(worker, ROUTES.partition("- {name: two")[0].replace("  b: ", "  c: "))
            assert machines() == before - 1
        finally:
            gc.enable()


def give_doors(worker: Worker) -> None:
    """As once their upstreams have been seen for a while."""
    for breaker in worker.assembly.breakers.values():
        breaker.machine.judge.warm = None
        breaker.machine.renew_door()
        assert breaker.machine.door is not None


def machines() -> int:
    gc.unfreeze()  # what is frozen is not told of; whether that has happened yet depends on the machine
    return sum(isinstance(one, Machine) for one in gc.get_objects())


async def test_new_thresholds_keep_an_open_breaker_open() -> None:
    async with running(ROUTES) as worker:
        breaker = worker.assembly.breakers["one", "a"]
        now = worker.service.clock()
        for _ in range(5):
            settle(breaker.admit(now), Verdict.FAILURE, 0.1, now)
        assert breaker.state is State.OPEN
        await install(
            worker, ROUTES.replace("mode: observe}}", "mode: observe}, circuit_breaker: {minimum_calls: 7}}")
        )
        assert worker.assembly.breakers["one", "a"] is breaker
        assert breaker.state is State.OPEN
        assert breaker.policy.minimum_calls == 7


async def test_other_endpoints_reset_breaker_pool_and_estimate() -> None:
    async with running(ROUTES) as worker:
        before = worker.assembly.routes["one"]
        await install(worker, ROUTES.replace("9001", "9003"))
        after = worker.assembly.routes["one"]
        assert after.destinations[0].breaker is not before.destinations[0].breaker
        assert after.destinations[0].cluster is not before.destinations[0].cluster
        assert after.admission is not before.admission


async def test_an_override_that_comes_while_a_reload_is_built_is_not_lost() -> None:
    """Building waits up to a second for the names of new upstreams."""
    async with running(ROUTES) as worker:
        live, now = worker.assembly, worker.service.clock()
        steps = live.build(snapshot(ROUTES.replace("9001", "9003")))
        built = None
        while built is None:
            try:
                next(steps)
            except StopIteration as end:
                built = end.value
        old = live.breakers["one", "a"]
        old.override(Override.OPEN, now, 300.0)
        live.commit(built)
        breaker = live.breakers["one", "a"]
        assert breaker is not old
        assert breaker.state is State.FORCED_OPEN
        assert breaker.numbers(now).override_until == now + 300.0


async def test_a_process_that_cannot_be_started_ahead_of_a_reload_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object, **__: object) -> None:
        tries.append(1)
        raise OSError(11, "Resource temporarily unavailable")

    tries: list[int] = []
    monkeypatch.setattr(first_loading.subprocess, "Popen", refused)
    outcomes: list[Outcome] = []
    async with running(ROUTES) as worker:
        mailbox: Mailbox[Request | Warm] = Mailbox()
        part = Reloading(worker.control.active, "sidecar.yaml", {}, worker.service.clock, outcomes.append)
        running_part = asyncio.create_task(part.run(mailbox))
        mailbox.put(Warm())
        mailbox.put(Request("signal"))
        while not outcomes and not running_part.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not running_part.done()
        running_part.cancel()
        assert len(tries) == 2
        assert not outcomes[0].is_success
        assert "Resource temporarily unavailable" in outcomes[0].report.problems[0]


async def test_other_limits_of_an_upstream_are_taken_on_the_fly() -> None:
    async with running(ROUTES) as worker:
        cluster = worker.assembly.clusters["a"]
        await install(
            worker, ROUTES.replace('["127.0.0.1:9001"]', '["127.0.0.1:9001"], limits: {max_requests: 3}')
        )
        assert worker.assembly.clusters["a"] is cluster
        assert cluster.policy.limits.max_requests == 3


async def test_an_exchange_in_flight_finishes_on_its_snapshot() -> None:
    async def slow(peer: Peer) -> None:
        await peer.head()
        arrived.set()
        await go_on.wait()
        await peer.send(OK)

    arrived, go_on = asyncio.Event(), asyncio.Event()
    async with scripted(slow) as old, scripted(answering(OK.replace(b"ok", b"OK"))) as new:
        routes = ROUTES.replace("9001", str(old.port))
        async with running(routes) as worker:
            waiting = asyncio.ensure_future(exchange(port(worker), GET % b"/one"))
            await arrived.wait()
            await install(worker, ROUTES.replace("9001", str(new.port)))
            assert (await exchange(port(worker), GET % b"/one")).endswith(b"OK")
            go_on.set()
            assert (await waiting).endswith(b"ok")
            while old.open:  # noqa: ASYNC110  a removed upstream's connections do not stay
                await asyncio.sleep(0.01)


async def test_listeners_are_added_moved_and_removed_without_touching_the_others() -> None:
    inbound, outbound, moved, extra = free_ports(4)
    header = HEADER.replace(
        'inbound: {address: "127.0.0.1:0"}', f'inbound: {{address: "127.0.0.1:{inbound}"}}'
    )
    header = header.replace(
        'outbound: {address: "127.0.0.1:0"}', f'outbound: {{address: "127.0.0.1:{outbound}"}}'
    )
    both = ROUTES + "- {name: out, listener: outbound, upstream: a}\n"
    async with scripted(answering(OK)) as app, running(both.replace("9001", str(app.port)), header) as worker:
        both = both.replace("9001", str(app.port))
        kept = worker.listeners["inbound"]
        reader, writer = await asyncio.open_connection("127.0.0.1", inbound)
        await install(worker, both, header.replace(str(outbound), str(moved)))
        assert worker.listeners["inbound"] is kept
        assert (await exchange(moved, GET % b"/")).endswith(b"ok")
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", outbound)
        named = header.replace(
            "  inbound:", f'  more: {{address: "127.0.0.1:{extra}", direction: outbound}}\n  inbound:'
        )
        more = both.replace("listener: outbound", "listener: more")
        await install(worker, more, named)
        assert (await exchange(extra, GET % b"/")).endswith(b"ok")
        await install(worker, ROUTES, HEADER.replace("127.0.0.1:0", f"127.0.0.1:{inbound}", 1))
        writer.write(GET % b"/two")  # on a connection that saw three snapshots
        assert (await reader.read()).startswith(b"HTTP/1.1 502")
        writer.close()


async def test_a_busy_client_of_a_removed_listener_is_told_with_an_answer() -> None:
    """Each of its requests is answered, and the one that finds the listener gone says that it was the last."""
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    out = ROUTES + "- {name: out, listener: outbound, upstream: a}\n"
    async with scripted(answering(OK)) as app, running(out.replace("9001", str(app.port))) as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", port(worker, "outbound"))
        writer.write(request)
        assert b"Connection: close" not in await reader.readuntil(b"ok")
        await install(worker, ROUTES, HEADER.replace('  outbound: {address: "127.0.0.1:0"}\n', ""))
        writer.write(request)
        last = await reader.read()
        assert b"\r\nConnection: close\r\n" in last
        assert b" 404 " in last.partition(b"\r\n")[0], "its routes have gone with it"
        writer.close()


async def test_a_listener_that_changes_its_name_keeps_its_socket() -> None:
    (inbound,) = free_ports(1)
    header = HEADER.replace("127.0.0.1:0", f"127.0.0.1:{inbound}", 1)
    async with running(ROUTES, header) as worker:
        socket = worker.listeners["inbound"]
        renamed = header.replace("inbound: {", "front: {direction: inbound, ")
        await install(
            worker,
            ROUTES.replace("upstream: a", "listener: front, upstream: a").replace(
                "upstream: b}", "listener: front, upstream: b}"
            ),
            renamed,
        )
        assert worker.listeners["front"] is socket
        assert (await exchange(inbound, GET % b"/one")).startswith(b"HTTP/1.1 502")


async def test_an_address_that_cannot_be_had_changes_nothing() -> None:
    async with scripted(answering(OK)) as busy, running(ROUTES) as worker:
        before, tables = worker.assembly.routes["one"], worker.service.tables
        header = HEADER.replace(
            "listeners:", f'listeners:\n  more: {{address: "127.0.0.1:{busy.port}", direction: inbound}}'
        )
        with pytest.raises(
            OSError, match=f"^listeners.more.address: cannot listen on 127.0.0.1:{busy.port}: it is in use"
        ):
            await install(worker, ROUTES.replace("9001", "9003"), header)
        assert worker.assembly.routes["one"] is before
        assert worker.service.tables is tables
        assert worker.control.active.generation == 1
        assert set(worker.listeners) == {"inbound", "outbound"}


async def test_a_reload_that_breaks_off_late_leaves_the_collector_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else no full collection would ever come again."""

    def broken() -> Iterator[None]:
        raise RuntimeError("after the commit")
        yield

    async with running(ROUTES) as worker:
        before = gc.get_threshold()
        monkeypatch.setattr(worker.assembly, "reconfigure", broken)
        with pytest.raises(RuntimeError, match="after the commit"):
            await install(worker, ROUTES.replace("9001", "9003"))
        assert gc.get_threshold() == before
        assert worker.control.active.generation == 2


async def test_each_part_is_shown_with_its_state() -> None:
    async with running(ROUTES) as worker:
        views = {view.name: view.state.value for view in worker.control.parts.views()}
        assert views.keys() >= {"telemetry", "resolver", "probes", "housekeeper"}
        assert set(views.values()) == {"running"}


async def test_a_thousand_new_routes_are_built_in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps the loop has its turn, so that no request waits for a whole reload."""
    made: list[Breaker] = []

    def counted(*arguments: Any, **named: Any) -> Breaker:
        made.append(Breaker(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(assembly, "Breaker", counted)
    routes = [f"- {{name: r{n}, match: {{path: {{prefix: /{n}}}}}, upstream: a}}\n" for n in range(1000)]
    many = ROUTES.partition("routes:")[0] + "routes:\n" + "".join(routes)
    async with running(ROUTES) as worker:
        made.clear()
        steps = [len(made) for _ in worker.assembly.build(snapshot(many))]
        assert made[-1].route == "r999"
        assert max(after - before for before, after in pairwise([0, *steps, len(made)])) <= assembly.STEP
        worker.assembly.discard()
