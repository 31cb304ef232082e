"""A process without a free file descriptor learns nothing of its files: what it cannot look at has not changed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sidecar.config.load import load_file
from sidecar.core.own_lack import is_own_lack
from sidecar.core.snapshot import Snapshot
from sidecar.runtime import first_loading
from sidecar.runtime.actor import Mailbox
from sidecar.runtime.loader import Loader, LoaderFailed
from sidecar.runtime.reload import Active, Outcome, Reloading, Request, Warm, Watching
from tests.support.open_files import every_file_taken
from tests.support.proxy import HEADER, running

ROUTES = """\
upstreams: {app: {endpoints: ["127.0.0.1:9001"]}}
routes: [{name: app, upstream: app}]
"""
LOOKS = 8
"""More than a change needs to be tried, and to be taken for a mistake."""


class Lack:
    """While it lasts no file of a folder can be opened, nor the folder itself be listed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, number: int) -> None:
        self._folder = str(folder)
        self.is_on = True
        self.refusals = 0
        self._number = number
        monkeypatch.setattr(os, "open", self._refusing(os.open))
        monkeypatch.setattr(os, "listdir", self._refusing(os.listdir))

    def _refusing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(name: Any = ".", *arguments: Any, **options: Any) -> Any:
            if self.is_on and str(name).startswith(self._folder):
                self.refusals += 1
                raise OSError(self._number, os.strerror(self._number))
            return real(name, *arguments, **options)

        return call


class Reloads:
    """The parts `watch` and `reload` of a process, at work on `file`."""

    def __init__(self, active: Active, file: Path, clock: Callable[[], float]) -> None:
        self.asked: list[Request | Warm] = []
        self.told: list[Outcome] = []
        self._requests: Mailbox[Request | Warm] = Mailbox()
        self._outcomes: Mailbox[Outcome] = Mailbox()
        watching = Watching(active, str(file), clock, self._ask)
        reloading = Reloading(active, str(file), {}, clock, self._tell)
        self._lives = [
            asyncio.create_task(watching.run(self._outcomes)),
            asyncio.create_task(reloading.run(self._requests)),
        ]

    def _ask(self, message: Request | Warm) -> bool:
        self.asked.append(message)
        return self._requests.put(message)

    def _tell(self, outcome: Outcome) -> None:
        self.told.append(outcome)
        self._outcomes.put(outcome)

    async def until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            assert not any(life.done() for life in self._lives)
            await asyncio.sleep(0.05)

    async def end(self) -> None:
        for life in self._lives:
            life.cancel()
        await asyncio.wait(self._lives)


def written(folder: Path, routes: str = ROUTES) -> Path:
    file = folder / "sidecar.yaml"
    file.write_text(HEADER + routes)
    return file


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("is_directory", [False, True], ids=["file", "directory"])
async def test_files_that_cannot_be_opened_for_want_of_a_descriptor_bring_no_reload_about(
    number: int, is_directory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path)
    path = tmp_path if is_directory else file
    async with running(ROUTES) as worker:
        worker.control.active.snapshot = load_file(path, {}).snapshot
        lack = Lack(monkeypatch, tmp_path, number)
        reloads = Reloads(worker.control.active, path, worker.service.clock)
        await reloads.until(lambda: lack.refusals >= LOOKS)
        assert reloads.asked == []
        lack.is_on = False
        file.write_text(file.read_text().replace("name: app", "name: renamed"))
        await reloads.until(lambda: bool(reloads.told))
        await reloads.end()
        assert [(outcome.is_success, outcome.report.problems) for outcome in reloads.told] == [(True, ())]
        assert set(worker.assembly.routes) == {"renamed"}


async def test_a_change_that_comes_while_no_process_can_be_started_is_told_once_and_taken_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path)
    tries: list[LoaderFailed] = []

    async def load(loader: Loader, path: str, environ: Mapping[str, str]) -> Snapshot:
        if len(tries) < LOOKS:
            tries.append(LoaderFailed("Too many open files", is_own_lack=True))
            raise tries[-1]
        return load_file(path, environ).snapshot

    async def warm(loader: Loader) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Loader, "load", load)
    monkeypatch.setattr(Loader, "warm", warm)
    async with running(ROUTES) as worker:
        worker.control.active.snapshot = load_file(file, {}).snapshot
        reloads = Reloads(worker.control.active, file, worker.service.clock)
        file.write_text(file.read_text().replace("name: app", "name: renamed"))
        await reloads.until(lambda: any(outcome.is_success for outcome in reloads.told))
        await reloads.end()
        assert len(tries) == LOOKS
        assert [(outcome.is_success, outcome.is_undecided) for outcome in reloads.told] == [
            (False, True),
            (True, False),
        ]
        assert set(worker.assembly.routes) == {"renamed"}
        assert worker.control.active.numbers(0.0).reloads_failed == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EAGAIN])
async def test_a_loader_that_cannot_be_started_says_that_the_lack_is_our_own(
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(first_loading.subprocess, "Popen", refused)
    with pytest.raises(LoaderFailed, match=rf"^{os.strerror(number)}: nothing is known") as caught:
        await Loader().load("sidecar.yaml", {})
    assert caught.value.is_own_lack


@pytest.mark.process
@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
def test_loads_that_fail_for_want_of_files_keep_none(run: Callable[..., Any], tmp_path: Path) -> None:
    """With more and more that are free, so that each of those that a process takes is once the first that lacks."""
    file = written(tmp_path)

    async def is_loaded(loader: Loader) -> bool:
        try:
            return bool((await loader.load(str(file), {})).digest)
        except LoaderFailed as error:
            if not error.is_own_lack:
                raise
            return False
        finally:
            await loader.close()
            await asyncio.sleep(0.02)  # a loop of uvloop closes its pipes in some turns

    async def loading() -> None:
        loader = Loader()
        assert await is_loaded(loader)  # uvloop keeps one file of its own from its first pipe on
        with every_file_taken(at_least=16) as taken:
            before = open_ones()
            while not await is_loaded(loader):
                assert open_ones() == before
                before.remove(taken[-1])
                os.close(taken.pop())
            assert open_ones() == before

    run(loading())


def open_ones() -> list[int]:
    """Files of this process, without opening one to see."""
    found = []
    for number in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
        with contextlib.suppress(OSError):
            os.fstat(number)
            found.append(number)
    return found


def test_an_error_that_was_raised_from_our_own_lack_is_one() -> None:
    lack = OSError(errno.EMFILE, "Too many open files")
    told = OSError("listeners.inbound.address: cannot listen")
    told.__cause__ = lack
    assert is_own_lack(lack)
    assert is_own_lack(told)
    assert not is_own_lack(OSError(errno.ECONNREFUSED, "refused"))
    assert not is_own_lack(OSError("no number at all"))
