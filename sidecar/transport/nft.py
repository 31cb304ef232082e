"""Writes the rules of an interception by nft(8): each family's in one transaction."""

from __future__ import annotations

from typing import Final

from sidecar.core.interception import Interception
from sidecar.core.interception_nft import nft_name, nft_removed, nft_table
from sidecar.transport.rule_programs import is_installed, run, tried

PROGRAM: Final = "nft"
_READ: Final = [PROGRAM, "-f", "-"]


def write(one: Interception, version: int) -> None:
    """Have connections of one family (4 or 6) intercepted. Raises: RulesFailed."""
    run(_READ, nft_table(one, version))


def is_there(version: int) -> bool:
    """Whether rules of one family are there; not where the program or the kernel's part of it is missing."""
    return is_installed(PROGRAM) and tried([PROGRAM, "list", "table", *nft_name(version)]).returncode == 0


def remove(version: int) -> None:
    """Take the rules of one family out. Raises: RulesFailed."""
    run(_READ, nft_removed(version))


def told(one: Interception, version: int) -> str:
    """What `write` would do, for people."""
    return f"# {' '.join(_READ)}\n{nft_table(one, version)}"
