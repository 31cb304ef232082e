"""Who takes over: a program that says that it serves. One that ends, or is silent for too long, changes nothing."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest

from sidecar.core.snapshot import Address
from sidecar.runtime.upgrade import VARIABLE, Predecessor, Succession
from sidecar.transport.given import GIVEN

SAYS_SO = """
import os, signal, socket
pipe, *files = map(int, os.environ["SIDECAR_PREDECESSOR"].split(","))
[socket.socket(fileno=file).accept()[0].sendall(b"new") for file in files]
os.write(pipe, b"ready")
signal.pause()
"""


def runs(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """What this process would be started anew as."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", program])


def look(succession: Succession) -> int | None:
    """When it has said something, or has ended."""
    assert succession.successor is not None
    select.select([succession.successor], [], [], 60)
    return succession.look(0.0)


def test_the_successor_has_the_sockets_and_says_when_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    runs(monkeypatch, SAYS_SO)
    succession = Succession()
    with socket.create_server(("127.0.0.1", 0)) as one:
        assert succession.begin([one.fileno()], 0.0)
        with socket.create_connection(one.getsockname()) as client:
            assert client.recv(3) == b"new"
    assert succession.successor is not None
    pid = succession.successor.pid
    assert look(succession) == pid
    assert succession.is_over
    assert not succession.begin([], 0.0), "somebody has taken over already"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_one_that_ends_changes_nothing_and_another_may_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs(monkeypatch, "raise SystemExit(2)")
    succession = Succession()
    assert succession.begin([], 0.0)
    assert not succession.begin([], 0.0), "one at a time"
    assert look(succession) is None
    assert not succession.is_over
    assert "did not serve (" in caplog.text
    assert succession.begin([], 0.0)
    assert look(succession) is None


def test_one_that_says_nothing_for_too_long_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs(monkeypatch, "import time; time.sleep(1000)")
    succession = Succession()
    assert succession.begin([], 0.0)
    assert succession.look(0.0) is None
    assert succession.successor is not None, "it has time"
    assert succession.look(inf) is None
    assert "did not serve (SIGKILL)" in caplog.text


def test_the_end_of_this_process_is_the_end_of_its_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    runs(monkeypatch, "import time; time.sleep(1000)")
    succession = Succession()
    assert succession.begin([], 0.0)
    assert succession.successor is not None
    pid = succession.successor.pid
    succession.end()
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    assert succession.look(inf) is None


def test_one_that_does_not_end_with_this_process_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deaf = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(int(os.environ["SIDECAR_PREDECESSOR"]), b"deaf")
while True:
    signal.pause()
"""
    runs(monkeypatch, deaf)
    succession = Succession()
    assert succession.begin([], 0.0)
    assert succession.successor is not None
    pid = succession.successor.pid
    select.select([succession.successor], [], [], 60)
    succession.end()
    assert not succession.has_ended()
    succession.kill()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert succession.has_ended()
    assert f"process {pid} did not end: killed" in caplog.text
    succession.kill()


def test_process_1_of_a_container_goes_on_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    succession = Succession()
    assert not succession.begin([], 0.0)
    assert "this is process 1 of its container" in caplog.text


def test_whoever_was_started_by_nobody_has_nobody_to_tell() -> None:
    environ = {"HOME": "/"}
    Predecessor(environ).ready()
    assert environ == {"HOME": "/"}


@pytest.mark.process
@pytest.mark.parametrize("told", ["99999,99998", "soon"])
def test_files_that_there_are_not_end_it_with_the_reason(told: str, tmp_path: Path) -> None:
    file = tmp_path / "sidecar.yaml"
    file.touch()
    command = [sys.executable, "-m", "sidecar", "run", str(file)]
    done = subprocess.run(command, env={**os.environ, VARIABLE: told}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"sidecar: {VARIABLE}: ")
    assert done.stderr.count("\n") == 1


def test_what_was_left_is_taken_over_and_let_go_when_all_serve() -> None:
    read, write = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as left:
        environ = {VARIABLE: f"{write},{os.dup(left.fileno())}"}
        predecessor = Predecessor(environ)
        assert environ == {}
        assert GIVEN
        (taken,) = GIVEN.take(Address(*left.getsockname()))
        poll = select.poll()
        poll.register(predecessor, 0)
        predecessor.ready()
        assert not GIVEN
        assert os.read(read, 100) == b"ready"
        assert poll.poll(0) == []
        assert GIVEN.lends(taken), "it has not heard so yet, and may have to go on"
        os.close(read)
        assert poll.poll(0) == [(predecessor.fileno(), select.POLLERR)]
        predecessor.left()
        assert not predecessor.is_there
        assert not GIVEN.lends(taken)
        taken.close()


def test_sockets_get_no_higher_numbers_from_one_upgrade_to_the_next() -> None:
    read, write = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as left:
        numbers = [500, 600]
        for number in numbers:
            os.dup2(left.fileno(), number)
        predecessor = Predecessor({VARIABLE: f"{write},500,600"})
        taken = GIVEN.take(Address(*left.getsockname()))
    assert all(one.fileno() < 500 and not one.get_inheritable() for one in taken)
    for number in numbers:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
    for one in taken:
        one.close()
    predecessor.ready()
    os.close(read)


ALONE = """
import asyncio, os
from sidecar.config.load import load_text
from sidecar.runtime.upgrade import Predecessor
from sidecar.runtime.worker import Worker

async def live():
    worker = Worker(load_text(os.environ["FILE"]).snapshot, os.environ)
    worker.control.drain.begin("SIGTERM")  # between its handlers and its listeners
    await worker.run(Predecessor(os.environ))

asyncio.run(live())
"""
SEVERAL = """
import os, select, signal, sys
from sidecar.runtime.crossing import Crossing
from sidecar.runtime.upgrade import Predecessor
from sidecar.runtime.workers.inherited import Inherited
from sidecar.runtime.workers.orders import Drain, Serving
from sidecar.runtime.workers.sockets import SharedSockets
from sidecar.runtime.workers.supervisor import Supervisor

def live(number, inherited, lifeline):
    predecessor.leave()
    if number == 2:  # the last
        os.kill(os.getppid(), signal.SIGTERM)
    order = None
    while not isinstance(order, Drain):
        select.select([lifeline], [], [])
        order, _ = lifeline.receive()
    lifeline.send(Serving())
    return 0

predecessor = Predecessor(os.environ)
inherited = Inherited(2, None, SharedSockets(2), Crossing(2), bytes(32))
sys.exit(Supervisor(inherited, live, 10.0, predecessor, str).run())
"""


FILE = """\
version: 1
listeners: {inbound: {address: "127.0.0.1:0"}}
probes: {address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0"}
routes: []
"""


@pytest.mark.process
@pytest.mark.parametrize("program", [ALONE, SEVERAL], ids=["alone", "several"])
def test_one_that_is_told_to_end_before_it_serves_does_not_say_that_it_does(
    program: str, tmp_path: Path
) -> None:
    read, write = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, open(read, "rb") as said:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        environ = {
            **os.environ,
            VARIABLE: str(write),
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "FILE": FILE,
        }
        done = subprocess.run([sys.executable, "-c", program], env=environ, pass_fds=[write])
        os.close(write)
        assert done.returncode == 0
        assert said.read() == b"", "who was to be replaced goes on"
        with pytest.raises(BlockingIOError):
            systemd.recv(100)
