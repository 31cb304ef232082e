"""Is this request what RFC 9112 allows, and what does it ask for? Pure checks on a parsed head.

llhttp (strict) has already refused bad tokens, folded lines, bare CR or LF, two lengths, and a length beside a
transfer coding. What it lets through and this hop must not is refused here: never repaired, because the next hop
might repair it differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from sidecar.core.errors import Reason
from sidecar.core.hosts import asked_port, is_valid_host
from sidecar.core.plain import TOKEN_BYTES, Field
from sidecar.core.snapshot import ListenerLimits

MAX_METHOD_BYTES: Final = 32
MAX_CODINGS: Final = 8
"""Of `Transfer-Encoding`. HTTP has four, and nobody applies more than two."""
MAX_PROTOCOLS: Final = 16
"""Of `Upgrade`; a longer list is not heeded, as RFC 9110 7.8 allows."""
_TARGET_BYTES: Final = bytes(range(0x21, 0x7F))
FRAGMENT: Final = 0x23
"""`#`, as a number: to look for bytes in bytes takes 0.2 µs more."""
_KNOWN_HOSTS_LIMIT = 1024
known_hosts: Final[set[bytes]] = set()
"""Hosts that were found valid: saves 0.2 µs a request. Bounded; cleared when full."""


class Refused(Exception):
    """The request is not answered by a route but with `reason`, and its connection is closed."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def bad_request(detail: str) -> Refused:
    return Refused(Reason.BAD_REQUEST, detail)


def check_host(host: bytes) -> bytes:
    """Return `host` if it is `name[:port]`.

    Raises:
        Refused: anything else, also an empty one.
    """
    if host not in known_hosts:
        if not is_valid_host(host):
            raise bad_request("invalid Host")
        if len(known_hosts) >= _KNOWN_HOSTS_LIMIT:
            known_hosts.clear()
        known_hosts.add(host)
    return host


def split_request_line(line: bytes) -> tuple[bytes, bytes, str]:
    """Method, target and version (`1.0` or `1.1`) of a request line (RFC 9112 3).

    A later minor version is read as 1.1 (RFC 9110 2.5).

    Raises:
        Refused: not three parts, a method that is no token or too long, or another major version.
    """
    try:
        method, target, version = line.split(b" ")
    except ValueError:
        raise bad_request("malformed request line") from None
    if not 0 < len(method) <= MAX_METHOD_BYTES or method.translate(None, TOKEN_BYTES):
        raise bad_request("malformed method")
    if not target or target.translate(None, _TARGET_BYTES):
        raise bad_request("malformed request target")
    if len(version) != 8 or version[:5] != b"HTTP/" or version[6:7] != b"." or not _are_digits(version):
        raise bad_request("malformed HTTP version")
    if version[5:6] != b"1":
        detail = f"{version.decode()} is not spoken here: use HTTP/1.1"
        raise Refused(Reason.VERSION_NOT_SUPPORTED, detail)
    return method, target, "1.0" if version[7:] == b"0" else "1.1"


def _are_digits(version: bytes) -> bool:
    return version[5:6].isdigit() and version[7:8].isdigit()


def values_of(fields: Sequence[Field]) -> dict[bytes, bytes]:
    """Values by key; those of a field that came more than once, joined once (RFC 9110 5.3)."""
    lookup: dict[bytes, bytes] = {}
    repeated: dict[bytes, list[bytes]] = {}
    for key, _, value in fields:
        if key in lookup:
            repeated.setdefault(key, [lookup[key]]).append(value)
        else:
            lookup[key] = value
    for key, values in repeated.items():
        lookup[key] = b", ".join(values)
    return lookup


def check_known_coding(lines: bytes) -> None:
    """Tell a transfer coding that this hop does not know (501, RFC 9112 6.1) from malformed framing.

    Raises:
        Refused: `Transfer-Encoding` is there once, well formed, and names a coding other than chunked.
    """
    values = []
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if name.lower() == b"content-length":
            return
        if colon and name.lower() == b"transfer-encoding":
            values.append(value)
    if len(values) == 1:
        _check_coding(values[0].strip(b" \t"))


def _check_coding(value: bytes) -> None:
    if value.count(b",") >= MAX_CODINGS:
        return  # malformed, as any list that ends in something else than one `chunked`
    codings = [coding.strip(b" \t").partition(b";")[0].rstrip(b" \t").lower() for coding in value.split(b",")]
    are_tokens = all(coding and not coding.translate(None, TOKEN_BYTES) for coding in codings)
    if are_tokens and b"chunked" not in codings[:-1] and any(coding != b"chunked" for coding in codings):
        raise Refused(Reason.NOT_IMPLEMENTED, "a transfer coding other than chunked")


def check_framing(lookup: Mapping[bytes, bytes], version: str) -> bool:
    """Return whether the body is chunked.

    Raises:
        Refused: a transfer coding other than exactly `chunked`, or any in HTTP/1.0 (RFC 9112 6.1).
    """
    coding = lookup.get(b"transfer-encoding")
    if coding is None:
        return False
    if version != "1.1":
        raise bad_request("Transfer-Encoding in an HTTP/1.0 request")
    if coding.lower() != b"chunked":
        _check_coding(coding)
        raise bad_request("a transfer coding other than chunked")
    return True


def body_length(lookup: Mapping[bytes, bytes]) -> int:
    """Of a body that is not chunked, in bytes.

    Raises:
        Refused: a length beyond what a signed 64-bit number holds: some reader behind us would wrap it.
    """
    digits = lookup.get(b"content-length", b"0").lstrip(b"0")
    if len(digits) > 18:
        raise bad_request("Content-Length out of range")
    return int(digits or b"0")


def keeps_alive(lookup: Mapping[bytes, bytes], version: str) -> bool:
    """Whether the connection goes on behind this request (RFC 9112 9.3)."""
    options = _options(lookup.get(b"connection"))
    return b"close" not in options and (version == "1.1" or b"keep-alive" in options)


def asks_for_upgrade(lookup: Mapping[bytes, bytes]) -> bool:
    """Whether `Connection` says that `Upgrade` is meant for this hop."""
    return b"upgrade" in _options(lookup.get(b"connection"))


@lru_cache(maxsize=256)  # clients send a few, and each request asks three times
def _options(value: bytes | None) -> frozenset[bytes]:
    """What `Connection` lists, lower-case. Its length is bounded by then."""
    if value is None:
        return frozenset()
    return frozenset(option.strip(b" \t").lower() for option in value.split(b","))


def check_counts(
    limits: ListenerLimits, target: bytes, fields: Sequence[Field], lookup: Mapping[bytes, bytes]
) -> None:
    """Fields, cookies, options of `Connection` and parameters: each is read by somebody, and takes its time.

    Raises:
        Refused: there are more than the listener allows.
    """
    if len(fields) > limits.headers:
        raise too_many(limits.headers, "header fields")
    if 1 + lookup.get(b"cookie", b"").count(b";") > limits.cookies:
        raise too_many(limits.cookies, "cookies")
    if 1 + lookup.get(b"connection", b"").count(b",") > limits.connection_options:
        raise too_many(limits.connection_options, "options of Connection")
    query = target.partition(b"?")[2]
    if 1 + query.count(b"&") + query.count(b";") > limits.parameters:  # some servers part at either
        raise too_many(limits.parameters, "query parameters")


def too_many(most: int, what: str) -> Refused:
    return Refused(Reason.HEAD_TOO_LARGE, f"more than {most} {what}")


def has_underscores(lookup: Mapping[bytes, bytes]) -> bool:
    """Whether some name has `_` in it, which many servers take for `-`."""
    return 95 in b"".join(lookup)


def without_internal(
    fields: Sequence[Field], lookup: Mapping[bytes, bytes]
) -> tuple[list[Field], dict[bytes, bytes]]:
    """The same head as a listener with `trust: none` sees it: without what only the mesh may say.

    That is `x-envoy-*` (which could set timeouts), `x-sidecar-*` and `Proxy-Status`, spelt with `_` too: servers that
    hand fields on as variables make one name of both.
    """
    kept = [field for field in fields if not _is_internal(field[0])]
    return kept, {key: value for key, value in lookup.items() if not _is_internal(key)}


def _is_internal(key: bytes) -> bool:
    if 95 in key:  # _
        key = key.replace(b"_", b"-")
    return key == b"proxy-status" or key.startswith((b"x-envoy-", b"x-sidecar-"))


def tunnelled(upgrade: bytes, version: str) -> bytes:
    """The protocols that this hop can tunnel. Empty for HTTP/2 in clear text (`h2c`), which silence declines, and for
    too many of them."""
    is_short = upgrade.count(b",") < MAX_PROTOCOLS
    return upgrade if version == "1.1" and is_short and b"h2c" not in upgrade.lower() else b""


def split_target(
    method: bytes, target: bytes, host: bytes | None, version: str, *, takes_connect: bool = False
) -> tuple[bytes, bytes]:
    """Return the authority to route by and the target in origin form; for CONNECT both are host and port.

    An absolute-form target wins over `Host` (RFC 9112 3.2.2).

    Raises:
        Refused: not origin form, absolute form or `OPTIONS *`; a fragment; a missing or invalid host.
    """
    is_plain = target[:1] == b"/" and FRAGMENT not in target and version == "1.1" and method != b"CONNECT"
    if is_plain and host in known_hosts:
        return host, target
    if host is not None:
        check_host(host)
    elif version == "1.1":
        raise bad_request("no Host")
    if method == b"CONNECT":
        if not takes_connect:
            detail = "CONNECT is for the app's own calls (outbound listeners): send the request itself"
            raise Refused(Reason.METHOD_NOT_ALLOWED, detail)
        return check_authority(target), target
    if FRAGMENT in target:
        raise bad_request("a fragment in the request target")
    if target[:1] == b"/" or (target == b"*" and method == b"OPTIONS"):
        return host or b"", target
    if target[:7].lower() != b"http://":
        raise bad_request("unsupported form of the request target")
    authority, origin = _split_absolute(target[7:])
    # RFC 9112 3.2.4: without a path and a query, the last proxy sends OPTIONS to the server as a whole.
    return authority, b"*" if method == b"OPTIONS" and not origin else origin or b"/"


def check_authority(target: bytes) -> bytes:
    """The target of a CONNECT: a host and a port, both of them (RFC 9112 3.2.3).

    Raises:
        Refused: anything else.
    """
    authority = check_host(target)
    if not asked_port(authority, 0):
        raise bad_request("a CONNECT without a port")
    return authority


def _split_absolute(rest: bytes) -> tuple[bytes, bytes]:
    end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    authority, path = check_host(rest[:end]), rest[end:]
    return authority, b"/" + path if path[:1] == b"?" else path
