"""What callers connect to, and how far they are believed."""

from __future__ import annotations

from enum import Enum

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot.endpoint import Address, HttpVersion
from sidecar.core.snapshot.tls import ListenerTls


class Trust(Enum):
    """Whether a listener believes the mesh-internal header fields of its callers."""

    ALL = "all"
    NONE = "none"


class Ambiguous(Enum):
    """What a listener does where a match asks for a field or parameter that can be read in two ways."""

    REFUSE = "refuse"
    FIRST = "first"
    """Of parameters that come twice the first counts; the values of fields are joined (RFC 9110 5.3)."""


class Dealt(Enum):
    """Who decides which of several workers serves a connection."""

    KERNEL = "kernel"
    EXACT = "exact"
    """Accepted in one place, and handed to the worker that has fewest."""


class Direction(Enum):
    """Whose calls a listener takes: those to this pod's own app, or those of the app to others."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Unmatched(Enum):
    """What becomes of what no route of a listener names (SPEC-PROTOCOLS 14)."""

    REFUSE = "refuse"
    PASS_THROUGH = "pass_through"
    """It goes to the host that was asked for, or where an intercepted connection was going."""


PASS_THROUGH = "pass_through"
"""The name of the route of what no route names, and of its upstream in metrics: one set of series for all hosts."""


class Forwarded(Enum):
    """What becomes of `Forwarded` (RFC 7239) and `X-Forwarded-For`, `-Proto` and `-Host` on their way."""

    SET = "set"
    """What came is dropped; what this listener has seen takes its place."""
    APPEND = "append"
    """What this listener has seen goes behind what came."""
    KEEP = "keep"
    """What came goes on, and nothing is added."""
    OFF = "off"
    """What came is dropped, and nothing is added."""


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    connections: int = 10_000
    """Accepted at once; the next one is answered 503 and counted."""
    head_bytes: int = 64 * 1024
    """Request line and header fields of one request (431 beyond)."""
    headers: int = 100
    """Header fields of one request (431 beyond)."""
    url_bytes: int = 16 * 1024
    """Request target (414 beyond)."""
    parameters: int = 1024
    """Of the query, parted by `&` or `;` (431 beyond)."""
    cookies: int = 256
    """Pairs in all `Cookie` fields (431 beyond); browsers keep at most 180 for a site."""
    connection_options: int = 32
    """In all `Connection` fields (431 beyond)."""


@dataclass(frozen=True, slots=True)
class ListenerTimeouts:
    head_seconds: float = 10.0
    """From a request's first byte to the end of its head (408-like close beyond)."""
    idle_seconds: float = 75.0
    """Between two requests on one connection."""
    body_seconds: float = 30.0
    """Without any progress while a body is being read from, or an answer written to, the client."""
    handshake_seconds: float = 10.0
    """From the connection to the end of its TLS handshake."""
    detect_seconds: float = 1.0
    """For a client's first bytes, where it is not known what it speaks; then its destination may speak first."""


OPAQUE_PORTS = frozenset({21, 22, 25, 110, 143, 587, 3306, 4444, 5432, 6379, 9300, 11211, 27017})
"""FTP, SSH, mail (SMTP, POP3, IMAP), MySQL, Galera, PostgreSQL, Redis, Elasticsearch, Memcached, MongoDB: in many of
these the server speaks first, and none is HTTP."""


@dataclass(frozen=True, slots=True)
class Listener:
    name: str
    address: Address
    limits: ListenerLimits = ListenerLimits()
    timeouts: ListenerTimeouts = ListenerTimeouts()
    trust: Trust = Trust.ALL
    direction: Direction = Direction.INBOUND
    forwarded: Forwarded = Forwarded.APPEND
    ambiguous: Ambiguous = Ambiguous.FIRST
    protocol: HttpVersion = HttpVersion.AUTO
    balance: Dealt = Dealt.KERNEL
    max_connection_age_seconds: float = 600.0
    """Then a connection ends with its next answer; `math.inf`: never for its age."""
    tls: ListenerTls | None = None
    """None: clear text."""
    unmatched: Unmatched = Unmatched.REFUSE
    pass_through_ports: frozenset[int] = frozenset()
    """Of destinations that may be passed through to; empty: all."""
    opaque_ports: frozenset[int] = OPAQUE_PORTS
    """Of destinations whose bytes are passed on without a look at them."""
