"""Where a redirected connection was going: the kernel remembers it (iptables' REDIRECT; linux/netfilter_ipv4.h).

`SO_ORIGINAL_DST` is answered for every connection that this network namespace has translated. For one that came here
by itself there is no entry, or its destination is our own address.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Final

from sidecar.core.request import Asked

_SO_ORIGINAL_DST: Final = 80
"""The same number in both families: IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv6/ip6_tables.h)."""
_SOL_IPV6: Final = 41
_SOCKADDR_IN, _SOCKADDR_IN6 = struct.Struct("!2xH4s8x"), struct.Struct("!2xHI16sI")

Place = tuple[str, int]
"""An address and a port."""


def asked_by(transport: asyncio.BaseTransport) -> Asked | None:
    """Where the client of a connection meant to connect; None for one that meant to connect here."""
    asked: Asked | None = transport.get_extra_info("asked")  # said where it comes from this very process
    if asked is not None:
        return asked
    original = original_destination(transport.get_extra_info("socket"))
    return None if original is None else Asked(*original, is_original=True)


def original_destination(sock: Any) -> Place | None:
    """Where the client meant to connect; None for one that meant to connect here."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        found = _asked_v4(sock) if sock.family == socket.AF_INET else _asked_v6(sock)
        own = sock.getsockname()
    except OSError:
        return None  # the kernel knows of no translation
    return None if found == (own[0], own[1]) else found


def _asked_v4(sock: Any) -> Place:
    port, address = _SOCKADDR_IN.unpack(sock.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN.size))
    return socket.inet_ntop(socket.AF_INET, address), port


def _asked_v6(sock: Any) -> Place:
    answer = sock.getsockopt(_SOL_IPV6, _SO_ORIGINAL_DST, _SOCKADDR_IN6.size)
    port, _flow, address, _scope = _SOCKADDR_IN6.unpack(answer)
    return socket.inet_ntop(socket.AF_INET6, address), port
