"""Who takes over: a program that says that it serves. One that ends, or is silent for too long, changes nothing."""

from __future__ import annotations

import os
import select
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
import os, socket
pipe, *files = map(int, os.environ["SIDECAR_PREDECESSOR"].split(","))
[socket.socket(fileno=file).accept()[0].sendall(b"new") for file in files]
os.write(pipe, b"ready")
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
        predecessor.ready()
    assert not GIVEN
    assert os.read(read, 100) == b"ready"
    assert os.read(read, 100) == b"", "nobody holds the pipe any more"
    os.close(read)


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
