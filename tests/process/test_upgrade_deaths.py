"""An upgrade in place in which somebody dies, hangs or is told to end: there is always one who serves, or nobody is
left."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.process.test_upgrade import ended
from tests.support.edits import rename_over
from tests.support.ports import free_ports
from tests.support.process import http_get
from tests.support.workers import Pod, pod

pytestmark = pytest.mark.process

CALLS = 24
"""New connections: that the kernel gives none of them to one of two sockets happens once in 2^23 times."""


@dataclass
class Stage:
    """A sidecar with a successor under way that waits where the test wants."""

    pod: Pod
    folder: Path
    workers: int
    successor: int = 0

    def hold(self, name: str) -> None:
        (self.folder / name).touch()

    def let_go(self, name: str) -> None:
        (self.folder / name).unlink()

    async def upgrade(self, *, times: int = 1) -> None:
        """Until a successor has been started."""
        os.kill(self.pod.running.process.pid, signal.SIGUSR2)
        text = await self.pod.running.logged("is to take over", times=times)
        self.successor = int(re.findall(r"process (\d+) is to take over", text)[-1])

    async def until_started(self) -> None:
        """The successor has its listeners, and its workers if it has any."""
        await self.pod.running.logged('"process.started"', times=2 * self.processes)

    def add_listener(self) -> int:
        """Of a new one in the file, of which the old process is told: its port."""
        (port,) = free_ports(1)
        other = f'listeners: {{other: {{address: "127.0.0.1:{port}", direction: inbound}}, '
        rename_over(self.pod.file, self.pod.file.read_text().replace("listeners: {", other))
        os.kill(self.pod.running.process.pid, signal.SIGHUP)
        return port

    @property
    def processes(self) -> int:
        """That say that they have started."""
        return self.workers + 1 if self.workers > 1 else 1

    async def until_said(self) -> None:
        while not (self.folder / "has_said").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def all_served(self) -> None:
        for _ in range(CALLS):
            assert (await http_get(self.pod.inbound, "/"))[0] == 200
        assert (await self.pod.running.get("/readyz"))[0] == 200


@asynccontextmanager
async def stage(folder: Path, workers: int, *, end: int = 0, top: str = "") -> AsyncIterator[Stage]:
    command = ("-m", "tests.process.late_successor")
    async with pod(folder, workers=workers, end=end, top=top, command=command) as one:
        try:
            yield (this := Stage(one, folder, workers))
        finally:
            for name in ("hold_start", "hold_ready"):
                (folder / name).unlink(missing_ok=True)
        if one.running.process.returncode is not None and this.successor:
            os.kill(this.successor, signal.SIGTERM)
            await ended(this.successor)


@pytest.mark.parametrize("workers", [1, 2])
async def test_one_that_dies_right_after_it_said_that_it_serves_takes_nothing_over(
    tmp_path: Path, workers: int
) -> None:
    async with stage(tmp_path, workers) as one:
        one.hold("hold_ready")
        await one.upgrade()
        await one.until_started()
        old = one.pod.running.process
        old.send_signal(signal.SIGSTOP)  # it hears of neither before both have happened
        one.let_go("hold_ready")
        await one.until_said()
        os.kill(one.successor, signal.SIGKILL)
        await ended(one.successor)
        if workers > 1:
            await one.pod.running.logged('"process.ended"', times=one.processes)
        old.send_signal(signal.SIGCONT)
        await one.pod.running.logged("the new process did not serve (SIGKILL)")
        await one.all_served()
        one.successor = 0


async def test_a_successor_serves_though_the_supervisor_that_started_it_was_killed(tmp_path: Path) -> None:
    """Whose workers end with it, and without their sockets, which are the successor's too."""
    async with stage(tmp_path, 2, end=-signal.SIGKILL) as one:
        one.hold("hold_ready")
        await one.upgrade()
        await one.until_started()
        one.pod.running.process.kill()
        await one.pod.running.ended()
        await one.pod.running.logged('"process.ended"', times=one.processes)
        await one.all_served()
        one.let_go("hold_ready")
        await one.until_said()
        await one.all_served()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_listener_that_is_new_in_the_file_during_an_upgrade_is_left_to_the_successor(
    tmp_path: Path, workers: int
) -> None:
    """Whichever of the two reads the file first."""
    async with stage(tmp_path, workers) as one:
        one.hold("hold_start")
        await one.upgrade()
        port = one.add_listener()
        os.kill(one.pod.running.process.pid, signal.SIGUSR2)  # which changes nothing
        one.let_go("hold_start")
        assert await one.pod.running.ended() == 0
        await one.all_served()
        assert (await http_get(port, "/"))[0] in (200, 404)
        assert one.pod.running.log.read_text().count("is to take over") == 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_is_new_in_the_file_during_an_upgrade_is_taken_when_nothing_has_come_of_that(
    tmp_path: Path, workers: int
) -> None:
    async with stage(tmp_path, workers) as one:
        one.hold("hold_start")
        await one.upgrade()
        port = one.add_listener()
        os.kill(one.successor, signal.SIGKILL)
        await one.pod.running.logged("did not serve")
        await one.pod.running.logged("listener other added")
        await one.all_served()
        assert (await http_get(port, "/"))[0] in (200, 404)
        one.hold("hold_ready")
        one.let_go("hold_start")
        await one.upgrade(times=2)
        one.let_go("hold_ready")
        assert await one.pod.running.ended() == 0
        await one.all_served()


@pytest.mark.parametrize("workers", [1, 2])
async def test_nobody_is_left_when_a_process_is_told_to_end_whose_successor_hangs(
    tmp_path: Path, workers: int
) -> None:
    async with stage(tmp_path, workers, top="drain_timeout: 1s") as one:
        one.hold("hold_ready")
        await one.upgrade()
        await one.until_started()
        os.kill(one.successor, signal.SIGSTOP)
        one.pod.running.process.send_signal(signal.SIGTERM)
        assert await one.pod.running.ended() == 0
        with pytest.raises(ProcessLookupError):
            os.kill(one.successor, 0)
        one.successor = 0
        own = one.processes + (workers > 1)  # its supervisor
        await one.pod.running.logged('"process.ended"', times=own + (one.processes if workers > 1 else 0))
        with pytest.raises(ConnectionError):
            await http_get(one.pod.inbound, "/")


async def test_control_that_dies_during_an_upgrade_is_replaced_though_the_successor_has_its_sockets(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, 2) as one:
        control = one.pod.pids()["control"]
        one.hold("hold_start")
        await one.upgrade()
        os.kill(control, signal.SIGKILL)
        text = await one.pod.running.logged('"process.started"', times=one.processes + 1)
        assert "it is in use" not in text
        await one.all_served()
        one.add_listener()
        os.kill(one.pod.pids()["1"], signal.SIGKILL)  # who comes in its place has been forked meanwhile
        await one.pod.running.logged('"process.started"', times=one.processes + 2)
        os.kill(one.successor, signal.SIGKILL)
        assert "listener other added" not in one.pod.running.log.read_text(), "it may be for the successor"
        await one.pod.running.logged("listener other added")
        os.kill(one.pod.pids()["control"], signal.SIGKILL)
        text = await one.pod.running.logged('"process.started"', times=one.processes + 3)
        assert "it is in use" not in text
        await one.all_served()
        one.successor = 0


@pytest.mark.parametrize("serves", [True, False], ids=["serves", "dies"])
async def test_a_pod_that_has_failed_leaves_its_successor_the_time_to_serve(
    tmp_path: Path, serves: bool
) -> None:
    """Which may be the version that does not fail."""
    async with stage(tmp_path, 2, end=0 if serves else 1) as one:
        one.hold("hold_start")
        await one.upgrade()
        for death in range(6):
            await one.pod.running.logged('"worker":"2","message":"started', times=death + 1)
            os.kill(one.pod.pids()["2"], signal.SIGKILL)
        await one.pod.running.logged("worker 2 died 6 times within 60 s")
        await one.all_served()
        if serves:
            one.let_go("hold_start")
        else:
            os.kill(one.successor, signal.SIGKILL)
        assert await one.pod.running.ended() == (0 if serves else 1)
        if serves:
            await one.all_served()
        else:
            one.successor = 0
