"""What every bench that starts other programs does around its `main`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType


def say(text: str) -> None:
    """Progress, away from the tables."""
    print(text, file=sys.stderr, flush=True)


def unwind_on_sigterm() -> None:
    """SIGTERM unwinds like an error, so everything started is ended."""
    signal.signal(signal.SIGTERM, _leave)


def run(main: Callable[[], int]) -> None:
    """Ends the process with the exit code of `main`, 130 where it was interrupted."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
