"""`sidecar schema`: the JSON Schema of the configuration file, for editors."""

from __future__ import annotations

import argparse
import sys

from sidecar.config.schema import schema_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def main(_options: argparse.Namespace) -> int:
    """Print it. An editor finds it by a first line `# yaml-language-server: $schema=FILE-OR-URL`."""
    sys.stdout.write(schema_text())
    return 0
