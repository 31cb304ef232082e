"""What an upstream is told of the client: `X-Forwarded-For`, `-Proto`, `-Host`, and `Forwarded` (RFC 7239).

The first three are no standard, but what most apps and frameworks read. `X-Forwarded-For` lists addresses, the client
first and the nearest hop last; an app that trusts so many hops counts from the end. So each hop adds one entry, even
where it has no address to tell. `Forwarded` says the same in one field; it is written only where one came.

Who may be believed is decided elsewhere: a listener's mode says what is done (`core/snapshot/listener.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from sidecar.core.headers import FORWARDED
from sidecar.core.plain import TOKEN_BYTES
from sidecar.core.snapshot import Forwarded

_FOR: Final = b"x-forwarded-for"
_PROTO: Final = b"x-forwarded-proto"
_HOST: Final = b"x-forwarded-host"
_FORWARDED: Final = b"forwarded"

UNKNOWN: Final = b"unknown"
"""For a peer without an address, as on a UNIX socket (RFC 7239 6.2)."""

_NOTHING: Final[frozenset[bytes]] = frozenset()
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE: Final = rb'(?:[!#-+\--:<-\[\]-~]+|"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*")'
_PAIR: Final = rb"%b=%b" % (_TOKEN, _VALUE)
_ELEMENTS: Final = re.compile(rb"[ \t,;]*+%b(?:[ \t]*+[,;][ \t,;]*+(?:%b)?+)*+[ \t]*+" % (_PAIR, _PAIR))
"""`Forwarded` as RFC 7239 4 has it, and `for=192.0.2.1:80` or `host=a:80` without their quotes, which many write."""


def forwarded_lines(
    mode: Forwarded, lookup: Mapping[bytes, bytes], peer: tuple[str, int] | None, is_tls: bool, host: bytes
) -> tuple[frozenset[bytes], bytes]:
    """Return which fields of a request are left out, and the lines that take their place.

    If none of `FORWARDED` is in `lookup`, nothing is left out, and the lines depend on the other arguments alone.

    Args:
        mode: `SET` replaces what came, `APPEND` goes on with it, `KEEP` leaves it as it is, `OFF` leaves it out.
            `APPEND` keeps `X-Forwarded-Proto` and `-Host` of an earlier hop, which has seen the client's own; where
            `X-Forwarded-For` came several times, one line has them all.
        lookup: Values by lower-case name, those of a field that came several times joined by commas.
        peer: Address and port of the client's connection; None where it has none (UNIX sockets).
        is_tls: Whether the connection is encrypted.
        host: What the client asked for, with its port if it named one; empty if it named none.
    """
    if mode is Forwarded.KEEP:
        return _NOTHING, b""
    drop = _NOTHING if FORWARDED.isdisjoint(lookup) else FORWARDED
    if mode is Forwarded.OFF:
        return drop, b""
    address, node = _UNADDRESSED if peer is None else _rendered(peer[0])
    proto = b"https" if is_tls else b"http"
    if not drop or mode is Forwarded.SET:
        return drop, _x_lines(address, proto, host)
    lines = _x_lines(
        _joined(lookup.get(_FOR, b""), address), lookup.get(_PROTO) or proto, lookup.get(_HOST) or host
    )
    came = lookup.get(_FORWARDED)
    if came is not None:
        lines += b"Forwarded: %b\r\n" % _appended(came, node, proto, host)
    return drop, lines


def lines_without(lines: bytes, names: frozenset[bytes]) -> bytes:
    """Return `lines` without those of `names` (lower-case): what a route sets or removes itself."""
    kept = [line for line in lines.split(b"\r\n") if line.partition(b":")[0].lower() not in names]
    return b"\r\n".join(kept)


def _x_lines(addresses: bytes, proto: bytes, host: bytes) -> bytes:
    lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (addresses, proto)
    return b"%bX-Forwarded-Host: %b\r\n" % (lines, host) if host else lines


def _joined(came: bytes, own: bytes) -> bytes:
    came = came.strip(b" \t,")
    return b"%b, %b" % (came, own) if came else own


def _appended(came: bytes, node: bytes, proto: bytes, host: bytes) -> bytes:
    """`Forwarded` with one element more.

    What came is dropped if it is malformed: behind a quote that is not closed our own element would be part of a text
    that the client wrote.
    """
    own = b"for=%b;proto=%b" % (node, proto)
    if host:
        own += b";host=" + _quoted(host)
    return _joined(came, own) if _ELEMENTS.fullmatch(came) else own


def _quoted(value: bytes) -> bytes:
    """As a token where it is one, otherwise as a quoted string (RFC 9110 5.6.4)."""
    if value and not value.translate(None, TOKEN_BYTES):
        return value
    return b'"%b"' % value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


@lru_cache(
    maxsize=1024
)  # 0.1 µs where a client has several connections, 1 without; clients are many, so it is bounded
def _rendered(address: str) -> tuple[bytes, bytes]:
    """An IP address as `X-Forwarded-For` has it, and as a node of `Forwarded` (RFC 7239 6).

    An IPv4 address that came by an IPv6 socket is written as what it is. A zone (`%eth0`) means something on this
    host alone and is left out.
    """
    plain = address.partition("%")[0]
    if plain.startswith("::ffff:") and "." in plain:
        plain = plain[7:]
    text = plain.encode("ascii", "replace")
    return text, b'"[%b]"' % text if b":" in text else text


_UNADDRESSED: Final = (UNKNOWN, UNKNOWN)
