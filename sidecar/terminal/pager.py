"""Long output of a command goes through a pager, where a person sees it: as git and systemctl do.

`SIDECAR_PAGER`, else `PAGER`, else less, else more; an empty one or `cat` is none. Only where stdout is a terminal
that is not dumb, and only for what is higher than that: the rest is printed as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Final

NAMES: Final = ("SIDECAR_PAGER", "PAGER")
_USUAL: Final = ("less", "more")
_LESS: Final = "FRX"
"""Ends at what fits, passes colours on, leaves the text there: what git gives to less where `LESS` says nothing."""
_NOT_FOUND: Final = 127
"""Of a shell that has found no such program."""


class _Held(io.StringIO):
    """Stands for a terminal while a command prints, so that it prints as to one."""

    def isatty(self) -> bool:
        return True


def add_no_pager(parser: argparse.ArgumentParser) -> None:
    """The flag of a command; that before the command's name does the same."""
    parser.add_argument(
        "--no-pager",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print long output at once, instead of by $SIDECAR_PAGER, else $PAGER",
    )


def command_of(environ: Mapping[str, str]) -> str:
    """The pager as a line for the shell; empty for none."""
    for name in NAMES:
        if name in environ:
            return "" if environ[name].strip() in ("", "cat") else environ[name]
    return next((name for name in _USUAL if shutil.which(name) is not None), "")


@contextlib.contextmanager
def paged(options: argparse.Namespace) -> Iterator[None]:
    """What is printed within goes by the pager, once it is whole.

    Ctrl-C is the pager's while it runs. Who leaves it early has read enough: that is no error.
    """
    pager = command_of(os.environ)
    is_dumb = os.environ.get("TERM", "dumb") == "dumb"
    if not pager or is_dumb or options.no_pager or not sys.stdout.isatty():
        yield
        return
    held = _Held()
    try:
        with contextlib.redirect_stdout(held):
            yield
    finally:
        text = held.getvalue()
        if not _is_longer(text) or _show(pager, text) == _NOT_FOUND:
            sys.stdout.write(text)


def _is_longer(text: str) -> bool:
    """Than the terminal is high, with the line for what is typed next."""
    columns, lines = shutil.get_terminal_size()
    height = sum(max(1, -(-len(line) // columns)) for line in text.splitlines())
    return height >= lines


def _show(pager: str, text: str) -> int:
    """Its exit code."""
    environ = {"LESS": _LESS, "LV": "-c", **os.environ}
    process = subprocess.Popen(["/bin/sh", "-c", pager], stdin=subprocess.PIPE, env=environ)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(text.encode(errors="replace"))
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
