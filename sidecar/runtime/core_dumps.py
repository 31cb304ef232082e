"""Nothing of this process ends up in a file when it crashes: tokens, cookies and bodies of clients are in its memory.

A limit of 0 keeps the kernel from writing a core file. A handler that cores are piped to (`core_pattern`) gets one
whatever the limit says, so the process is marked as not dumpable too; then no other process of its uid, such as the
app beside it, can read its memory either (prctl(2), ptrace(2)).
"""

from __future__ import annotations

import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def forbid() -> None:
    """For this process and, by the limit, for those that it starts; each of them has to mark itself."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
