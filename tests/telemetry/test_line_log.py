"""The log of a process without threads: whole lines at once, and nobody waits for who reads them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator

import pytest

from sidecar.core.snapshot import LogFormat
from sidecar.telemetry.line_log import LineLog
from sidecar.telemetry.log_lines import Level
from sidecar.telemetry.process_log import ProcessLog, kind

PAGE = 4096


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_line_of_logging_is_an_event_of_its_kind_with_its_fields(pipe: tuple[int, int]) -> None:
    log = ProcessLog(LineLog(LogFormat.JSON, pipe[1], "supervisor"))
    log.attach()
    try:
        told = kind("process.child_died", child="worker 1", pid=7)
        logging.getLogger("sidecar.runtime").error("%s ended", "worker 1", extra=told)
    finally:
        log.detach()
    line = json.loads(os.read(pipe[0], PAGE))
    assert line.pop("time")
    assert line == {
        "level": "error",
        "kind": "process.child_died",
        "worker": "supervisor",
        "message": "worker 1 ended",
        "child": "worker 1",
        "pid": 7,
    }


@pytest.mark.parametrize("log_format", LogFormat)
def test_it_has_the_format_of_the_other_lines(pipe: tuple[int, int], log_format: LogFormat) -> None:
    LineLog(log_format, pipe[1], "supervisor").event(
        Level.INFO, "process.failed", "so it is", {"pid": 7}, 0.0
    )
    line = os.read(pipe[0], PAGE)
    is_text = line.endswith(b" process.failed so it is worker=supervisor pid=7\n")
    assert is_text is (log_format is LogFormat.TEXT)
    assert line.startswith(b"{") is not is_text


def test_who_reads_nothing_holds_nobody_up_and_learns_what_was_lost(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, bytes(PAGE)):
            pass
    os.set_blocking(writer, True)
    log = LineLog(LogFormat.JSON, writer, "supervisor")
    for _ in range(3):
        log.event(Level.INFO, "process.failed", "nobody sees it", {}, 0.0)
    os.set_blocking(reader, False)
    with contextlib.suppress(BlockingIOError):
        while waiting := os.read(reader, PAGE):
            assert not waiting.strip(b"\0")
    for lost in (3, None):
        log.event(Level.INFO, "process.failed", "seen", {}, 0.0)
        assert json.loads(os.read(reader, PAGE)).get("lines_lost") == lost
