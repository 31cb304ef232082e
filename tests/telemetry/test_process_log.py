"""What is logged by `logging` stands in the event log, once, with what went wrong."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Iterator

import pytest

from sidecar.runtime.early_log import UntilLogged
from sidecar.telemetry.log_lines import Level
from sidecar.telemetry.process_log import MAX_ERROR, MAX_STACK, ProcessLog

LIBRARY = logging.getLogger("some.library")
Line = tuple[Level, str, str, dict[str, object]]


class Events:
    """In the place of the log."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def event(self, level: Level, kind: str, message: str, fields: dict[str, object], at: float) -> None:
        self.lines.append((level, kind, message, fields))


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    events = Events()
    log = ProcessLog(events)  # type: ignore[arg-type]
    log.attach()
    yield events.lines
    log.detach()
    LIBRARY.error("nobody hears this")
    assert "nobody hears this" not in [message for _, _, message, _ in events.lines]


def test_a_librarys_warning_is_a_line(lines: list[Line]) -> None:
    LIBRARY.warning("disk %s is odd", "sda")
    assert lines == [(Level.WARNING, "process.log", "disk sda is odd", {"logger": "some.library"})]


def test_an_exception_is_told_with_its_text_and_where_it_was_raised(lines: list[Line]) -> None:
    try:
        raise ValueError("x" * 10_000)
    except ValueError:
        LIBRARY.exception("it failed")
    ((level, _, message, fields),) = lines
    assert level is Level.ERROR
    assert message.startswith("it failed: ValueError: xxx")
    assert len(str(fields["error"])) == MAX_ERROR
    assert len(str(fields["stack"])) == MAX_STACK


async def test_what_breaks_in_a_callback_of_the_loop_is_one_line(lines: list[Line]) -> None:
    def broken() -> None:
        raise KeyError("route")

    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(None)
    loop.call_soon(broken)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    loop.set_exception_handler(before)
    ((level, _, message, fields),) = lines
    assert level is Level.ERROR
    assert "KeyError: 'route'" in message
    assert "\n" not in message
    assert "in broken" in str(fields["stack"])


def test_warnings_of_the_interpreter_are_lines_where_they_are_captured(lines: list[Line]) -> None:
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("this will go away", FutureWarning, stacklevel=1)
    finally:
        logging.captureWarnings(False)
    # The collector may find something unclosed of another test meanwhile, which is a warning too.
    ((level, _, _, fields),) = [line for line in lines if "FutureWarning: this will go away" in line[2]]
    assert (level, fields["logger"]) == (Level.WARNING, "py.warnings")


def test_standard_error_has_it_only_while_there_is_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    early = UntilLogged()
    LIBRARY.addHandler(early)
    log = ProcessLog(Events())  # type: ignore[arg-type]
    try:
        LIBRARY.warning("before")
        log.attach()
        LIBRARY.warning("meanwhile")
        log.detach()
        LIBRARY.warning("after")
    finally:
        LIBRARY.removeHandler(early)
        log.detach()
    assert capsys.readouterr().err.split() == ["before", "after"]


def test_a_record_that_cannot_be_told_does_not_break_who_logs_it(
    lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    LIBRARY.handle(logging.LogRecord("some.library", logging.WARNING, "f.py", 1, "%d", ("no number",), None))
    LIBRARY.warning("and on")
    assert [message for _, _, message, _ in lines] == ["and on"]
