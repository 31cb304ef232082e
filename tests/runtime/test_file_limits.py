"""What a limit of open files is divided into, and that the soft one is raised."""

from __future__ import annotations

import resource

import pytest

from sidecar.config.load import load_text
from sidecar.core.snapshot import Snapshot
from sidecar.runtime import file_limits
from sidecar.runtime.file_limits import OTHER_FILES, FileLimits, warning_of_limit
from sidecar.serving.http import MAX_CONNECTIONS
from tests.support.proxy import HEADER, running

ROUTES = """\
upstreams: {app: {endpoints: ["127.0.0.1:9001"], limits: {max_connections: 400}}}
routes: [{name: app, upstream: app}]
"""


def snapshot(routes: str = ROUTES) -> Snapshot:
    return load_text(HEADER + routes).snapshot


@pytest.mark.parametrize(
    ("open_files", "exchanges", "server_connections"),
    [(1024, 336, 128), (256, 28, 64), (4096, 1728, 256), (1_048_576, 523_968, 256), (100, 1, 64)],
)
def test_a_limit_is_divided_between_traffic_and_what_is_kept(
    open_files: int, exchanges: int, server_connections: int
) -> None:
    limits = FileLimits(open_files)
    assert (limits.max_open_connections, limits.max_server_connections) == (exchanges, server_connections)


def test_all_parts_together_are_never_more_than_the_limit() -> None:
    for open_files in range(200, 20_000):
        limits = FileLimits(open_files)
        servers, visitors = limits.max_server_connections, limits.max_visitors
        parts = 2 * limits.max_open_connections + 2 * servers + 2 * visitors + OTHER_FILES
        assert open_files - 1 <= parts <= open_files, open_files


class Kernel:
    """Has a limit, and notes what it is set to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> None:
        self.limit = soft, hard
        self.refusal: Exception | None = None
        monkeypatch.setattr(resource, "getrlimit", lambda which: self.limit)
        monkeypatch.setattr(resource, "setrlimit", self._set)

    def _set(self, which: int, limit: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        if self.refusal is not None:
            raise self.refusal
        self.limit = limit


def test_the_soft_limit_is_raised_to_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, 1024, 524_288)
    assert file_limits.raised() == FileLimits(524_288)
    assert kernel.limit == (524_288, 524_288)


@pytest.mark.parametrize("refusal", [ValueError("not allowed"), PermissionError(1, "not permitted")])
def test_a_limit_that_cannot_be_raised_is_used_as_it_is_and_told(
    monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    kernel = Kernel(monkeypatch, 1024, 524_288)
    kernel.refusal = refusal
    limits = file_limits.raised()
    assert limits.open_files == 1024
    warning = warning_of_limit(limits, snapshot())
    assert warning is not None
    assert f"1024 could not be raised to 524288: {refusal}" in warning


def test_where_there_is_no_limit_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    kernel.refusal = ValueError("nobody may set it")
    limits = file_limits.raised()
    assert limits.problem == ""
    assert limits.max_open_connections > 1_000_000_000


def test_a_limit_below_what_an_upstream_may_have_is_told_with_the_one_that_is_enough() -> None:
    warning = warning_of_limit(FileLimits(1024), snapshot())
    assert warning is not None
    assert "1024 open files are enough for 336 exchanges at once" in warning
    assert "400 connections (max_connections): raise the hard limit to 1440 " in warning
    assert warning_of_limit(FileLimits(1440), snapshot()) is None
    assert warning_of_limit(FileLimits(100), snapshot("upstreams: {}\nroutes: []\n")) is None


async def test_a_process_hands_its_limits_to_those_who_keep_them() -> None:
    async with running(ROUTES, limits=FileLimits(1024)) as worker:
        assert worker.service.max_open_connections == 336
        assert worker.service.beside.visitors.most == 16
        assert (
            worker.control.admin.server.max_connections == worker.control.probes.server.max_connections == 128
        )
    async with running(ROUTES, limits=FileLimits(100_000)) as worker:
        assert worker.control.admin.server.max_connections == MAX_CONNECTIONS
