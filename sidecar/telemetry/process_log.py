"""Brings what libraries, and parts of the sidecar itself, log by `logging` into the event log.

An exception in a callback of the loop, a part that crashed, or a warning of a library would else stand on standard
error, as text of several lines that no reader of JSON lines understands. Before there is an event log, it still does.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping
from typing import Any, Protocol

from sidecar.telemetry.log_lines import Level

MAX_ERROR = 500
"""Characters of an exception's text that are told."""
MAX_STACK = 4000
"""Characters of its traceback, the last ones: where it was raised."""


class Events(Protocol):
    """The event log of a process."""

    def event(self, level: Level, kind: str, message: str, fields: Mapping[str, Any], at: float) -> None: ...


def kind(name: str, **fields: object) -> dict[str, object]:
    """What a call of `logging` takes as its `extra`, to be an event of that kind and not a `process.log`."""
    return {"sidecar_kind": name, "sidecar_fields": fields}  # no library's own `extra` has such names


class ProcessLog(logging.Handler):
    """Of one process; on the root logger while there is a log to write to."""

    def __init__(self, log: Events) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def set_level(self, name: str) -> None:
        """Tell only what is at least of this level, by its name in `Level`, in small letters, from now on."""
        self.setLevel(name.upper())

    def attach(self) -> None:
        logging.getLogger().addHandler(self)

    def detach(self) -> None:
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._tell(record)
        except Exception:  # a record that cannot be told must not break who logs it
            self.handleError(record)

    def _tell(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        name = getattr(record, "sidecar_kind", "process.log")
        fields: dict[str, object] = dict(getattr(record, "sidecar_fields", {"logger": record.name}))
        if (error := error_of(record)) is not None:
            told = text_of(error)
            message = message.partition("\n")[0]
            if told not in message:
                message = f"{message}: {told}"
            fields["error"] = told
            fields["stack"] = "".join(traceback.format_exception(error))[-MAX_STACK:]
        self._log.event(level_of(record), name, message[:MAX_STACK], fields, time.monotonic())


def level_of(record: logging.LogRecord) -> Level:
    """The event log's own."""
    if record.levelno >= logging.ERROR:
        return Level.ERROR
    return Level.WARNING if record.levelno >= logging.WARNING else Level.INFO


def error_of(record: logging.LogRecord) -> BaseException | None:
    """The exception that was logged with it."""
    return record.exc_info[1] if record.exc_info else None


def text_of(error: BaseException) -> str:
    """Its kind and what it says: the name of what failed alone would not tell why."""
    return f"{type(error).__name__}: {error}"[:MAX_ERROR]
