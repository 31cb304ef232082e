"""What `sidecar demo` says of itself."""

from __future__ import annotations

import argparse

from sidecar.cli import demo


def test_the_help_says_what_goes_on_while_it_serves() -> None:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    told = " ".join(parser.format_help().split())
    assert (
        "--serve the story once, then stay until Ctrl-C, with the dashboard's address: clients keep calling, and an "
        "upstream is not always well"
    ) in told
