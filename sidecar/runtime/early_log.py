"""Where `logging` writes to while there is no event log: standard error, and nothing is told twice."""

from __future__ import annotations

import logging
import sys

from sidecar.telemetry.process_log import ProcessLog


class UntilLogged(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to standard error until a `ProcessLog` is there."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        if not any(isinstance(handler, ProcessLog) for handler in logging.getLogger().handlers):
            super().emit(record)
