"""What log and spans tell alike of all attempts at one endpoint. One for each pool of connections, made anew when
something of it changes, so that an attempt's record holds it by one reference, and what is made of it can be kept
by its identity."""

from __future__ import annotations

from typing import Final

from sidecar.core.contract import SLOTTED
from sidecar.core.path_dataclass import dataclass
from sidecar.core.secured import TlsFacts
from sidecar.core.snapshot import Endpoint


@dataclass(frozen=True, eq=False, **SLOTTED)
class EndpointFacts:
    """Compared by identity."""

    endpoint: Endpoint | None
    """None when no endpoint could be had."""
    http_version: str = "1.1"
    """Spoken with the upstream: `1.1` or `2`."""
    scheme: str = "http"
    """`http` or `https`."""
    tls: TlsFacts | None = None
    """Of the last handshake with that endpoint; None in clear text, and where none has succeeded."""


NO_ENDPOINT: Final = EndpointFacts(None)
