"""`sidecar version`: of what is installed, and whether its data path is compiled."""

from __future__ import annotations

import argparse
import platform

from sidecar.cli.as_json import add_json, print_object
from sidecar.core.contract import BUILD
from sidecar.core.installed import version


def version_text() -> str:
    """Such as `sidecar 0.1.0 (plain)`. To find it takes a moment."""
    return f"sidecar {version()} ({BUILD})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """In which form."""
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    """Print it."""
    if options.json:
        print_object({"version": version(), "build": BUILD, "python": platform.python_version()})
    else:
        print(version_text())
    return 0
