"""Starts loading processes: that of a `sidecar run` before this process has imported what a `Loader` takes.

By the standard library and not by the loop: uvloop forks, which copies the tables of all memory while nobody is
served (30 ms in a process of 300 MiB, where this takes 0.7), and where files run out it keeps what it has opened.
"""

from __future__ import annotations

import subprocess
from typing import Final

from sidecar.core.program import command

PROGRAM: Final = "sidecar.runtime.loading"


def started(niceness: int) -> subprocess.Popen[bytes]:
    """Such a process, at any time. `niceness` is added to that of who starts it. Raises: OSError."""
    words = command(PROGRAM, str(niceness))
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)


def start() -> subprocess.Popen[bytes] | None:
    """The process, for a `Loader` to take over. None if it cannot be started: the `Loader` tries again, and says why.

    Nothing is served yet, so it has this process's own niceness.
    """
    try:
        return started(niceness=0)
    except OSError:
        return None
