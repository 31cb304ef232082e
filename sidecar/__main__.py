"""The command `sidecar`: one sub-command a file in `cli/`, imported only when it is called.

`sidecar run FILE` and `sidecar run`, as containers call it, are read without `argparse`: it and what it imports would
stay in the memory of a process that serves.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, TextIO

from sidecar.cli import early_signals

if TYPE_CHECKING:
    import argparse

INTERRUPTED = 130
"""128 and SIGINT, as shells have it."""
BROKEN_PIPE = 141
"""128 and SIGPIPE."""
UNWRITTEN = 74
"""EX_IOERR of sysexits.h."""
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Commands that write files tell themselves when they cannot; what is left comes from their output."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done, 1 the thing checked says no, 2 wrong use or a bad configuration, 74 when the output cannot be written,
        130 for Ctrl-C, 141 when nobody reads the output to its end, as in `sidecar schema | head`.
    """
    if sys.stdout is None:  # it was closed at the start
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            # Here, since what the interpreter finds at its end it can only complain of.
            for stream in _streams():
                stream.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _let_go()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in _OF_WRITING or error.filename is not None:
            raise
        _let_go()
        with contextlib.suppress(OSError):  # it is what could not be written to
            print(f"sidecar: the output cannot be written: {error.strerror}", file=sys.stderr)
        return UNWRITTEN


def _streams() -> list[TextIO]:
    """Where commands write to. What was closed at the start is not there."""
    return [one for one in (sys.stdout, sys.stderr) if one is not None]


def _let_go() -> None:
    """Have what could not be written go nowhere, at the end of the interpreter too."""
    for stream in _streams():
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(words: list[str]) -> int:
    if words[:1] == ["run"] and not any(word.startswith("-") for word in words[1:]) and len(words) <= 2:
        early_signals.hold()
        return _called(SimpleNamespace(command="run", file=words[1] if len(words) == 2 else None))
    with early_signals.interrupts_wait():
        # Not on top, where nothing heeds Ctrl-C yet.
        from sidecar.cli.commands import COMMANDS, parser_of, unknown
    name = next((word for word in words if not word.startswith("-")), "")  # the flags before it take no value
    if name in early_signals.COMMANDS:
        early_signals.hold()
    if name and name not in COMMANDS:
        print(unknown(name), file=sys.stderr)
        return 2
    with early_signals.interrupts_wait():
        parser, _ = parser_of(*([name] if name in COMMANDS else []))
    return _called(parser.parse_args(words))


def _called(options: argparse.Namespace | SimpleNamespace) -> int:
    with early_signals.interrupts_wait():
        command = importlib.import_module(f"sidecar.cli.{options.command}")
    code: int = command.main(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
