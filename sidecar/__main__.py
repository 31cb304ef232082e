"""The command `sidecar`: one sub-command a file in `cli/`, imported only when it is called.

Such a file has `add_arguments(parser)` and `main(options)`, which returns the exit code.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from sidecar.cli import early_signals

COMMANDS = {
    "run": "run the proxy until it is told to stop",
    "check": "validate configuration files",
    "explain": "which route takes a request, and why; every limit and where it comes from",
    "diff": "what a reload would change, and which breakers keep their state",
    "certs": "a small CA and certificates, for development alone",
    "schema": "the JSON Schema of the configuration file, for editors",
    "status": "routes, breakers, upstreams and rates of a running sidecar",
    "breaker": "override the breakers of a route of a running sidecar",
    "healthcheck": "does a running sidecar pass its probe? For containers' health checks and hooks",
    "drain": "tell a running sidecar that its end is near. For preStop hooks",
    "demo": "three services, their sidecars, faults, and what comes of them, live",
    "inject": "put the sidecar into Kubernetes YAML",
    "intercept": "send a pod's connections through its sidecar, by rules of the kernel",
    "webhook": "serve the admission webhook that injects the sidecar",
}


INTERRUPTED = 130
"""128 and SIGINT, as shells have it."""
BROKEN_PIPE = 141
"""128 and SIGPIPE."""


class _Version(argparse.Action):
    """Prints the version of what is installed, which takes a moment to find, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import importlib.metadata

        print(f"sidecar {importlib.metadata.version('sidecar-proxy')}")
        parser.exit()


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
    if words[:1] and words[0] in early_signals.COMMANDS:
        early_signals.hold()
    parser = argparse.ArgumentParser(
        prog="sidecar",
        description="A reverse proxy beside your service, with a circuit breaker for each route.",
    )
    parser.add_argument("--version", nargs=0, action=_Version, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        own = commands.add_parser(name, help=purpose, description=purpose)
        if words[:1] == [name]:
            command = importlib.import_module(f"sidecar.cli.{name}")
            command.add_arguments(own)
    options = parser.parse_args(words)
    code: int = importlib.import_module(f"sidecar.cli.{options.command}").main(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
