"""Threads share their memory, so that each does not keep what it has freed."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from sidecar.cli import serving

THREADS = 6
PROGRAM = f"""
import ctypes, threading
from sidecar.runtime import memory_watch

def hold(begun, end):
    blocks = [bytearray(20_000) for _ in range(50)]
    begun.wait()
    end.wait()

{{before}}
begun, end = threading.Barrier({THREADS} + 1), threading.Event()
threads = [threading.Thread(target=hold, args=(begun, end)) for _ in range({THREADS})]
for one in threads:
    one.start()
begun.wait()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
end.set()
"""
"""Has malloc_info(3) tell of each arena. In the process's map one is known by its begin alone, a multiple of 64 MiB,
which any of the other pieces has by chance once in 16,384 times."""


def arenas(before: str) -> int:
    """How many there are beside the first."""
    program = PROGRAM.replace("{before}", before)
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    return told.count("<heap nr=") - 1


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has one for all anyway")
def test_all_threads_but_the_first_share_an_arena() -> None:
    assert arenas("") > 2
    assert arenas("memory_watch.share_arenas()") <= 1


def test_a_sidecar_does_so_before_it_starts_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def raised() -> None:
        order.append("went on")
        raise SystemExit

    monkeypatch.setattr(serving, "share_arenas", lambda: order.append("shared"))
    monkeypatch.setattr(serving.file_limits, "raised", raised)
    with pytest.raises(SystemExit):
        serving.serve("sidecar.yaml", None)
    assert order == ["shared", "went on"]
