"""A watched file, by whatever way it is replaced; bad content keeps the last good list."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar.core.snapshot import Endpoint, Source
from sidecar.runtime import endpoint_files
from sidecar.runtime.endpoint_files import EndpointFiles


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_files, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(endpoint_files, "SETTLE_SECONDS", 0.02)


class Told:
    def __init__(self) -> None:
        self.lists: asyncio.Queue[list[str]] = asyncio.Queue()
        self.errors: asyncio.Queue[str | None] = asyncio.Queue()

    def changed(self, _: Endpoint, endpoints: tuple[Endpoint, ...]) -> None:
        self.lists.put_nowait([str(one) for one in endpoints])

    def troubled(self, _: Endpoint, error: str | None) -> None:
        self.errors.put_nowait(error)


@asynccontextmanager
async def watching(file: Path) -> AsyncIterator[tuple[EndpointFiles, Endpoint, Told]]:
    told = Told()
    files = EndpointFiles(told.changed, told.troubled)
    entry = Endpoint(str(file), 0, source=Source.FILE)
    files.watch(entry)
    task = asyncio.create_task(files.run())
    try:
        yield files, entry, told
    finally:
        task.cancel()
        await asyncio.wait([task])


def listing(*addresses: str) -> str:
    return "endpoints:\n" + "".join(f'- "{address}"\n' for address in addresses)


def write_in_place(file: Path, text: str) -> None:
    file.write_text(text)


def rename_over(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)


def delete_and_create(file: Path, text: str) -> None:
    file.unlink()
    file.write_text(text)


@pytest.mark.parametrize("replace", [write_in_place, rename_over, delete_and_create])
async def test_another_content_is_another_list(tmp_path: Path, replace) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "endpoints.yaml"
    file.write_text(listing("10.0.0.1:80"))
    async with watching(file) as (_, _, told):
        assert await told.lists.get() == ["10.0.0.1:80"]
        replace(file, listing("10.0.0.2:80", "10.0.0.3:80"))
        assert await told.lists.get() == ["10.0.0.2:80", "10.0.0.3:80"]


async def test_a_config_map_is_swapped_by_its_link(tmp_path: Path) -> None:
    def swap(name: str, text: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "endpoints.yaml").write_text(text)
        (tmp_path / "..data_tmp").symlink_to(name)
        os.replace(tmp_path / "..data_tmp", tmp_path / "..data")

    swap("..1", listing("10.0.0.1:80"))
    file = tmp_path / "endpoints.yaml"
    file.symlink_to("..data/endpoints.yaml")
    async with watching(file) as (_, _, told):
        assert await told.lists.get() == ["10.0.0.1:80"]
        swap("..2", listing("10.0.0.2:80"))
        assert await told.lists.get() == ["10.0.0.2:80"]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("", "it is empty"),
        ("endpoints: [10.0.0.9]\n", ":1:13: not an endpoint"),
        (None, "cannot be read: No such file or directory"),
    ],
    ids=["empty", "nonsense", "gone"],
)
async def test_bad_content_keeps_the_last_good_list_and_is_told_once(
    tmp_path: Path, bad: str | None, error: str
) -> None:
    file = tmp_path / "endpoints.yaml"
    file.write_text(listing("10.0.0.1:80"))
    async with watching(file) as (files, entry, told):
        await told.lists.get()
        if bad is None:
            file.unlink()
        else:
            file.write_text(bad)
        text = await told.errors.get()
        assert text is not None
        assert str(file) in text
        assert error in text
        known = files.listing(entry)
        assert known is not None
        assert (known.count, known.error) == (1, text)
        file.write_text(listing("10.0.0.2:80"))
        assert await told.lists.get() == ["10.0.0.2:80"]
        assert await told.errors.get() is None
        assert (told.lists.empty(), told.errors.empty()) == (True, True)


async def test_a_file_that_comes_later_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.yaml"
    async with watching(file) as (_, _, told):
        assert await told.errors.get() is not None
        file.write_text(listing("10.0.0.1:80"))
        assert await told.lists.get() == ["10.0.0.1:80"]


async def test_a_list_that_is_explicitly_empty_is_believed(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.yaml"
    file.write_text(listing("10.0.0.1:80"))
    async with watching(file) as (_, _, told):
        await told.lists.get()
        file.write_text("endpoints: []\n")
        assert await told.lists.get() == []


async def test_more_endpoints_than_there_may_be_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.upstream.followers.MOST_ENDPOINTS", 2)
    file = tmp_path / "endpoints.yaml"
    file.write_text(listing("10.0.0.1:80", "10.0.0.2:80"))
    async with watching(file) as (_, _, told):
        assert len(await told.lists.get()) == 2
        file.write_text(listing("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"))
        assert await told.errors.get() == "it lists 3 endpoints, and an entry has at most 2: divide it"
        assert told.lists.empty()


async def test_a_look_that_lacks_file_descriptors_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sidecar.config.endpoint_file import BadEndpointFile

    file = tmp_path / "endpoints.yaml"
    file.write_text(listing("10.0.0.1:80"))
    real, refusals = endpoint_files.read_endpoints, [True, True]

    def read(path: str) -> tuple[Endpoint, ...]:
        if refusals:
            refusals.pop()
            raise BadEndpointFile("no file descriptors", is_own_lack=True)
        return real(path)

    monkeypatch.setattr(endpoint_files, "read_endpoints", read)
    async with watching(file) as (_, _, told):
        assert await told.lists.get() == ["10.0.0.1:80"]


async def test_nobody_is_told_of_a_file_that_is_watched_no_more(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.yaml"
    file.write_text(listing("10.0.0.1:80"))
    async with watching(file) as (files, entry, told):
        files.watch(entry)
        await told.lists.get()
        files.unwatch(entry)
        file.write_text(listing("10.0.0.2:80"))
        assert await told.lists.get() == ["10.0.0.2:80"]
        files.unwatch(entry)
        assert files.listing(entry) is None
        with pytest.raises(KeyError):
            files.unwatch(entry)


def lookouts() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sidecar-watch"]


async def test_the_files_of_one_directory_are_looked_at_by_one_thread(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.yaml" for number in range(20)]
    for path in paths:
        path.write_text(listing("10.0.0.1:80"))
    before = len(lookouts())
    async with watching(paths[0]) as (files, _, told):
        entries = [Endpoint(str(path), 0, source=Source.FILE) for path in paths[1:]]
        for entry in entries:
            files.watch(entry)
        for _ in paths:
            await told.lists.get()
        while len(lookouts()) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for number, path in enumerate(paths):
            path.write_text(listing(f"10.0.1.{number}:80"))
        seen = {(await told.lists.get())[0] for _ in paths}
        assert seen == {f"10.0.1.{number}:80" for number in range(20)}
        assert len(lookouts()) == before + 1
        for entry in entries:
            files.unwatch(entry)
        paths[0].write_text(listing("10.0.0.2:80"))
        assert await told.lists.get() == ["10.0.0.2:80"]
    while len(lookouts()) > before:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
