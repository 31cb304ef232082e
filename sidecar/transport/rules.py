"""Writes the rules of an interception to the kernel, and takes them out again, by the program that is here.

Needs the capabilities NET_ADMIN and NET_RAW. IPv6 is left out where there is none.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import socket
import struct
from collections.abc import Iterable
from types import ModuleType
from typing import Final

from sidecar.core.interception import TO_POD, Interception
from sidecar.transport import iptables, nft
from sidecar.transport.namespace import has_ipv6
from sidecar.transport.rule_programs import RulesFailed, is_installed

_SIOCSIFADDR: Final = 0x8916
_IN6_IFREQ: Final = struct.Struct("16sIi")
"""struct in6_ifreq (linux/ipv6.h): address, length of its prefix, index of the interface."""


class Program(enum.Enum):
    """What writes the rules."""

    IPTABLES = "iptables"
    NFT = "nft"


_BY: Final = {Program.IPTABLES: iptables, Program.NFT: nft}


def installed(wanted: Program | None = None) -> list[Program]:
    """`wanted` alone, or else what is installed here, in the order in which it is tried.

    Raises:
        RulesFailed: neither is installed.
    """
    if wanted is not None:
        return [wanted]
    found = [one for one in Program if is_installed(one.value)]
    if not found:
        raise RulesFailed(
            "neither iptables nor nft is installed here: use the image `sidecar-init`, which has both"
        )
    return found


def versions() -> tuple[int, ...]:
    """The families that this network namespace has."""
    return (4, 6) if has_ipv6() else (4,)


def write(one: Interception, wanted: Program | None = None) -> None:
    """Have connections intercepted. A second time changes nothing.

    Without `wanted` by iptables, and by nft where that is not installed or the kernel does not take it. Rules that
    the other program has written go, since they would still be obeyed.

    Raises:
        RulesFailed: they cannot be written.
    """
    programs = installed(wanted)
    for program in programs:
        try:
            _write_by(_BY[program], one)
        except RulesFailed:
            if program is programs[-1]:
                raise
        else:
            _remove_by([by for other, by in _BY.items() if other is not program])
            return


def remove() -> None:
    """Have nothing intercepted any more, whichever program wrote the rules. Does nothing where nothing was.

    Raises:
        RulesFailed: they cannot be taken out.
    """
    installed()
    _remove_by(_BY.values())


def told(one: Interception, wanted: Program | None = None) -> str:
    """What `write` would do, for people. Raises: RulesFailed, where nothing could write them."""
    by = _BY[installed(wanted)[0]]
    return "\n\n".join(by.told(one, version) for version in versions())


def _write_by(by: ModuleType, one: Interception) -> None:
    for version in versions():
        if version == 6:
            _add_address(TO_POD[6])
        by.write(one, version)


def _remove_by(those: Iterable[ModuleType]) -> None:
    for by in those:
        for version in versions():
            if by.is_there(version):
                by.remove(version)


def _add_address(address: str) -> None:
    """To loopback, where IPv6 has one address alone (127.0.0.0/8 is there as a whole)."""
    request = _IN6_IFREQ.pack(socket.inet_pton(socket.AF_INET6, address), 128, socket.if_nametoindex("lo"))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, _SIOCSIFADDR, request)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise RulesFailed(
                    f"{address} cannot be given to loopback: {error}; it needs the capability NET_ADMIN"
                ) from error
