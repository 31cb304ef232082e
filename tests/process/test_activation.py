"""Sockets that systemd has opened: found by name or address, and kept open over a restart."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from sidecar.core.snapshot import Address
from sidecar.runtime.activation import Activated
from sidecar.transport import kernel
from sidecar.transport.given import Given
from tests.support.hanging import within
from tests.support.ports import free_ports
from tests.support.process import Running, sidecar
from tests.support.upstream import Peer, scripted
from tests.support.workers import Pod

pytestmark = pytest.mark.process

LAUNCH = """\
import fcntl, os, sys
names, files, *words = sys.argv[1:]
copies = [fcntl.fcntl(int(file), fcntl.F_DUPFD, 64) for file in files.split(",")]
for index, copy in enumerate(copies):
    os.dup2(copy, 3 + index)
    os.close(copy)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(copies)), "LISTEN_FDNAMES": names}
os.execv(sys.executable, [sys.executable, "-m", "sidecar", "run", *words])
"""
"""Does what systemd does between fork and exec (sd_listen_fds(3))."""


def listening(host: str = "127.0.0.1") -> socket.socket:
    """One of systemd's."""
    is_v6 = ":" in host
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    one = socket.create_server((host, 0), family=family, dualstack_ipv6=is_v6)
    one.settimeout(60)
    return one


def port_of(one: socket.socket) -> int:
    return int(one.getsockname()[1])


def written(folder: Path, inbound: int, workers: int = 1, balance: str = "kernel") -> tuple[Path, int]:
    probes, admin = free_ports(2)
    file = folder / "sidecar.yaml"
    file.write_text(f"""\
version: 1
workers: {workers}
listeners: {{inbound: {{address: "127.0.0.1:{inbound}", balance: {balance}}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
drain: {{delay: 0s}}
routes: [{{name: said, respond: {{status: 200, body: "said"}}}}]
""")
    return file, probes


def begun(file: Path, probes: int, names: str, *given: socket.socket) -> AbstractAsyncContextManager[Running]:
    """By systemd, with these sockets."""
    files = [one.fileno() for one in given]
    command = ("-c", LAUNCH, names, ",".join(map(str, files)))
    return sidecar(file, probes, file.parent / "log", command, files)


async def connected(to: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises ConnectionRefusedError where nobody listens."""
    return await asyncio.open_connection("127.0.0.1", port_of(to))


async def answer(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
    reader, writer = stream
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    told = await reader.read()
    writer.close()
    return told


@pytest.mark.parametrize(("workers", "balance"), [(1, "kernel"), (2, "kernel"), (2, "exact")])
async def test_a_restart_refuses_and_resets_nobody(tmp_path: Path, workers: int, balance: str) -> None:
    """Clients connect one after the other the whole time, also while nobody runs; each gets its answer."""
    with listening() as inbound:
        file, probes = written(tmp_path, port_of(inbound), workers, balance)
        is_over = asyncio.Event()

        async def client() -> int:
            count = 0
            while not is_over.is_set():
                assert b" 200 OK" in await answer(await connected(inbound))
                count += 1
            return count

        async with begun(file, probes, "sidecar.socket", inbound) as running:
            clients = [asyncio.create_task(client()) for _ in range(2)]
            assert b"said" in await answer(await connected(inbound))
        assert running.process.returncode == 0
        waiting = [asyncio.create_task(answer(await connected(inbound))) for _ in range(8)]
        async with (
            begun(file, probes, "sidecar.socket", inbound) as running,
            within(100, running, {port_of(inbound)}),
        ):
            assert all(b"said" in told for told in await asyncio.gather(*waiting))
            is_over.set()
            assert min(await asyncio.gather(*clients)) > 0
        assert running.process.returncode == 0


async def test_who_is_handed_over_while_workers_end_is_served(tmp_path: Path) -> None:
    """A control process that comes late to a drain hands over what connects to workers that wait for its leave."""
    with listening() as inbound:
        file, probes = written(tmp_path, port_of(inbound), 2, "exact")
        async with begun(file, probes, "sidecar.socket", inbound) as running, asyncio.timeout(100):
            pod = Pod(running, file, port_of(inbound), probes)
            while pod.pids().keys() != {"control", "1", "2"}:  # noqa: ASYNC110 - it stands in a file
                await asyncio.sleep(0.02)
            control = pod.pids()["control"]
            os.kill(control, signal.SIGSTOP)
            running.process.send_signal(signal.SIGTERM)
            while running.log.read_text().count('"draining: ') < 2:  # noqa: ASYNC110 - it stands in a file
                await asyncio.sleep(0.02)
            late = [await connected(inbound) for _ in range(8)]
            await asyncio.sleep(0.3)
            os.kill(control, signal.SIGCONT)
            await asyncio.sleep(0.1)
            answers = [asyncio.create_task(answer(one)) for one in late]
            assert await running.process.wait() == 0
        async with begun(file, probes, "sidecar.socket", inbound), asyncio.timeout(100):
            assert all(b"said" in told for told in await asyncio.gather(*answers))


async def test_in_a_drain_what_connects_waits_for_the_next_process(tmp_path: Path) -> None:
    """Also where one process accepts for all: it leaves the socket alone, though a worker has still work to do."""
    is_asked, may_answer = asyncio.Event(), asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        is_asked.set()
        await may_answer.wait()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")

    with listening() as inbound:
        file, probes = written(tmp_path, port_of(inbound), 2, "exact")
        async with scripted(serve) as app, asyncio.timeout(100):
            said = file.read_text()
            slow = said.replace('respond: {status: 200, body: "said"}', "upstream: app")
            file.write_text(slow + f'upstreams: {{app: {{endpoints: ["127.0.0.1:{app.port}"]}}}}\n')
            async with begun(file, probes, "inbound", inbound) as running:
                under_way = asyncio.create_task(answer(await connected(inbound)))
                await is_asked.wait()
                running.process.send_signal(signal.SIGTERM)
                while "draining: 1 exchanges" not in running.log.read_text():  # noqa: ASYNC110 - it stands in a file
                    await asyncio.sleep(0.02)
                later = asyncio.create_task(answer(await connected(inbound)))
                await asyncio.sleep(1)
                assert app.connections == 1
                may_answer.set()
                assert b"slow" in await under_way
                assert await running.process.wait() == 0
            assert not later.done()
            file.write_text(said)
            async with begun(file, probes, "inbound", inbound):
                assert b"said" in await later


async def test_a_name_wins_over_an_address_and_what_nobody_takes_is_told(tmp_path: Path) -> None:
    with listening() as other, listening("::") as named:
        elsewhere, reloaded = free_ports(2)
        file, probes = written(tmp_path, elsewhere)
        async with begun(file, probes, "spare:inbound", other, named) as running, asyncio.timeout(100):
            assert b"said" in await answer(await connected(named))
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", elsewhere)
            log = await running.logged("process.started")
            assert f'"listeners":{{"inbound":"[::]:{port_of(named)}"}}' in log
            assert f"systemd has opened [::]:{port_of(named)} (inbound)" in log
            assert f"systemd has opened 127.0.0.1:{port_of(other)} (spare), and no listener has" in log
            file.write_text(file.read_text().replace(str(elsewhere), str(reloaded)))
            await running.logged("configuration reloaded")
            assert b"said" in await answer(await connected(named))
        assert running.process.returncode == 0
    assert "refused" not in log


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_systemd_keeps_is_not_handed_to_a_successor(tmp_path: Path, workers: int) -> None:
    with listening() as inbound:
        file, probes = written(tmp_path, port_of(inbound), workers)
        async with begun(file, probes, "inbound", inbound) as running, asyncio.timeout(100):
            running.process.send_signal(signal.SIGUSR2)
            assert "restart the unit instead" in await running.logged("no upgrade in place")
            assert b"said" in await answer(await connected(inbound))
        assert running.process.returncode == 0


@pytest.mark.parametrize(
    ("count", "said"),
    [
        ("1", "LISTEN_FDS: descriptor 3 (x) is no listening stream socket: use ListenStream="),
        ("2", "LISTEN_FDS: descriptor 4 (no name): Bad file descriptor"),
        ("soon", "LISTEN_FDS: 'soon' is no number up to 256"),
        ("257", "LISTEN_FDS: '257' is no number up to 256"),
    ],
)
def test_what_cannot_be_accepted_from_ends_it_with_the_reason(tmp_path: Path, count: str, said: str) -> None:
    file, _ = written(tmp_path, 1)
    launch = LAUNCH.replace("str(len(copies))", repr(count))
    with socket.socket() as unbound, listening() as good:
        given = good if count == "2" else unbound
        done = subprocess.run(
            [sys.executable, "-c", launch, "x", str(given.fileno()), str(file)],
            pass_fds=[given.fileno()], capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert said in done.stderr


def test_what_was_meant_for_another_process_is_left_alone() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "inbound", "HOME": "/"}
    assert not Activated.taken(environ)
    assert environ == {"HOME": "/"}
    assert not Activated.taken({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"})


def test_by_address() -> None:
    key = "listeners.outbound.address"
    with (
        listening("0.0.0.0") as all_v4,
        listening("::") as all_v6,
        listening() as one,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(f"\0{port_of(one)}")
        given = Activated([("sidecar.socket", each) for each in (all_v4, all_v6, one, unix)])
        assert given.find(Address("0.0.0.0", port_of(all_v4)), key) is all_v4
        assert given.find(Address("0.0.0.0", port_of(all_v6)), key) is all_v6, "it takes both families"
        assert given.find(Address("::", port_of(all_v6), is_v6_only=True), key) is all_v6
        assert given.find(Address("127.0.0.1", port_of(one)), key) is one
        assert given.find(Address("127.0.0.1", port_of(all_v4)), key) is None
        assert given.find(Address("::", port_of(all_v4), is_v6_only=True), key) is None
        assert given.find(Address("", 0, "/run/none"), key) is None


def adopted_by_upgrade(one: socket.socket) -> None:
    """As of a process that takes over."""
    given = Given()
    given.adopt([os.dup(one.fileno())])
    given.close()


@pytest.mark.parametrize("free", [kernel.receive_freely, adopted_by_upgrade])
def test_what_another_process_has_set_for_little_memory_ends_with_it(
    free: Callable[[socket.socket], None],
) -> None:
    """Accepted connections inherit a fixed buffer from the socket, which lives on."""
    buffer_lock, receive_lock = 72, 2  # SO_BUF_LOCK and SOCK_RCVBUF_LOCK of Linux
    with listening() as one:
        kernel.bound_receiving(one, 4096)
        try:
            assert one.getsockopt(socket.SOL_SOCKET, buffer_lock) & receive_lock
        except OSError:
            pytest.skip("this kernel cannot free a buffer's size (Linux 5.14)")
        free(one)
        assert not one.getsockopt(socket.SOL_SOCKET, buffer_lock) & receive_lock


def test_two_of_one_name_are_told_apart_by_their_addresses() -> None:
    with listening() as one, listening() as other:
        given = Activated([("inbound", one), ("inbound", other)])
        key = "listeners.inbound.address"
        assert given.find(Address("127.0.0.1", port_of(other)), key) is other
        assert given.find(Address("127.0.0.1", 1), key) is None
        alone = Activated([("inbound", one)])
        assert alone.find(Address("0.0.0.0", 1), key) is one
        assert alone.find(Address("::", 1, is_v6_only=True), key) is None, (
            "the second socket of both families"
        )
