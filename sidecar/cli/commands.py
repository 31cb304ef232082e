"""The commands that there are, and their parsers. Called by `__main__`, by help and by completion.

A command is a file of this folder, imported only when it is called: one of them needs half a second to be imported,
another a tenth of it. Such a file has `add_arguments(parser)` and `main(options)`, which returns the exit code.
"""

from __future__ import annotations

import argparse
import difflib
import importlib

COMMANDS = {
    "run": "run the proxy until it is told to stop",
    "init": "write a configuration to begin with",
    "check": "validate configuration files",
    "explain": "which route takes a request, and why; every limit and where it comes from",
    "diff": "what a reload would change, and which breakers keep their state",
    "import": "routes of Gateway API, Istio or resilience4j as a configuration of the sidecar",
    "certs": "a small CA and certificates, for development alone",
    "schema": "the JSON Schema of the configuration file, for editors",
    "status": "routes, breakers, upstreams and rates of a running sidecar",
    "tap": "requests of a running sidecar as they end, a line each",
    "breaker": "override the breakers of a route of a running sidecar",
    "healthcheck": "does a running sidecar pass its probe? For containers' health checks and hooks",
    "drain": "tell a running sidecar that its end is near. For preStop hooks",
    "demo": "three services, their sidecars, faults, and what comes of them, live",
    "inject": "put the sidecar into Kubernetes YAML",
    "intercept": "send a pod's connections through its sidecar, by rules of the kernel",
    "webhook": "serve the admission webhook that injects the sidecar",
    "completion": "a script for bash, zsh or fish that completes commands and options",
    "help": "what a command does, and its options",
}


class _Version(argparse.Action):
    """Prints the version of what is installed, which takes a moment to find, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from sidecar.core.installed import version

        print(f"sidecar {version()}")
        parser.exit()


def parser_of(*with_arguments: str) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the whole command line, and that of each command; only those named know their own arguments."""
    whole = argparse.ArgumentParser(
        prog="sidecar",
        description="A reverse proxy beside your service, with a circuit breaker for each route.",
    )
    whole.add_argument("--version", nargs=0, action=_Version, help="show the version and exit")
    group = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {name: group.add_parser(name, help=what, description=what) for name, what in COMMANDS.items()}
    for name in with_arguments:
        importlib.import_module(f"sidecar.cli.{name}").add_arguments(parsers[name])
    return whole, parsers


def unknown(word: str) -> str:
    """What to say to somebody who asks for a command that there is not."""
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else "."
    return f"sidecar: there is no command {word!r}{meant} `sidecar help` lists them"
