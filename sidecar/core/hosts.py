"""Hosts in the one form that they are compared in.

A host can be written in many ways: upper case, a dot or several at its end, a port, an IPv6 address with or without
its zeros. A route for `internal.svc` must take them all, or `internal.svc..` slips past its policies to whatever
route stands below. What different readers take for different hosts (`010.0.0.1` is 8.0.0.1 to most C programs,
10.0.0.1 to others, and nothing to the rest) has no such form, and is refused.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

_HOST: Final = re.compile(rb"(?:([A-Za-z0-9_.~-]+)|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{0,5}))?")
_PORT: Final = re.compile("[0-9]{1,9}")
"""As somebody may write one; what is longer, or of other digits than ASCII's, is none."""
_NUMBER_LAST: Final = re.compile(rb"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.*", re.DOTALL)
"""What every reader of URLs takes for an IPv4 address, or for a mistake (WHATWG URL, "ends in a number")."""
_OCTET: Final = rb"(?:0|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])"
_IPV4: Final = re.compile(rb"%b(?:\.%b){3}\.*" % (_OCTET, _OCTET))


def is_valid_host(host: bytes) -> bool:
    """True for `name[:port]` and `[v6][:port]`.

    Stricter than RFC 3986's reg-name: space, slash, userinfo, comma and percent-escapes are what request
    smuggling is made of, and no real host name holds them. An IPv4 address has four decimal numbers without
    leading zeros.
    """
    match = _HOST.fullmatch(host)
    if match is None or int(match[3] or 0) > 65535:
        return False
    name = match[1]
    if name is None:
        return _short_v6(match[2]) is not None
    return _NUMBER_LAST.fullmatch(name) is None or _IPV4.fullmatch(name) is not None


def normal_host(host: bytes) -> bytes:
    """Bring a valid Host value to the form of the tables: lower case, no port, no brackets, no dots at its end.

    An IPv6 address comes in its short form, one that stands for an IPv4 address as that.
    """
    if host[:1] == b"[":
        text = host[1:].partition(b"]")[0]
        return _short_v6(text) or text.lower()
    return host.lower().partition(b":")[0].rstrip(b".")


def pattern_port(host: str) -> tuple[str, int | None]:
    """Part a host, as a configuration writes it, from the port behind it, if there is one."""
    name, colon, port = host.rpartition(":")
    if _PORT.fullmatch(port) and colon and (":" not in name or name.endswith("]")):
        return name, int(port)
    return host, None


def asked_port(host: bytes, default: int) -> int:
    """The port that a valid Host value names, else `default`."""
    _, colon, port = host.rpartition(b":")
    return int(port) if colon and port.isdigit() and not host.endswith(b"]") else default


def normal_pattern(host: str) -> bytes:
    """The same for a host as a configuration writes it: a name, an address, `*` or `*.suffix`. A port is left out."""
    text = pattern_port(host)[0].strip("[]")
    return normal_host(f"[{text}]".encode()) if ":" in text else normal_host(text.encode())


@lru_cache(maxsize=256)  # 5 µs without
def _short_v6(text: bytes) -> bytes | None:
    """None for what is no address."""
    try:
        address = IPv6Address(text.decode("ascii"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped
    return str(address if mapped is None else mapped).encode()
