"""One request as its connection read it: what does not change from its head on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sidecar.core.client_tls import ClientTls
from sidecar.core.contract import SLOTTED
from sidecar.core.path_dataclass import dataclass
from sidecar.core.plain import Field
from sidecar.core.snapshot import Endpoint


class Asked(NamedTuple):
    """Where a connection was going before a request came by it: by interception, or by the CONNECT before it."""

    host: str
    """A name or an address, in the form that hosts are compared in."""
    port: int
    is_original: bool
    """The client meant to connect there, and knows nothing of this sidecar; else it has asked for it by CONNECT."""

    @property
    def authority(self) -> bytes:
        return str(Endpoint(self.host, self.port)).encode("ascii", "replace")


TUNNEL: Final = b"connect"
"""In the place of a protocol to switch to: bytes both ways, whatever they are (CONNECT, RFC 9110 9.3.6)."""


@dataclass(**SLOTTED)
class Traits:
    """What only some requests have. Made for a request whose head is not plain; all others share `PLAIN`, which is
    never written to."""

    http_version: str = "1.1"
    is_chunked: bool = False
    """The body's length is not known beforehand."""
    upgrade: bytes = b""
    """The protocols that the client would switch to (RFC 9110 7.8); empty where it asks for none that can be."""
    is_grpc: bool = False
    has_underscores: bool = False
    """Some field has `_` in its name, which many servers take for `-`."""
    expects_continue: bool = False
    """It waits for a 100 before it sends its body (RFC 9110 10.1.1)."""

    never_indexed: frozenset[bytes] = frozenset()
    """Keys of fields that no hop may keep in a compression table (RFC 7541 7.1.3)."""


PLAIN: Final = Traits()
PLAIN_2: Final = Traits(http_version="2")
"""The same for HTTP/2."""


class Request:
    """Written by the client's connection before the exchange begins, and by nobody afterwards. `take` comes first."""

    __slots__ = (
        "added",
        "asked",
        "fields",
        "host",
        "length",
        "listener",
        "lookup",
        "method",
        "origin_target",
        "target",
        "tls",
        "traits",
    )

    listener: str
    """The name of the listener that it came by."""
    method: bytes
    target: bytes
    """As the client sent it."""
    origin_target: bytes
    """Its path and query, or `*`."""
    host: bytes
    """What it is routed by: of the target where that has one, else of `Host`. Empty in HTTP/1.0 without either."""
    fields: Sequence[Field]
    lookup: Mapping[bytes, bytes]
    """Values by key; those of fields that came more than once, joined (RFC 9110 5.3)."""
    length: int
    """Of the body, in bytes; -1 where only its end tells."""
    traits: Traits
    added: bytes
    """Lines that tell the upstream of the client (`X-Forwarded-For` and the like), in HTTP/1.1's form."""
    asked: Asked | None
    """Where its connection was going; None where it meant to come here."""
    tls: ClientTls | None
    """What the client's handshake has shown; None for a connection in clear text."""

    def take(
        self,
        listener: str,
        method: bytes,
        target: bytes,
        origin_target: bytes,
        host: bytes,
        fields: Sequence[Field],
        lookup: Mapping[bytes, bytes],
        length: int = 0,
        traits: Traits = PLAIN,
    ) -> Request:
        """Set what it has. Returns itself: the call of an `__init__` takes 800 instructions more."""
        self.listener = listener
        self.method = method
        self.target = target
        self.origin_target = origin_target
        self.host = host
        self.fields = fields
        self.lookup = lookup
        self.length = length
        self.traits = traits
        self.added = b""
        self.asked = None
        self.tls = None
        return self

    @property
    def client(self) -> str:
        """Who asks, by a verified certificate; empty for everybody else."""
        return "" if self.tls is None else self.tls.identity

    def __repr__(self) -> str:
        return f"<Request {self.method.decode('latin-1')} {self.listener} {len(self.fields)} fields>"
