"""What an error lets go of that outlives what failed.

The frames of a traceback hold all that was at hand there: a request, a transport, and mostly the very thing that
keeps the error. Such a cycle waits for a full collection, and where a reload freezes it before (`runtime/memory.py`),
it stays for good.
"""

from __future__ import annotations


def drop_tracebacks(error: BaseException | None) -> None:
    """That of `error` and of those behind it; what it says stays. Does nothing for None."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
