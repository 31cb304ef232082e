"""`sidecar schema`: the JSON Schema of the configuration file, for editors; or the same as a page to read."""

from __future__ import annotations

import argparse
import sys

from sidecar.config.tell.json_schema import schema_text
from sidecar.config.tell.reference import reference_text
from sidecar.terminal import pager


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """In which form."""
    parser.add_argument("--markdown", action="store_true", help="as a page with every key, for people")
    pager.add_no_pager(parser)


def main(options: argparse.Namespace) -> int:
    """Print it. An editor finds it by a first line `# yaml-language-server: $schema=FILE-OR-URL`."""
    with pager.paged(options):
        sys.stdout.write(reference_text() if options.markdown else schema_text())
    return 0
