"""Colours and pagers: in a terminal, and where there is none. Terminals are real ones (pty(7))."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from sidecar.terminal.colours import is_coloured
from sidecar.terminal.pager import command_of
from tests.cli.conftest import Scene

pytestmark = pytest.mark.process

COLOUR = b"\x1b[32m"
"""Green, of what is ready."""
MARK = "sed 's/^/paged: /'"


def environ(**more: str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "TERM": "xterm", "LC_ALL": "C.UTF-8", **more}


def in_terminal(words: list[str], lines: int = 24, code: int = 0, **more: str) -> bytes:
    """What a terminal of 80 columns shows of a command."""
    mine, its = os.openpty()
    ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", lines, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", *words], stdin=its, stdout=its, stderr=its, env=environ(**more)
    )
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while piece := os.read(mine, 65536):
            shown += piece
    os.close(mine)
    assert process.wait() == code
    return shown.replace(b"\r\n", b"\n")


def in_pipe(words: list[str], **more: str) -> bytes:
    command = [sys.executable, "-m", "sidecar", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environ(**more)).stdout


@pytest.mark.parametrize(
    ("told", "in_a_terminal", "elsewhere"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"NO_COLOR": "0", "CLICOLOR_FORCE": "1"}, False, False),
        ({"CLICOLOR_FORCE": "1"}, True, True),
        ({"CLICOLOR_FORCE": "0"}, True, False),
        ({"FORCE_COLOR": "1", "CLICOLOR": "0"}, True, True),
        ({"CLICOLOR": "0"}, False, False),
        ({"CLICOLOR": "1"}, True, False),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_the_environment_decides(told: dict[str, str], in_a_terminal: bool, elsewhere: bool) -> None:
    assert is_coloured(told, is_terminal=True) is in_a_terminal
    assert is_coloured(told, is_terminal=False) is elsewhere


def test_a_terminal_gets_colours_unless_told_otherwise(scene: Scene) -> None:
    words = ["status", "--no-pager", "--admin", scene.admin]
    assert COLOUR in in_terminal(words)
    without = in_terminal(words, NO_COLOR="1")
    assert b"\x1b[3" not in without
    assert b"ready" in without


def test_a_pipe_gets_none_unless_told_otherwise(scene: Scene) -> None:
    words = ["status", "--admin", scene.admin]
    assert b"\x1b" not in in_pipe(words)
    assert COLOUR in in_pipe(words, CLICOLOR_FORCE="1")


def test_the_pager_sees_what_a_terminal_would(scene: Scene) -> None:
    shown = in_terminal(["status", "--admin", scene.admin], lines=4, PAGER=MARK)
    assert shown.startswith(b"paged: ")
    assert COLOUR in shown


def test_long_output_goes_by_the_pager_and_short_output_does_not() -> None:
    words = ["help", "exit-codes"]
    long, short = in_terminal(words, PAGER=MARK), in_terminal(words, lines=200, PAGER=MARK)
    assert long.startswith(b"paged: Exit codes")
    assert short.startswith(b"Exit codes")
    assert long.replace(b"paged: ", b"") == short


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (["help", "exit-codes", "--no-pager"], {"PAGER": MARK}),
        (["--no-pager", "help", "exit-codes"], {"PAGER": MARK}),
        (["help", "exit-codes"], {"PAGER": MARK, "SIDECAR_PAGER": ""}),
        (["help", "exit-codes"], {"PAGER": "cat"}),
        (["help", "exit-codes"], {"PAGER": MARK, "TERM": "dumb"}),
    ],
    ids=["flag", "flag-before", "empty", "cat", "dumb"],
)
def test_there_is_none_where_it_is_not_wanted(words: list[str], more: dict[str, str]) -> None:
    assert in_terminal(words, **more).startswith(b"Exit codes")


def test_a_pipe_has_no_pager() -> None:
    assert in_pipe(["help", "exit-codes"], PAGER=MARK).startswith(b"Exit codes")


def test_one_that_is_not_there_leaves_the_output(tmp_path: Path) -> None:
    shown = in_terminal(["help", "exit-codes"], PAGER=str(tmp_path / "none"))
    assert b"not found" in shown
    assert b"\nExit codes" in shown


def test_who_leaves_the_pager_early_has_read_enough() -> None:
    """The output is longer than a pipe holds, and the exit code is that of the command."""
    assert in_terminal(["schema"], PAGER="head -n 1") == b"{\n"
    assert in_terminal(["help", "exit-codes"], PAGER="true") == b""


def test_ctrl_c_is_the_pagers(tmp_path: Path) -> None:
    """As in less, where it ends a search: the command waits for it."""
    pager = tmp_path / "pager"
    pager.write_text("trap 'echo heard; exit 0' INT\ncat > /dev/null\nkill -INT $PPID\nkill -INT $$\n")
    assert in_terminal(["help", "exit-codes"], PAGER=f"sh {pager}") == b"heard\n"


def test_which_pager() -> None:
    assert command_of({"SIDECAR_PAGER": "a", "PAGER": "b"}) == "a"
    assert command_of({"PAGER": "b -x"}) == "b -x"
    assert command_of({"SIDECAR_PAGER": " ", "PAGER": "b"}) == ""
    assert command_of({}) in ("less", "more", "")
