"""Names and patterns of HTTP: header fields, methods, host patterns, paths.

Each function takes text, returns it as the core wants it, and raises ValueError with the remedy.
"""

from __future__ import annotations

import re
from ipaddress import ip_network

from sidecar.config.schema.units import parse_host
from sidecar.core.actions.template import literal_parts, variables
from sidecar.core.client_tls import SPIFFE, is_spiffe_id
from sidecar.core.hosts import pattern_port
from sidecar.core.snapshot import PASS_THROUGH

ZONE_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
"""A label's value in Kubernetes, which names a zone."""
METRICS_PREFIX_PATTERN = r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$"
MAX_METRICS_PREFIX = 63
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
OWNED_BY_PROXY = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""They frame the message or belong to one hop (RFC 9110 7.6.1): changing them by hand would break the
framing.
"""

TAKEN = f"the name {PASS_THROUGH!r} is taken: what no route names goes by it. Use another one"
_NAME = re.compile(NAME_PATTERN.strip("^$"))
_METRICS_PREFIX = re.compile(METRICS_PREFIX_PATTERN.strip("^$"))
_ZONE = re.compile(ZONE_PATTERN.strip("^$"))
_IPV6 = re.compile(r"[0-9A-Fa-f:]+(?:\.[0-9]+){0,3}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_IN_VALUE = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_GRPC_METHOD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_GRPC_SERVICE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}(\.[A-Za-z_][A-Za-z0-9_]{0,254}){0,31}")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(?:\*\.)?([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")
_PATH = re.compile(r"/[^\s?#\x00-\x1f\x7f]*")


def name(text: str) -> str:
    """The name of a route, upstream or listener: it stands in URLs, metrics and logs."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not a name: use up to 128 letters, digits, '.', '_' and '-'")
    return text


def own_name(text: str) -> str:
    """A name of the file's own, of a route or upstream. Raises: ValueError."""
    if text == PASS_THROUGH:
        raise ValueError(TAKEN)
    return name(text)


def zone(text: str) -> str:
    """Where an endpoint runs, as the label `topology.kubernetes.io/zone` says it."""
    if not _ZONE.fullmatch(text):
        raise ValueError(f"{text!r} is not a zone: use up to 63 letters, digits, '.', '_' and '-'")
    return text


def metrics_prefix(text: str) -> str:
    """What stands before a metric's name, and is the beginning of one."""
    if len(text) > MAX_METRICS_PREFIX or not _METRICS_PREFIX.fullmatch(text):
        what = f"use up to {MAX_METRICS_PREFIX} of a-z, 0-9, '_', and '.' between words, such as mesh"
        raise ValueError(f"{text!r} is no beginning of a metric's name: {what}")
    return text


def cookie_name(text: str) -> str:
    """RFC 6265 4.1.1: a token."""
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"{text!r} is not a cookie's name: letters, digits and !#$%&'*+-.^_`|~ only")
    return text


def is_extension(key: str) -> bool:
    """`x-common`: a key of the top level that is the user's own, to keep anchors under."""
    return key.startswith("x-") and len(key) > len("x-")


def header_name(text: str) -> str:
    """Any field name, lower-cased."""
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"{text!r} is not a header name: letters, digits and !#$%&'*+-.^_`|~ only")
    return text.lower()


def settable_header_name(text: str) -> str:
    """The name of a field that the configuration may change, lower-cased."""
    lowered = header_name(text)
    if lowered in OWNED_BY_PROXY:
        raise ValueError(
            f"{lowered!r} is the proxy's own: it frames the message or belongs to one connection"
        )
    return lowered


def settable_request_header_name(text: str) -> str:
    lowered = settable_header_name(text)
    if lowered == "host":
        raise ValueError("'host' is set with `rewrite: {host: …}`")
    return lowered


def header_value(text: str) -> str:
    """The message never quotes the value: it may be a secret."""
    if _BAD_IN_VALUE.search(text):
        raise ValueError("a header value holds no line breaks or other control characters")
    if text != text.strip(" \t"):
        raise ValueError("a header value neither starts nor ends with a space or tab")
    return text


def header_template(text: str) -> str:
    """A value in which the parser has marked variables of requests (`core/actions/template.py`)."""
    variables(text)
    header_value("x".join(literal_parts(text)))
    return text


def network(text: str) -> str:
    """`10.0.0.0/8`, `2001:db8::/32`, or one address; as the address of the network with its bits."""
    try:
        return str(ip_network(text))
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{text!r} is no network of addresses: write 10.0.0.0/8, 2001:db8::/32 or an address"
        ) from None
    raise ValueError(f"{text!r} is an address inside of a network: write {meant}, or the address alone")


def origin(text: str) -> str:
    """`https://shop.example`, `https://*.example:8443`, `null` or `*` (RFC 6454 6.2), in lower case."""
    lowered = text.lower()
    if lowered in ("*", "null"):
        return lowered
    match = _ORIGIN.fullmatch(lowered)
    if match is None:
        raise ValueError(
            f"{text!r} is no origin: write scheme and host without a path, as https://shop.example, "
            "https://*.example or http://localhost:3000, or *"
        )
    parse_host(match[2].strip("[]"))
    default = {"http": ":80", "https": ":443"}.get(match[1], "")
    return lowered.removesuffix(default) if default else lowered


def grpc_service(text: str) -> str:
    """With its package, as in the path of a call (grpc/doc/PROTOCOL-HTTP2.md)."""
    if not _GRPC_SERVICE.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a gRPC service: write it with its package and without slashes, as pkg.Payments"
        )
    return text


def grpc_method(text: str) -> str:
    """The name alone."""
    if not _GRPC_METHOD.fullmatch(text):
        raise ValueError(f"{text!r} is not a gRPC method: write its name alone, as Charge")
    return text


def method(text: str) -> str:
    """Any token, in its own case (RFC 9110 9.1): `get` is a method too, and another one than `GET`."""
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"{text!r} is not an HTTP method: letters, digits and !#$%&'*+-.^_`|~ only")
    return text


def host_pattern(text: str) -> str:
    """A host of a match: as `plain_host_pattern`, with or without a port behind it."""
    host, port = pattern_port(text)
    if port is None:
        return plain_host_pattern(text)
    if not 0 < port <= 65535:
        raise ValueError(f"{text!r}: a port is a number from 1 to 65535")
    return f"{plain_host_pattern(host)}:{port}"


def plain_host_pattern(text: str) -> str:
    """`payments`, `10.0.0.1`, `[::1]`, `*.payments.svc` or `*`, lower-cased."""
    if text == "*":
        return text
    if text.startswith("[") and text.endswith("]"):
        return f"[{parse_host(text[1:-1])}]"
    if _IPV6.fullmatch(text) and text.count(":") > 1:
        raise ValueError(
            f'{text!r}: an IPv6 address stands in brackets here, as in a Host field: write "[{text}]"'
        )
    if ":" in text or "/" in text:
        raise ValueError(f"{text!r} must be a host alone, without scheme and path")
    suffix = text.removeprefix("*.")
    if "*" in suffix:
        raise ValueError(f"{text!r}: '*' stands alone or in front, as in *.payments.svc")
    return text[: len(text) - len(suffix)] + parse_host(suffix)


def rewrite_host(text: str) -> str:
    """A Host value: a host with or without a port."""
    host, colon, port = text.rpartition(":")
    if colon and port.isascii() and port.isdigit() and 0 < int(port[:6]) <= 65535 and not host.endswith(":"):
        return f"{plain_host_pattern(host)}:{port}" if "*" not in host else _no_wildcard(text)
    return plain_host_pattern(text) if "*" not in text else _no_wildcard(text)


def redirect_host(text: str) -> str:
    """A host without a port, which has a key of its own."""
    if pattern_port(text)[1] is not None:
        raise ValueError(f"{text!r} has a port: write it as `port`")
    return plain_host_pattern(text) if "*" not in text else _no_wildcard(text)


def _no_wildcard(text: str) -> str:
    raise ValueError(f"{text!r} is a pattern; a host to send is a name such as payments.internal")


def path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ValueError(f"{text!r} is not a path: it starts with '/' and holds no space, '?' or '#'")
    return text


def path_prefix(text: str) -> str:
    """Without a slash at the end, which means nothing: a prefix holds whole segments (as in Gateway API)."""
    return path(text).rstrip("/") or "/"


def client(text: str) -> str:
    """An identity of clients: a SPIFFE ID (which stands for all below it too), a DNS name, or a subject."""
    if text.lower().startswith(SPIFFE):
        if not is_spiffe_id(text):
            raise ValueError(
                f"{text!r} is not a SPIFFE ID: write spiffe://trust.domain/a/path, the trust domain in lower case, "
                "without a slash at the end"
            )
        return text
    if not text or not text.isprintable() or text != text.strip():
        raise ValueError(
            "a client is spiffe://trust.domain/path, a DNS name, or a subject such as CN=payments"
        )
    if "*" in text:
        raise ValueError(f"{text!r}: a client is one name; a SPIFFE ID stands for all below it")
    return text if "=" in text else text.lower()


def alpn(text: str) -> str:
    """The name of a protocol in a handshake (RFC 7301 3.1): 1 to 255 bytes."""
    if not text.isascii() or not text.isprintable() or not 0 < len(text) <= 255 or " " in text:
        raise ValueError(
            f"{text!r} is not the name of a protocol: write it as registered, such as h2 or http/1.1"
        )
    return text


def file_name(text: str) -> str:
    """Of a file that is opened later on, where the system's own refusal would end a part of the process."""
    if not text.strip():
        raise ValueError("must not be empty")
    if "\0" in text:
        raise ValueError("a file's name holds no NUL")
    return text
