"""Writes the rules of an interception by iptables(8) and iptables-restore(8), of which each family has its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.core.interception import INBOUND_CHAIN, OUTBOUND_CHAIN, Interception, jumps, removed, restored
from sidecar.transport.rule_programs import is_installed, run, tried

PROGRAMS: Final = {4: "iptables", 6: "ip6tables"}
WAIT_SECONDS: Final = 10
"""For the lock that programs of this kind share."""


def write(one: Interception, version: int) -> None:
    """Have connections of one family (4 or 6) intercepted. Raises: RulesFailed."""
    run(_restore(version), restored(one, version))
    for rule in jumps():
        if not _leads_there(version, rule):
            run([PROGRAMS[version], *_table(), "-A", *rule])


def is_there(version: int) -> bool:
    """Whether rules of one family are there; not where the program or the kernel's part of it is missing."""
    program = PROGRAMS[version]
    return is_installed(program) and tried([program, *_table(), "-S", INBOUND_CHAIN]).returncode == 0


def remove(version: int) -> None:
    """Take the rules of one family out. Raises: RulesFailed."""
    for rule in jumps():
        while _leads_there(version, rule):
            run([PROGRAMS[version], *_table(), "-D", *rule])
    run(_restore(version), removed())
    for chain in (INBOUND_CHAIN, OUTBOUND_CHAIN):
        run([PROGRAMS[version], *_table(), "-X", chain])


def told(one: Interception, version: int) -> str:
    """What `write` would do, for people."""
    lines = [f"# {' '.join(_restore(version))}", restored(one, version).rstrip()]
    lines += [f"{PROGRAMS[version]} -t nat -A {' '.join(rule)}" for rule in jumps()]
    return "\n".join(lines)


def _restore(version: int) -> list[str]:
    return [f"{PROGRAMS[version]}-restore", "-w", str(WAIT_SECONDS), "--noflush"]


def _table() -> list[str]:
    return ["-w", str(WAIT_SECONDS), "-t", "nat"]


def _leads_there(version: int, rule: Sequence[str]) -> bool:
    """Asked of a chain that does not exist, iptables says no as well."""
    return tried([PROGRAMS[version], *_table(), "-C", *rule]).returncode == 0
