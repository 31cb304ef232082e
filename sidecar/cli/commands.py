"""The commands that there are, and their parsers. Called by `__main__`, by help and by completion.

A command is a file of this folder, imported only when it is called: one of them needs half a second to be imported,
another a tenth of it. Such a file has `add_arguments(parser)` and `main(options)`, which returns the exit code.
"""

from __future__ import annotations

import argparse
import importlib
import textwrap

from sidecar.cli import exit_codes

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
    "tune": "which policy of a route's breaker would have done better, by what was seen",
    "breaker": "override the breakers of a route of a running sidecar",
    "healthcheck": "does a running sidecar pass its probe? For containers' health checks and hooks",
    "drain": "tell a running sidecar that its end is near. For preStop hooks",
    "demo": "three services, their sidecars, faults, and what comes of them, live",
    "inject": "put the sidecar into Kubernetes YAML",
    "intercept": "send a pod's connections through its sidecar, by rules of the kernel",
    "webhook": "serve the admission webhook that injects the sidecar",
    "completion": "a script for bash, zsh or fish that completes commands and options",
    "man": "pages of the manual, of all commands",
    "version": "the version, and whether this is the plain build or the compiled one",
    "help": "what a command does, and its options",
}


_WIDTH = 78
"""Characters of a line that no formatter breaks."""


class _Version(argparse.Action):
    """Prints the version of what is installed, which takes a moment to find, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from sidecar.cli.version import version_text

        print(version_text())
        parser.exit()


def parser_of(
    *with_arguments: str, has_exit_codes: bool = True
) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the whole command line, and that of each command; only those named know their own arguments.

    `has_exit_codes`: at the end of each help.
    """
    whole = argparse.ArgumentParser(
        prog="sidecar",
        description="A reverse proxy beside your service, with a circuit breaker for each route.",
    )
    whole.add_argument("--version", nargs=0, action=_Version, help="show the version and exit")
    whole.add_argument("--no-pager", action="store_true", help="print long output at once, without a pager")
    group = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {name: group.add_parser(name, help=what, description=what) for name, what in COMMANDS.items()}
    for name in with_arguments:
        importlib.import_module(f"sidecar.cli.{name}").add_arguments(parsers[name])
        if has_exit_codes:
            _add_exit_codes(name, parsers[name])
    return whole, parsers


def _add_exit_codes(name: str, parser: argparse.ArgumentParser) -> None:
    """At the end of its help. Some helps are taken as they are, so the lines are broken here."""
    told = exit_codes.told_of(name)
    if parser.formatter_class is argparse.RawDescriptionHelpFormatter:
        told = textwrap.fill(told, _WIDTH)
    parser.epilog = f"{parser.epilog}\n\n{told}" if parser.epilog else told


def unknown(word: str) -> str:
    """What to say to somebody who asks for a command that there is not."""
    import difflib

    near = difflib.get_close_matches(word, COMMANDS, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else "."
    return f"sidecar: there is no command {word!r}{meant} `sidecar help` lists them"
