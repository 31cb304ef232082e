"""`sidecar man DIR`: the pages of the manual, of the program and of each command, from their parsers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sidecar.cli.commands import COMMANDS, parser_of
from sidecar.cli.man_page import pages
from sidecar.core.installed import version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to."""
    parser.add_argument("directory", metavar="DIR", help="is made if it is not there; such as share/man/man1")


def main(options: argparse.Namespace) -> int:
    """Write them; 1 if that cannot be done."""
    directory = Path(options.directory)
    _, parsers = parser_of(*COMMANDS, has_exit_codes=False)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in pages(version(), parsers):
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"sidecar: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0
