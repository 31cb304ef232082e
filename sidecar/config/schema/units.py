"""Durations, sizes, shares, addresses and endpoints, from the words of the file to numbers and back.

Each parser takes what the YAML says (text or a number) and raises ValueError with a message that names
the value and the remedy. Durations are seconds, sizes bytes, shares 0..1.
"""

from __future__ import annotations

import ipaddress
import math
import re
from urllib.parse import urlsplit

from sidecar.core.snapshot import ORIGINAL, Address, BackAfter, Endpoint

DURATION_PATTERN = r"^([0-9.]+h)?([0-9.]+m)?([0-9.]+s)?([0-9.]+ms)?$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB)$"
SHARE_PATTERN = r"^[0-9]+(\.[0-9]+)?%$"
MAX_SOCKET_PATH_BYTES = 107
"""sun_path of Linux, less the closing zero."""

_N = r"([0-9]{1,12}(?:\.[0-9]{1,24})?)"
_DURATION = re.compile(rf"(?:{_N}h)?(?:{_N}m(?!s))?(?:{_N}s)?(?:{_N}ms)?")
_UNIT_MS = (3_600_000.0, 60_000.0, 1000.0, 1.0)
_BARE_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?")
_SIZE = re.compile(rf"{_N}([A-Za-z]*)")
_SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_MAX_SIZE_BYTES = 900 << 30
"""Twelve digits of bytes: whatever is read can be written again."""
_SIZE_HINTS = {"k": "KiB", "m": "MiB", "g": "GiB"}
_PERCENTAGE = re.compile(rf"{_N}%")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


def parse_duration(value: object) -> float:
    """Seconds of `250ms`, `2s`, `1m30s`, `1.5s`; a bare number is refused with the units it may mean."""
    text = shown(value)
    if _BARE_NUMBER.fullmatch(text):
        if text.startswith("-"):
            raise ValueError(f"{text} is negative; a duration is at least 0s")
        raise ValueError(f"a duration needs a unit: write {text}s or {text}ms")
    match = _DURATION.fullmatch(text) if isinstance(value, str) and text else None
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 250ms, 2s or 1m30s")
    milliseconds = sum(
        float(number) * unit
        for number, unit in zip(match.groups(), _UNIT_MS, strict=True)
        if number is not None
    )
    return round(milliseconds, 9) / 1000  # 2.01 × 60,000 is not quite 120,600


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as `seconds`; `off` for a limit that is none."""
    if seconds == math.inf:
        return "off"
    if seconds == 0:
        return "0s"
    if seconds < 1:
        return f"{digits(seconds * 1000)}ms"
    whole_minutes = int(seconds // 60)
    rest = round(seconds - whole_minutes * 60, 9)
    hours, minutes = divmod(whole_minutes, 60)
    parts = ((hours, "h"), (minutes, "m"))
    return "".join(f"{n}{unit}" for n, unit in parts if n) + (f"{digits(rest)}s" if rest else "")


def parse_size(value: object) -> int:
    """Bytes of `64KiB`, `1MiB`, `512B`; a bare number or a decimal unit is refused with the remedy."""
    text = shown(value)
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 64KiB or 1MiB")
    number, unit = match.groups()
    if not unit:
        raise ValueError(f"a size needs a unit: write {text}B or {text}KiB")
    if unit not in _SIZE_UNITS:
        hint = _SIZE_HINTS.get(unit[0].lower())
        raise ValueError(
            f"unknown unit {unit!r} in {text!r}: write {number}{hint or 'KiB'} (B, KiB, MiB or GiB)"
        )
    size = float(number) * _SIZE_UNITS[unit]
    if size != int(size):
        raise ValueError(f"{text} is not a whole number of bytes")
    if size > _MAX_SIZE_BYTES:
        raise ValueError(f"{text} is more than 900GiB, the largest size")
    return int(size)


def format_size(size_bytes: int) -> str:
    """The shortest text that `parse_size` reads as `size_bytes`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _SIZE_UNITS[unit] == 0:
            return f"{size_bytes // _SIZE_UNITS[unit]}{unit}"
    return f"{size_bytes}B"


def parse_share(value: object) -> float:
    """A share of one, as `50%` or as a number from 0 to 1; `50` is refused, for it may mean either."""
    text = shown(value)
    match = _PERCENTAGE.fullmatch(text)
    if match:
        share = float(match[1]) / 100
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if 1 < value <= 100:
            raise ValueError(f"{text} is over 1: write {text}% if a percentage is meant")
        share = float(value)
    else:
        raise ValueError(f"{text!r} is not a share such as 50% or 0.5")
    if not 0 <= share <= 1:
        raise ValueError(f"{text} is not between 0% and 100%")
    return share


def digits(number: float) -> str:
    """A number to ten places that count, without an exponent, which no reader here takes."""
    text = f"{number:.10g}"
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text
    places = len(mantissa.partition(".")[2]) - int(exponent)
    return f"{number:.{max(places, 0)}f}"


def format_share(share: float) -> str:
    """As a percentage, for a threshold: in digits, as `parse_share` reads it, however small."""
    return f"{digits(share * 100)}%"


def parse_back_after(value: object) -> BackAfter:
    """`70% for 30s`."""
    text = shown(value)
    share, word, duration = (part.strip() for part in text.partition(" for "))
    if not word:
        raise ValueError(f"{text!r} says no share and no time: write them as in 70% for 30s")
    wanted = parse_share(share)
    if not wanted:
        raise ValueError("a share of 0% is always usable: write one such as 70% for 30s")
    return BackAfter(wanted, parse_duration(duration))


def format_back_after(back: BackAfter) -> str:
    return f"{format_share(back.share)} for {format_duration(back.seconds)}"


def parse_address(value: object) -> Address:
    """Where to listen: `127.0.0.1:80`, `[::1]:80` (port 0: any free one) or `unix:/path`."""
    text = _text(value, "an address such as 127.0.0.1:15001, [::1]:15001 or unix:/run/sidecar.sock")
    if text.startswith("unix:"):
        return Address("", 0, _socket_path(text))
    host, port = _host_and_port(text, "127.0.0.1:15001", lowest_port=0)
    if not host or host == "*":
        raise ValueError(f"{text!r} names no address: write 0.0.0.0:{port} to listen on all of them")
    if not _is_ip(host):
        remedy = f": write 127.0.0.1:{port}" if host == "localhost" else ""
        raise ValueError(f"{host!r} is a name; a listener needs an IP address{remedy}")
    return Address(host, port)


def parse_endpoint(value: object) -> Endpoint:
    """Where to connect: `host:port`, `10.0.0.1:80`, `[::1]:80`, `unix:/path` or `https://host`."""
    text = _text(value, "an endpoint such as payments:80 or unix:/run/app.sock")
    if text == ORIGINAL.host:
        return ORIGINAL
    if text.startswith("unix:"):
        return Endpoint("", 0, _socket_path(text))
    if text.startswith("https://"):
        return parse_upstream_url(text)
    if "://" in text:
        raise ValueError(f"{text!r} is a URL; an endpoint is host:port, without path, or https://host")
    host, port = _host_and_port(text, "payments:80", lowest_port=1)
    return Endpoint(parse_host(host), port)


def parse_upstream_url(url: str) -> Endpoint:
    """The endpoint of the shorthand `http://host:port` or `https://host:port`; the port defaults to 80 or 443."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{url!r} must start with http:// or https://")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{url!r} may hold a host and a port only; `rewrite` changes paths")
    if port == 0 or not parts.hostname:
        raise ValueError(f"{url!r} needs a host, and a port from 1 to 65535")
    is_https = parts.scheme == "https"
    if port is None:
        port = 443 if is_https else 80
    return Endpoint(parse_host(parts.hostname), port, is_https=is_https)


def parse_host(host: str) -> str:
    """A host name or IP address (IPv6 without brackets), lower-cased."""
    host = host.lower()
    if _is_ip(host):
        return host
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{host!r} is not a host name")
    if labels[-1].isdigit():
        raise ValueError(f"{host!r} is not an IPv4 address, and a host name cannot end in a number")
    return host


def _host_and_port(text: str, example: str, lowest_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port: write it as in {example}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host or not _is_ip(host):
            raise ValueError(f"{host!r} is not an IPv6 address")
    elif ":" in host:
        raise ValueError(f"{text!r} is ambiguous: write an IPv6 address in brackets, as [::1]:80")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not lowest_port <= int(port) <= 65535:
        raise ValueError(f"port {port!r} in {text!r} is not a number from {lowest_port} to 65535")
    return host, int(port)


def _socket_path(text: str) -> str:
    path = text.removeprefix("unix:")
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{text!r} needs an absolute path, as in unix:/run/app.sock")
    if len(path.encode()) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"the path of a UNIX socket has at most {MAX_SOCKET_PATH_BYTES} bytes")
    return path


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _text(value: object, wanted: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected {wanted}, got {shown(value)}")
    return value


def shown(value: object) -> str:
    """The value as it stands in the file."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return str(value)
