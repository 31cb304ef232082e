"""A loading process that is killed says nothing of the configuration, and takes nobody with it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import uvloop

from sidecar.config.load import load_file
from sidecar.config.watch import MOST_PATIENCE_SECONDS, PATIENCE_SECONDS, SETTLE_SECONDS, Settling
from sidecar.core.snapshot import Snapshot
from sidecar.runtime import first_loading
from sidecar.runtime.loader import Loader, LoaderFailed
from tests.runtime.test_own_lack import ROUTES, Reloads, written
from tests.support.proxy import running


async def test_a_good_change_whose_loader_is_killed_twice_is_taken_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path)
    kills: list[LoaderFailed] = []

    async def load(loader: Loader, path: str, environ: Mapping[str, str]) -> Snapshot:
        if len(kills) < 2:
            kills.append(LoaderFailed("the loading process ended"))
            raise kills[-1]
        return load_file(path, environ).snapshot

    async def warm(loader: Loader) -> None:
        """Not needed."""

    monkeypatch.setattr(Loader, "load", load)
    monkeypatch.setattr(Loader, "warm", warm)
    async with running(ROUTES) as worker:
        worker.control.active.snapshot = load_file(file, {}).snapshot
        reloads = Reloads(worker.control.active, file, worker.service.clock)
        file.write_text(file.read_text().replace("name: app", "name: renamed"))
        await reloads.until(lambda: any(outcome.is_success for outcome in reloads.told))
        await reloads.end()
        assert len(kills) == 2
        assert set(worker.assembly.routes) == {"renamed"}


def test_a_change_that_kills_its_loader_is_tried_less_and_less_often() -> None:
    settling = Settling("used")
    now, waits = 0.0, []
    assert not settling.saw("new", now)
    now += SETTLE_SECONDS
    assert settling.saw("new", now)
    for _ in range(9):
        settling.crashed(now)
        began = now
        while not settling.saw("new", now):
            now += 0.25
        waits.append(now - began)
    assert waits == pytest.approx([PATIENCE_SECONDS, 2.0, 4.0, 8.0, 16.0, 32.0] + [MOST_PATIENCE_SECONDS] * 3)
    assert not settling.saw("newer", now)
    assert settling.saw("newer", now + 2 * SETTLE_SECONDS), "another one is tried at once"


async def _kill(loader: Loader) -> None:
    await loader.warm()
    assert loader._process is not None
    os.kill(loader._process.pid, signal.SIGKILL)


async def _killed_before_and_while_it_is_asked(file: Path) -> list[object]:
    """As it is found dead already, and as it is being written to; each time there is no verdict, then a good one."""
    loader = Loader()
    outcomes: list[object] = []
    for has_noticed in (False, True, False):
        await _kill(loader)
        if has_noticed:
            assert loader._process is not None
            await loader._process.wait()
        try:
            outcomes.append((await loader.load(str(file), {})).digest)
        except LoaderFailed as error:
            outcomes.append(str(error)[:27])
    outcomes.append((await loader.load(str(file), {})).digest)
    await loader.close()
    return outcomes


@pytest.mark.process
@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
def test_a_loader_that_is_killed_fails_alone_and_the_next_one_loads(run: object, tmp_path: Path) -> None:
    assert callable(run)
    file = written(tmp_path)
    digest = load_file(file, {}).snapshot.digest
    outcomes = run(_killed_before_and_while_it_is_asked(file))
    assert outcomes[-1] == digest
    assert set(outcomes[:-1]) <= {digest, "the loading process ended: "}
    assert "the loading process ended: " in outcomes


@pytest.mark.process
@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
def test_a_pipe_that_is_closed_already_is_no_crash(run: object, tmp_path: Path) -> None:
    """The process closes its input and lives on: uvloop has words of its own for a write after that."""
    assert callable(run)

    async def asked() -> str:
        loader = Loader()
        await loader.warm()
        assert loader._process is not None
        assert loader._process.stdin is not None
        loader._process.stdin.transport.abort()
        await asyncio.sleep(0)
        try:
            await loader.load(str(written(tmp_path)), {})
        except LoaderFailed as error:
            return str(error)
        finally:
            await loader.close()
        return "loaded"

    assert run(asked()).startswith("the loading process ended: ")


async def _taken_over(file: Path, meanwhile: str) -> list[object]:
    """A process that was started without a loop: asked, killed before it is asked, or never asked."""
    started = first_loading.start()
    assert started is not None
    if meanwhile == "killed":
        started.kill()
        started.wait()
    loader = Loader(started=started)
    outcomes: list[object] = []
    for _ in range(0 if meanwhile == "not asked" else 2):
        try:
            outcomes.append((await loader.load(str(file), {})).digest)
        except LoaderFailed as error:
            outcomes.append(str(error)[:27])
    await loader.close()
    outcomes.append(started.returncode is not None)
    return outcomes


@pytest.mark.process
@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
@pytest.mark.parametrize("meanwhile", ["asked", "killed", "not asked"])
def test_a_process_that_was_started_before_the_loop_is_one_like_others(
    run: object, meanwhile: str, tmp_path: Path
) -> None:
    assert callable(run)
    file = written(tmp_path)
    digest = load_file(file, {}).snapshot.digest
    *outcomes, has_ended = run(_taken_over(file, meanwhile))
    first = {"asked": digest, "killed": "the loading process ended: "}
    assert outcomes == ([] if meanwhile == "not asked" else [first[meanwhile], digest])
    assert has_ended


def test_a_process_that_cannot_be_started_early_is_started_when_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(first_loading.subprocess, "Popen", refused)
    assert first_loading.start() is None


@pytest.mark.process
@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
def test_a_loader_without_work_ends_and_leaves_nothing(run: object, tmp_path: Path) -> None:
    assert callable(run)

    async def loaded() -> int:
        loader = Loader()
        await loader.load(str(written(tmp_path)), {})
        assert loader._process is not None
        pid = loader._process.pid
        loader._let_go()
        while is_there(pid):  # noqa: ASYNC110  (no event comes of it)
            await asyncio.sleep(0.05)
        await loader.close()
        return pid

    assert run(loaded())


def is_there(pid: int) -> bool:
    """Also one that has ended and was not reaped."""
    return Path(f"/proc/{pid}").exists()


async def _niceness(loader: Loader, file: Path) -> int:
    """Of its process, once that has loaded."""
    try:
        await loader.load(str(file), {})
        assert loader._process is not None
        return os.getpriority(os.PRIO_PROCESS, loader._process.pid)
    finally:
        await loader.close()


@pytest.mark.process
@pytest.mark.parametrize("niceness", [0, 10])
def test_a_loader_gives_way_to_traffic_where_there_is_some(niceness: int, tmp_path: Path) -> None:
    told = asyncio.run(_niceness(Loader(niceness=niceness), written(tmp_path)))
    assert told == min(os.getpriority(os.PRIO_PROCESS, 0) + niceness, 19)
