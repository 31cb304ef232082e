"""Writes the rules of an interception to the kernel, and takes them out again (iptables(8), iptables-restore(8)).

Needs the capabilities NET_ADMIN and NET_RAW. Each family has a program of its own; IPv6 is left out where there is
none.
"""

from __future__ import annotations

import errno
import fcntl
import shutil
import socket
import struct
import subprocess
from collections.abc import Sequence
from typing import Final

from sidecar.core.interception import (
    INBOUND_CHAIN,
    OUTBOUND_CHAIN,
    TO_POD,
    Interception,
    jumps,
    removed,
    restored,
)
from sidecar.transport.namespace import has_ipv6

PROGRAMS: Final = {4: "iptables", 6: "ip6tables"}
WAIT_SECONDS: Final = 10
"""For the lock that programs of this kind share."""
RUN_SECONDS: Final = 30.0
_SIOCSIFADDR: Final = 0x8916
_IN6_IFREQ: Final = struct.Struct("16sIi")
"""struct in6_ifreq (linux/ipv6.h): address, length of its prefix, index of the interface."""


class RulesFailed(Exception):
    """They could not be written; the text says why and what to do."""


def versions() -> tuple[int, ...]:
    """The families that this network namespace has."""
    return (4, 6) if has_ipv6() else (4,)


def write(one: Interception) -> None:
    """Have connections intercepted. A second time changes nothing.

    Raises:
        RulesFailed: they cannot be written.
    """
    for version in versions():
        if version == 6:
            _add_address(TO_POD[6])
        _run([f"{PROGRAMS[version]}-restore", "--noflush"], restored(one, version))
        for rule in jumps():
            if not _is_there(version, rule):
                _run([PROGRAMS[version], *_table(), "-A", *rule])


def remove() -> None:
    """Have nothing intercepted any more. Does nothing where nothing was.

    Raises:
        RulesFailed: they cannot be taken out.
    """
    for version in versions():
        for rule in jumps():
            while _is_there(version, rule):
                _run([PROGRAMS[version], *_table(), "-D", *rule])
        _run([f"{PROGRAMS[version]}-restore", "--noflush"], removed())
        for chain in (INBOUND_CHAIN, OUTBOUND_CHAIN):
            _run([PROGRAMS[version], *_table(), "-X", chain])


def told(one: Interception) -> str:
    """What `write` would do, for people."""
    parts = []
    for version in versions():
        program = PROGRAMS[version]
        lines = [f"# {program}-restore --noflush", restored(one, version).rstrip()]
        lines += [f"{program} -t nat -A {' '.join(rule)}" for rule in jumps()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _table() -> list[str]:
    return ["-w", str(WAIT_SECONDS), "-t", "nat"]


def _is_there(version: int, rule: Sequence[str]) -> bool:
    """Asked of a chain that does not exist, iptables says no as well."""
    return _try([PROGRAMS[version], *_table(), "-C", *rule]).returncode == 0


def _run(command: list[str], given: str = "") -> None:
    done = _try(command, given)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise RulesFailed(f"{' '.join(command)}: {said[0]}; {_remedy(done.stderr)}")


def _remedy(said: str) -> str:
    if "ermission denied" in said or "you must be root" in said:
        return "it needs root with the capabilities NET_ADMIN and NET_RAW"
    return "the kernel may lack a module (nf_nat, xt_REDIRECT, xt_owner): `http_proxy` works without"


def _try(command: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        raise RulesFailed(f"{command[0]} is not installed here: use the image `sidecar-init`, which has it")
    try:
        return subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise RulesFailed(f"{command[0]} has not ended within {RUN_SECONDS:.0f} s") from None


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
