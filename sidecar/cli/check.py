"""`sidecar check FILE…`: is each of these files (or directories) a configuration that would be taken?"""

from __future__ import annotations

import argparse
import sys

from sidecar.cli.served_names import uncovered_hosts
from sidecar.cli.tls_files import findings
from sidecar.config.load import ConfigError, load_file

EXIT_WARNED = 1
EXIT_BAD = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The configurations."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="file or directory")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="warn of shadowed routes, unused upstreams and routes that cannot match too; exit 1 for any warning",
    )


def main(options: argparse.Namespace) -> int:
    """Check each file with this process's environment; 0 when all are good, else 2; 1 for a warning if it is strict.

    A good one prints `FILE: ok` on stdout, and on stderr what is rarely meant, as a warning. A bad one prints every
    problem, with its line, on stderr. The files of its TLS are looked at too, if they are there.
    """
    status = 0
    for file in options.files:
        try:
            loaded = load_file(file, is_strict=options.strict)
        except ConfigError as error:
            print(error, file=sys.stderr)
            status = EXIT_BAD
            continue
        for warning in loaded.warnings:
            print(warning, file=sys.stderr)
        found = [*findings(loaded.snapshot), *uncovered_hosts(loaded.snapshot)]
        for one in found:
            print(f"{file}: {one}", file=sys.stderr)
        if not all(one.is_warning for one in found):
            status = EXIT_BAD
        elif options.strict and (loaded.warnings or found):
            status = status or EXIT_WARNED
        else:
            print(f"{file}: ok")
    return status
