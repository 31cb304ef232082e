"""Starts the loading process of a `sidecar run`, before this process has imported what a `Loader` takes."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

PROGRAM: Final = "sidecar.runtime.loading"


def command(niceness: int) -> list[str]:
    """Of such a process, at any time. `niceness` is added to that of who starts it."""
    return [sys.executable, "-m", PROGRAM, str(niceness)]


def start() -> subprocess.Popen[bytes] | None:
    """The process, for a `Loader` to take over. None if it cannot be started: the `Loader` tries again, and says why.

    Nothing is served yet, so it has this process's own niceness.
    """
    try:
        return subprocess.Popen(
            command(niceness=0), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
    except OSError:
        return None
