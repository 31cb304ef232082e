"""Several processes serve as one: who dies is replaced, and nobody but its own clients can tell."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.edits import rename_over
from tests.support.ports import free_ports
from tests.support.process import admin, http_get, sidecar
from tests.support.upstream import Peer, scripted
from tests.support.workers import CLIENTS, OK, Pod, connections_of, kill, load, pod

pytestmark = pytest.mark.process

EXTRA = "match: {path: {exact: /x}}, upstream: app"


def all_are_there(status: Any) -> bool:
    return all(worker["is_there"] for worker in status["workers"])


def all_are_forced_open(breakers: Any) -> bool:
    """A control process that has just begun knows of no worker, and so of no breaker."""
    rows = breakers["breakers"]
    return bool(rows) and {worker["state"] for worker in rows[0]["workers"]} == {"forced_open"}


async def test_a_worker_killed_under_load_costs_its_own_connections_alone(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        assert set(one.pids()) == {"control", "1", "2"}
        async with load(one.inbound) as all_of_it:
            before = await one.served()
            rows = (await one.ask("/upstreams"))["upstreams"][0]["workers"]
            assert all(row["connections"] for row in rows), "both serve"
            victim = max("12", key=lambda number: connections_of(one.pids()[number], one.inbound))
            dying = asyncio.ensure_future(kill(one, victim))
            await asyncio.sleep(0)  # it is dead from here on
            while not dying.done():
                assert await http_get(one.inbound, "/") == (200, "ok"), "a neighbour takes what comes"
                after = await one.served()
                assert after >= before, "counters never go back"
                before = after
            assert 0 < all_of_it.cut <= await dying, "its own and no others"
            status = await one.ask("/status")
            assert [row["number"] for row in status["workers"] if row["deaths"]] == [int(victim)]
        assert not all_of_it.wrong
        assert not all_of_it.refused
        assert await one.served() >= before
        assert f"worker {victim}: it was ended by SIGKILL" in one.running.log.read_text()


async def test_control_that_is_killed_is_replaced_and_remembers(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        for _ in range(10):
            assert (await http_get(one.inbound, "/"))[0] == 200
        assert await one.served() == 10
        rename_over(one.file, with_other_telemetry_and_admin(one.file.read_text()))
        assert (await one.ask("/reload", "POST"))["is_success"]
        pids = one.pids()
        os.kill(pids["1"], signal.SIGKILL)
        await one.running.logged('"process.started"', times=4)
        os.kill(pids["control"], signal.SIGKILL)
        assert (await http_get(one.inbound, "/"))[0] == 200, "workers go on without it"
        await one.running.logged('"process.started"', times=5)
        await one.until("/status", all_are_there)
        assert await one.served() == 11, "what a dead worker had counted outlives the control that knew it"
        for line in one.running.log.read_text().splitlines():
            json.loads(line)  # of whoever begins after the reload too: its format waits for the next start


def with_other_telemetry_and_admin(text: str) -> str:
    """What waits for the next start of the pod, and not for that of one of its processes."""
    (port,) = free_ports(1)
    text = text.replace('format: "off"', 'format: "text"')
    return re.sub(r'admin: {address: "[^"]*"}', f'admin: {{address: "127.0.0.1:{port}"}}', text)


async def test_a_reload_is_live_in_all_workers_or_in_none(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        first = one.file.read_text()
        async with load(one.inbound) as all_of_it:
            for generation in range(2, 4):
                rename_over(one.file, f"{first}- {{name: extra{generation}, {EXTRA}}}\n")
                assert (await one.ask("/reload", "POST"))["is_success"]
                assert await one.generations() == [generation, generation]
            rename_over(one.file, first)
            one.running.process.send_signal(signal.SIGHUP)
            await one.until("/status", lambda status: status["config"]["generation"] == 4)
            assert await one.generations() == [4, 4], "the signal of the one pid reaches all"
            rename_over(one.file, first + "- {name: bad, upstream: nobody}\n")
            assert not (await one.ask("/reload", "POST"))["is_success"]
            (port,) = free_ports(1)
            async with await asyncio.start_server(lambda *_: None, "127.0.0.1", port):
                more = f'more: {{address: "127.0.0.1:{port}", direction: inbound}}'
                rename_over(one.file, first.replace("listeners: {", f"listeners: {{{more}, "))
                refused = await one.ask("/reload", "POST")
                assert "it is in use" in refused["problems"][0]
            assert await one.generations() == [4, 4]
            assert (await one.ask("/reload", "POST"))["is_success"], "the port is free now"
            assert {(await http_get(port, "/"))[0] for _ in range(8)} == {404}, "all serve a new listener"
            os.kill(one.pids()["2"], signal.SIGKILL)
            await one.running.logged('"process.started"', times=4)
            await one.until("/status", all_are_there)
            assert await one.generations() == [5, 5], "who comes later begins with it"
        assert not all_of_it.wrong


async def test_an_operators_order_reaches_all_workers_and_those_that_come_later(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        await one.ask("/breakers/app/open?for=1m", "POST")
        assert all_are_forced_open(await one.ask("/breakers"))
        assert {(await http_get(one.inbound, "/"))[0] for _ in range(8)} == {503}
        os.kill(one.pids()["1"], signal.SIGKILL)
        await one.running.logged('"process.started"', times=4)
        await one.until(
            "/breakers",
            lambda found: all_are_forced_open(found) and len(found["breakers"][0]["workers"]) == 2,
        )
        await one.ask("/breakers/app/auto", "POST")
        assert {(await http_get(one.inbound, "/"))[0] for _ in range(8)} == {200}


async def test_what_an_operator_said_outlives_control(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        rename_over(one.file, with_other_telemetry_and_admin(one.file.read_text()))
        assert (waits := (await one.ask("/reload", "POST"))["pending_restart"])
        await one.ask("/breakers/app/open?for=1m", "POST")
        os.kill(one.pids()["control"], signal.SIGKILL)
        await one.running.logged('"process.started"', times=4)
        await one.until("/breakers", all_are_forced_open)
        assert (await one.ask("/status"))["pending_restart"] == waits
        os.kill(one.pids()["1"], signal.SIGKILL)
        await one.running.logged('"process.started"', times=5)
        await one.until("/status", all_are_there)
        assert all_are_forced_open(await one.ask("/breakers")), "whoever comes later hears of it"
        await one.ask("/breakers/app/auto", "POST")
        assert {(await http_get(one.inbound, "/"))[0] for _ in range(8)} == {200}

        await one.ask("/loglevel?level=error", "POST")
        os.kill(one.pids()["control"], signal.SIGKILL)
        await one.until("/status", lambda status: all_are_there(status) and status["log_level"] == "error")
        before = len(one.running.log.read_text())
        os.kill(one.pids()["2"], signal.SIGKILL)
        await one.until("/status", lambda status: all_are_there(status) and status["workers"][1]["deaths"])
    lines = [json.loads(line) for line in one.running.log.read_text()[before:].splitlines()]
    assert {line["level"] for line in lines} == {"error"}, "of whoever came later, and of the supervisor"


async def test_what_came_of_requests_is_read_page_by_page_from_all_workers(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        for _ in range(30):
            await http_get(one.inbound, "/")
        rows: list[object] = []
        begin: int | None = 0
        while begin is not None:
            page = await one.ask(f"/outcomes/app?from={begin}&limit=7")
            assert len(page["rows"]) <= 7
            rows += page["rows"]
            begin = page["next"]
        assert len(rows) == 30


async def test_a_served_port_is_refused_and_sigterm_lets_all_finish(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar", "run", str(one.file), stderr=asyncio.subprocess.PIPE
        )
        _, text = await second.communicate()
        assert second.returncode == 1
        where = f"listeners.inbound.address: cannot listen on 127.0.0.1:{one.inbound}"
        assert f"{where}: it is in use" in text.decode()
        async with load(one.inbound) as all_of_it:
            one.running.process.send_signal(signal.SIGTERM)
            assert await one.running.ended() == 0
        assert not all_of_it.wrong
        lines = map(json.loads, one.running.log.read_text().splitlines())
        ends = [line["signal"] for line in lines if line["kind"] == "process.ended"]
        assert ends == ["SIGTERM"] * 4, "each process says who asked for its end"
        assert kinds_of_supervisor(one) == ["process.draining", "process.ended"]


def kinds_of_supervisor(one: Pod) -> list[str]:
    """Of its lines, each of which is one of JSON as all others are."""
    lines = map(json.loads, one.running.log.read_text().splitlines())
    return [line["kind"] for line in lines if line.get("worker") == "supervisor"]


async def test_a_worker_that_keeps_dying_ends_the_pod_with_its_name(tmp_path: Path) -> None:
    async with pod(tmp_path, end=1) as one:
        for death in range(6):
            await one.running.logged('"worker":"2","message":"started', times=death + 1)
            os.kill(one.pids()["2"], signal.SIGKILL)
        assert await one.running.ended() == 1
        again = ["process.child_died", "process.child_started"] * 5
        failed = ["process.child_died", "process.failed", "process.draining", "process.ended"]
        assert kinds_of_supervisor(one) == again + failed
        last = json.loads(one.running.log.read_text().splitlines()[-1])
        assert (last["worker"], last["level"]) == ("supervisor", "error")
        assert "worker 2 died 6 times within 60 s" in last["message"]


SCARCE = """\
import os, sys
flag, fork = sys.argv[1], os.fork
def scarce():
    if os.path.exists(flag):
        os.unlink(flag)
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
os.fork = scarce
from sidecar.__main__ import main
sys.exit(main(["run", sys.argv[2]]))
"""


async def test_a_worker_that_cannot_be_forked_now_is_tried_again(tmp_path: Path) -> None:
    """A container's limit of processes: the others serve meanwhile."""
    flag = tmp_path / "flag"
    async with pod(tmp_path, command=("-c", SCARCE, str(flag))) as one:
        flag.touch()
        await kill(one, "1")
        text = await one.running.logged("it could not be forked: [Errno 11]")
        assert not flag.exists()
        assert "Traceback" not in text
        assert (await one.running.get("/readyz"))[0] == 200


async def test_without_a_supervisor_all_end(tmp_path: Path) -> None:
    async with pod(tmp_path, end=-signal.SIGKILL) as one:
        one.running.process.kill()
        await one.running.ended()
        await one.running.logged('"process.ended"', times=3)


async def test_a_worker_that_is_done_leaves_a_unix_socket_to_those_that_drain(tmp_path: Path) -> None:
    """There is one for all, and the app still has calls to make for what it answers."""
    (inbound, probes), arrived, is_over = free_ports(2), asyncio.Event(), asyncio.Event()

    async def answer(peer: Peer) -> None:
        if b"/slow" in (await peer.head()):
            arrived.set()
            await is_over.wait()
        await peer.send(OK)

    async with scripted(answer) as app:
        file, own = tmp_path / "sidecar.yaml", tmp_path / "own"
        file.write_text(
            f"""version: 1
workers: 2
listeners:
  inbound: {{address: "127.0.0.1:{inbound}"}}
  outbound: {{address: "unix:{own}", direction: outbound}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "unix:{tmp_path}/admin"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
upstreams: {{app: {{endpoints: ["127.0.0.1:{app.port}"]}}}}
routes:
- {{name: in, listener: inbound, upstream: app}}
- {{name: out, listener: outbound, upstream: app}}
"""
        )
        async with sidecar(file, probes, tmp_path / "log") as running:
            slow = asyncio.ensure_future(http_get(inbound, "/slow"))
            await arrived.wait()
            running.process.send_signal(signal.SIGTERM)
            await running.logged('"process.ended"')
            reader, writer = await asyncio.open_unix_connection(str(own))
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
            is_over.set()
            assert await slow == (200, "ok")
            assert await running.ended() == 0
        with pytest.raises(OSError):
            await asyncio.open_unix_connection(str(own))


async def test_what_a_worker_counts_until_it_ends_stays_in_the_sum(tmp_path: Path) -> None:
    arrived, all_arrived = 0, asyncio.Event()
    first, others = asyncio.Event(), asyncio.Event()

    async def answer(peer: Peer) -> None:
        nonlocal arrived
        is_first = b"/first" in (await peer.head())
        arrived += 1
        if arrived == CLIENTS:
            all_arrived.set()
        await (first if is_first else others).wait()
        await peer.send(OK)

    async with (
        scripted(answer) as app,
        pod(tmp_path, app=app.port, route="timeouts: {request: 10m}", top="drain_timeout: 10m") as one,
    ):
        asked = [asyncio.ensure_future(http_get(one.inbound, "/first"))]
        asked += [asyncio.ensure_future(http_get(one.inbound, "/")) for _ in range(CLIENTS - 1)]
        await all_arrived.wait()
        one.running.process.send_signal(signal.SIGTERM)
        await one.running.logged('"process.draining"')
        others.set()
        assert {status for status, _ in await asyncio.gather(*asked[1:])} == {200}
        await one.running.logged('"process.ended"')  # one has nothing more to do
        assert await one.served() == CLIENTS - 1
        first.set()
        assert await asked[0] == (200, "ok")
        assert await one.running.ended() == 0


async def until_all_are_there(port: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            if all_are_there(json.loads((await admin(port, "GET", "/status"))[1])):
                return
        await asyncio.sleep(0.02)


async def test_a_pod_is_ready_when_its_workers_serve(tmp_path: Path) -> None:
    """And not when they are there: to look names up may take seconds."""

    async def look(probes: int, admin_port: int) -> list[int]:
        try:
            await until_all_are_there(admin_port)
            return [(await http_get(probes, path))[0] for path in ("/livez", "/startupz", "/readyz")]
        finally:
            (tmp_path / "go").touch()

    async with pod(tmp_path, command=("-m", "tests.process.late_workers"), meanwhile=look) as one:
        assert one.seen is not None
        assert await one.seen == [200, 503, 503]
        assert await http_get(one.inbound, "/") == (200, "ok")


async def test_a_control_process_that_comes_later_knows_that_the_pod_is_ready(tmp_path: Path) -> None:
    """A worker that hangs meanwhile is no reason to send traffic elsewhere: the others serve."""
    async with pod(tmp_path) as one:
        hung, control = one.pids()["1"], one.pids()["control"]
        os.kill(hung, signal.SIGSTOP)
        try:
            os.kill(control, signal.SIGKILL)
            await one.running.logged("control (pid")
            status = 0
            while not status:
                with contextlib.suppress(OSError, IndexError):
                    status, _ = await one.running.get("/readyz")
                await asyncio.sleep(0.005)
            assert status == 200
        finally:
            os.kill(hung, signal.SIGCONT)


async def test_a_drain_that_was_announced_is_known_to_all_that_come_later(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        await one.ask("/drain", "POST")
        os.kill(one.pids()["control"], signal.SIGKILL)
        await one.running.logged('"process.started"', times=4)
        await one.until("/status", all_are_there)
        async with asyncio.timeout(30):  # a worker is there a moment before it has said what it knows
            while (await one.running.get("/readyz"))[0] != 503:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for number in "12":
            await kill(one, number)
        reader, writer = await asyncio.open_connection("127.0.0.1", one.inbound)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"connection: close" in (await reader.read()).lower()
        writer.close()
