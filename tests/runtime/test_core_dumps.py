"""No memory of a sidecar ends up in a file, or in another process of its uid."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from sidecar.cli import run
from sidecar.runtime.first_loading import PROGRAM

REPORT = """
import ctypes, resource
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_a_process_that_forbids_them_has_none() -> None:
    program = "from sidecar.runtime import core_dumps; core_dumps.forbid()\n" + REPORT
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "0"]


def test_the_loading_process_forbids_them() -> None:
    """It holds the environment's secrets too; a mark of its own, since a program that is started has lost it."""
    program = (
        "import runpy, sys, sidecar.config.process.program as program\n"
        f"program.main = lambda _: exec({REPORT!r})\n"
        "sys.argv.append('0')\n"
        f"runpy.run_module({PROGRAM!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "0"]


def test_a_sidecar_forbids_them_before_it_reads_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def chosen(*_: object) -> str:
        order.append("chosen")
        raise KeyboardInterrupt

    monkeypatch.setattr(run.core_dumps, "forbid", lambda: order.append("forbid"))
    monkeypatch.setattr(run, "chosen", chosen)
    with pytest.raises(KeyboardInterrupt):
        run.main(argparse.Namespace(file=None))
    assert order == ["forbid", "chosen"]
