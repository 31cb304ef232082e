"""What operators and the system say by signals, each heard once.

The loop's own `add_signal_handler` is not used: uvloop hears of a signal twice over, by a byte in its pipe and by
Python's handler, and takes them for one only if both are there when it looks. Where one of the other threads was
interrupted by the signal, the byte comes later. A SIGTERM right behind a SIGHUP was then a second SIGTERM, which cuts
what is under way.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable


def hear(loop: asyncio.AbstractEventLoop, number: signal.Signals, call: Callable[[], object]) -> None:
    """Have `loop` call this after each such signal, or after several that came together. To be called in the main
    thread, where Python's handlers run."""

    def heard(_number: int, _frame: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(call)

    signal.signal(number, heard)
