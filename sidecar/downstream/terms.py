"""What a listener grants its connections: its limits, its times, and its name. The listener itself is more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from mypy_extensions import mypyc_attr

from sidecar.core.snapshot import Forwarded, HttpVersion, Listener, ListenerLimits, Unmatched
from sidecar.core.tls_numbers import Handshake

if TYPE_CHECKING:
    from sidecar.core.overload import Overload
    from sidecar.core.request import Asked
    from sidecar.downstream.gate import Gate
    from sidecar.forwarding.service import Service
    from sidecar.transport.link import Link


@mypyc_attr(allow_interpreted_subclasses=True)
class ListenerTerms(ABC):
    """A listener as its connections see it. A reload may change all but the name."""

    policy: Listener
    """What the file says. Another one after each reload: what was found under the last one is known by it."""
    name: str
    service: Service
    limits: ListenerLimits
    small_head_bytes: int
    """A head up to this size cannot break a limit."""
    cookieless_head_bytes: int
    """The same for a plain one without `Cookie`."""
    phase_seconds: tuple[float, ...]
    """How long each phase of a connection may last, by its value."""
    forwarded: Forwarded
    owns_client_cert: bool
    """No `X-Forwarded-Client-Cert` of a caller's passes: inbound, and where the listener itself verifies."""
    tells_of_client: bool
    """Something of that, or of `Forwarded` and the like, is to be dropped or added."""
    protocol: HttpVersion
    is_trusted: bool
    overload: Overload
    gate: Gate | None
    """Where new work waits; None: it does not have to."""
    is_ending: bool
    """Each answer closes its connection."""

    @property
    @abstractmethod
    def takes_connect(self) -> bool:
        """It is the app's own calls that arrive here."""

    @property
    @abstractmethod
    def unmatched(self) -> Unmatched:
        """What becomes of what no route names."""

    @property
    @abstractmethod
    def opaque_ports(self) -> frozenset[int]:
        """Destinations whose bytes are passed on without a look at them."""

    @abstractmethod
    def accept(self, connection: Any) -> bool:
        """Whether another one is let in."""

    @abstractmethod
    def shaken(self, result: Handshake, peer: tuple[str, int] | None = None, detail: str = "") -> None:
        """A TLS handshake has ended so."""

    @abstractmethod
    def detect(self, connection: Any, link: Link, asked: Asked, data: bytes) -> None:
        """What arrives on it now is whatever its CONNECT was made for. `data`: what has come of that already."""

    @abstractmethod
    def forget(self, connection: Any) -> None:
        """It has closed, or became a tunnel."""

    @abstractmethod
    def replace(self, connection: Any, by: Any) -> None:
        """It goes on as another protocol's."""
