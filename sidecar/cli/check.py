"""`sidecar check FILE…`: is each of these files (or directories) a configuration that would be taken?"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

from sidecar.cli.as_json import add_json, print_object
from sidecar.cli.served_names import uncovered_hosts
from sidecar.cli.service_addresses import virtual_addresses
from sidecar.cli.tls_files import Finding, findings
from sidecar.config.load import ConfigError, load_file
from sidecar.config.problems import Problem
from sidecar.core.dataclass import dataclass

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
    add_json(parser)


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of one file or directory."""

    file: str
    problems: tuple[Problem, ...] = ()
    """It is not taken; nothing else was looked at."""
    warnings: tuple[Problem, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def is_good(self) -> bool:
        """It would be taken."""
        return not self.problems and all(one.is_warning for one in self.findings)

    def exit_code(self, *, is_strict: bool) -> int:
        if not self.is_good:
            return EXIT_BAD
        is_warned = self.findings or not all(one.is_advice for one in self.warnings)
        return EXIT_WARNED if is_strict and is_warned else 0


def main(options: argparse.Namespace) -> int:
    """Check each file with this process's environment; 0 when all are good, else 2; 1 for a warning if it is strict.

    A good one prints `FILE: ok` on stdout, and on stderr what is rarely meant, as a warning or as advice. A bad one
    prints every problem, with its line, on stderr. The files of its TLS are looked at too, if they are there; inside
    a cluster, so are the names of upstreams. With `--json` all of it is on stdout.
    """
    is_strict, all_checked = options.strict, []
    for file in options.files:
        checked = _checked(file, is_strict=is_strict)
        all_checked.append(checked)
        if not options.json:
            _tell(checked, is_strict=is_strict)
    if options.json:
        print_object({"files": [_as_data(checked) for checked in all_checked]})
    return max(checked.exit_code(is_strict=is_strict) for checked in all_checked)


def _checked(file: str, *, is_strict: bool) -> Checked:
    try:
        loaded = load_file(file, is_strict=is_strict)
    except ConfigError as error:
        return Checked(file, error.problems)
    snapshot = loaded.snapshot
    found = (*findings(snapshot), *uncovered_hosts(snapshot), *virtual_addresses(snapshot, os.environ))
    return Checked(file, (), loaded.warnings, found)


def _tell(checked: Checked, *, is_strict: bool) -> None:
    for one in (*checked.problems, *checked.warnings):
        print(one, file=sys.stderr)
    for found in checked.findings:
        print(f"{checked.file}: {found}", file=sys.stderr)
    if checked.exit_code(is_strict=is_strict) == 0:
        print(f"{checked.file}: ok")


def _as_data(checked: Checked) -> dict[str, Any]:
    return {"file": checked.file, "is_good": checked.is_good, "problems": list(_problems(checked))}


def _problems(checked: Checked) -> Iterator[dict[str, Any]]:
    """Those with a place in a file, then those of a key."""
    for usual, problems in (("error", checked.problems), ("warning", checked.warnings)):
        for one in problems:
            severity = "advice" if one.is_advice else usual
            place = {"file": one.file, "line": one.line, "column": one.column, "key": None}
            yield {"severity": severity, **place, "message": one.message.removeprefix(f"{severity}: ")}
    for found in checked.findings:
        place = {"file": checked.file, "line": None, "column": None, "key": found.key}
        yield {"severity": "warning" if found.is_warning else "error", **place, "message": found.text}
