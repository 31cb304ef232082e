"""The units of the example, and what a sidecar that systemd has started tells it."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.config.load import load_text
from sidecar.runtime.service_manager import ServiceManager
from tests.examples.test_examples import EXAMPLES, example

UNITS = sorted((EXAMPLES / "systemd").glob("*.s*"))


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """What systemd has, and its path."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(path)
        bound.settimeout(60)
        yield bound, path


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="Debian's package systemd is not installed"
)
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    copies = []
    for unit in UNITS:
        text = re.sub(r"^(Exec\w+)=/opt/\S+", r"\1=/bin/true", unit.read_text(), flags=re.MULTILINE)
        copies.append(tmp_path / unit.name)
        copies[-1].write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, copies)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_socket_has_the_name_of_a_listener() -> None:
    lines = (EXAMPLES / "systemd" / "sidecar.socket").read_text().splitlines()
    assert "FileDescriptorName=inbound" in lines
    assert (
        "inbound"
        in load_text("version: 1\nupstreams: {a: {endpoints: ['b:1']}}\nroutes: []\n").snapshot.listeners
    )


def test_the_unit_leaves_a_drain_its_time_and_asks_for_what_the_sidecar_tells() -> None:
    text = (EXAMPLES / "systemd" / "sidecar.service").read_text()
    assert {"Type=notify", "NotifyAccess=main", "WatchdogSec=10s", "LimitNOFILE=65536"} <= set(
        text.splitlines()
    )
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)s$", text, re.MULTILINE)
    assert int(seconds) >= 3 + 25 + 2


@pytest.mark.process
async def test_a_sidecar_says_that_it_is_ready_lives_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listener: tuple[socket.socket, str]
) -> None:
    bound, path = listener
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    async with example("streams", tmp_path, monkeypatch):
        told = [await asyncio.to_thread(bound.recv, 100) for _ in range(3)]
        assert told == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        rest = asyncio.create_task(asyncio.to_thread(_until_it_stops, bound))
    assert set(await rest) <= {b"WATCHDOG=1", b"STOPPING=1"}


def _until_it_stops(bound: socket.socket) -> list[bytes]:
    told = [bound.recv(100)]
    while told[-1] != b"STOPPING=1":
        told.append(bound.recv(100))
    return told


async def test_a_loop_that_hangs_gives_no_sign_of_life(listener: tuple[socket.socket, str]) -> None:
    bound, path = listener
    manager = ServiceManager({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000"})
    manager.ready()
    assert [bound.recv(100), bound.recv(100)] == [b"READY=1", b"WATCHDOG=1"]
    bound.settimeout(0.2)
    with pytest.raises(TimeoutError):
        bound.recv(100)  # holds the loop
    bound.settimeout(60)
    assert await asyncio.to_thread(bound.recv, 100) == b"WATCHDOG=1"
    manager.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": "vsock:2:1"},
        {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "20000"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"},
    ],
)
async def test_whoever_is_not_there_keeps_nobody_from_serving(environ: dict[str, str]) -> None:
    manager = ServiceManager(environ)
    manager.ready()
    manager.stopping()
    manager.close()
    manager.close()


async def test_a_socket_that_is_full_or_gone_is_told_once(
    listener: tuple[socket.socket, str], caplog: pytest.LogCaptureFixture
) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": listener[1]})
    for _ in range(5_000):  # the kernel keeps some hundred datagrams
        manager.stopping()
    assert len(caplog.records) == 1
    assert "cannot be told STOPPING=1" in caplog.text
