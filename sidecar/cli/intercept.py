"""`sidecar intercept`: send a pod's connections through its sidecar, by rules of the kernel.

For an init container (`sidecar inject --intercept` adds it): it writes the rules and ends. They are there for as long
as the pod's network.
"""

from __future__ import annotations

import argparse
import sys

from sidecar.core.interception import SKIPPED_CIDRS, UID, Interception
from sidecar.transport import rules
from sidecar.transport.rule_programs import RulesFailed
from sidecar.transport.rules import Program

_BUILT_IN = Interception()
EPILOG = """\
Left out are always: what the sidecar itself sends (by its uid), loopback and the pod's own addresses, UDP, TCP port
53, and the port of the probes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is intercepted."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    act = parser.add_mutually_exclusive_group()
    act.add_argument("--dry-run", action="store_true", help="show the rules, and change nothing")
    act.add_argument("--remove", action="store_true", help="take the rules out again")
    parser.add_argument(
        "--by",
        choices=[one.value for one in Program],
        help="what writes them; default: iptables, and nft where that is missing or fails",
    )
    parser.add_argument(
        "--uid", type=int, default=UID, help="the sidecar's, which nobody else may have; default: %(default)s"
    )
    for name, port in (
        ("inbound", _BUILT_IN.inbound_port),
        ("outbound", _BUILT_IN.outbound_port),
        ("probes", _BUILT_IN.probes_port),
    ):
        parser.add_argument(
            f"--{name}-port", type=int, default=port, metavar="PORT", help="default: %(default)s"
        )
    for name, what in (
        ("inbound", "the pod's, at which callers reach the app without the sidecar"),
        ("outbound", "others', which the app reaches without the sidecar"),
    ):
        parser.add_argument(f"--skip-{name}-ports", type=_ports, default=(), metavar="PORT,…", help=what)
    parser.add_argument(
        "--skip-outbound-cidrs",
        type=_words,
        default=SKIPPED_CIDRS,
        metavar="NETWORK,…",
        help="networks that the app reaches without the sidecar; default: link-local and metadata addresses "
        f"({','.join(SKIPPED_CIDRS)})",
    )


def main(options: argparse.Namespace) -> int:
    """Write, show or remove the rules."""
    by = None if options.by is None else Program(options.by)
    try:
        wanted = Interception(
            options.uid,
            options.inbound_port,
            options.outbound_port,
            options.probes_port,
            options.skip_inbound_ports,
            options.skip_outbound_ports,
            options.skip_outbound_cidrs,
        )
    except ValueError as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return 2
    try:
        if options.dry_run:
            print(rules.told(wanted, by))
        elif options.remove:
            rules.remove()
        else:
            rules.write(wanted, by)
    except RulesFailed as failed:
        print(f"sidecar: {failed}", file=sys.stderr)
        return 1
    return 0


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _ports(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _words(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of ports such as 3306,6379") from None
