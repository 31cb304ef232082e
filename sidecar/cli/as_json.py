"""`--json`, the same for every command that tells something: one object on stdout, or of a stream one a line.

What goes wrong is told in words on stderr, with the exit code that it has without `--json`; stdout is then empty.
Text is ASCII, so that nothing in it turns a terminal's text around or moves its cursor.
"""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_json(parser: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup, stream: str = "") -> None:
    """The flag. `stream`: when there is more than one object, in words for the help."""
    parser.add_argument("--json", action="store_true", help=f"as JSON{f'; {stream}' if stream else ''}")


def print_object(data: dict[str, Any]) -> None:
    """The whole of an answer."""
    print(json.dumps(data, indent=2))


def print_line(data: dict[str, Any]) -> None:
    """One of a stream, which whoever reads it has at once."""
    print(json.dumps(data, separators=(",", ":")), flush=True)
