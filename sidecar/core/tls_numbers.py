"""What is counted of TLS: how handshakes end, and how long certificates are still good for."""

from __future__ import annotations

from enum import Enum

from sidecar.core.dataclass import dataclass


class Handshake(Enum):
    """How one with a client has ended."""

    DONE = "done"
    LEFT = "left"
    """The client closed before its end: also whoever looks only whether the port is open."""
    TIMEOUT = "timeout"
    NOT_TLS = "not_tls"
    """What came is something else, such as plain HTTP."""
    TOO_LONG = "too_long"
    NO_PROTOCOL = "no_protocol"
    """The client offers protocols of which none is spoken here (ALPN)."""
    CERTIFICATE = "certificate"
    """The client's is bad, or missing where it is required."""
    ALERT = "alert"
    """The client has ended it, and said why: as a rule it does not trust our certificate."""
    FAILED = "failed"
    """Any other way, such as no version of TLS in common."""
    MEMORY = "memory"
    """Closed to give memory back."""


@dataclass(frozen=True, slots=True)
class CertificateNumbers:
    """One certificate in use."""

    owner: str
    """`listener/NAME` or `upstream/NAME`."""
    file: str
    seconds_left: float
    """Until it expires; negative afterwards."""
