"""The command `sidecar`: one sub-command a file in `cli/`, imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from sidecar.cli import early_signals
from sidecar.cli.commands import COMMANDS, parser_of, unknown

INTERRUPTED = 130
"""128 and SIGINT, as shells have it."""
BROKEN_PIPE = 141
"""128 and SIGPIPE."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done, 1 the thing checked says no, 2 wrong use or a bad configuration, 130 for Ctrl-C, 141 when nobody reads
        the output to its end, as in `sidecar schema | head`.
    """
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()  # here, since what the interpreter finds at its end it can only complain of
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


def _run(words: list[str]) -> int:
    name = words[0] if words else ""
    if name in early_signals.COMMANDS:
        early_signals.hold()
    if name and name not in COMMANDS and not name.startswith("-"):
        print(unknown(name), file=sys.stderr)
        return 2
    parser, _ = parser_of(*([name] if name in COMMANDS else []))
    options = parser.parse_args(words)
    code: int = importlib.import_module(f"sidecar.cli.{options.command}").main(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
