"""Which addresses are those of this network namespace, and where it has a way to: the kernel's answer.

Asked by connecting a UDP socket, which sends nothing and chooses the address that would be sent from (udp(7)): for
one of our own it is that address itself. Addresses come and go (dual stack, a second interface), so an answer is kept
for a moment alone.
"""

from __future__ import annotations

import socket
import time
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

KEPT_SECONDS: Final = 5.0
MOST_KEPT: Final = 256
"""Answers; all are forgotten when there are more."""
_ANY_PORT: Final = 9

_sources: dict[str, tuple[float, str | None]] = {}


def source_for(address: str) -> str | None:
    """What would be sent from to reach `address`; None where there is no way to it, or it is no address."""
    now = time.monotonic()
    known = _sources.get(address)
    if known is not None and now - known[0] < KEPT_SECONDS:
        return known[1]
    if len(_sources) >= MOST_KEPT:
        _sources.clear()
    source = _ask(address)
    _sources[address] = now, source
    return source


def is_local(address: str) -> bool:
    """Whether it is an address of this network namespace, loopback included."""
    known = _read(address)
    return known is not None and (known.is_loopback or source_for(str(known)) == str(known))


def is_pods(address: str) -> bool:
    """Whether it is an address by which others reach this network namespace."""
    known = _read(address)
    return known is not None and not known.is_loopback and source_for(str(known)) == str(known)


def _read(address: str) -> IPv4Address | IPv6Address | None:
    """In the form in which it is sent to; None for what is no address."""
    try:
        known = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = known.ipv4_mapped if known.version == 6 else None
    return known if mapped is None else mapped


def is_reachable(address: str) -> bool:
    """Whether this namespace has a way to it: without IPv6 there is none to an IPv6 address."""
    return source_for(address) is not None


def _ask(address: str) -> str | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((address, _ANY_PORT))
            source: str = sock.getsockname()[0]
            return source
    except OSError:
        return None


def has_ipv6() -> bool:
    """Whether this network namespace has IPv6, if only on loopback."""
    try:
        with open("/proc/net/if_inet6") as addresses:
            return bool(addresses.read(1))
    except OSError:
        return False
