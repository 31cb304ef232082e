"""What holds for the process as a whole."""

from __future__ import annotations

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot.endpoint import Address
from sidecar.core.snapshot.telemetry import MOST_SERIES
from sidecar.core.snapshot.tls import CertificateFiles


@dataclass(frozen=True, slots=True)
class Admin:
    address: Address
    token_file: str | None = None
    trace_url: str | None = None
    """Template for links to a trace, with `{trace_id}`."""


@dataclass(frozen=True, slots=True)
class Drain:
    timeout_seconds: float = 25.0
    delay_seconds: float = 3.0
    """New connections are still served this long after the process has said that it goes."""


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Of the process, over all listeners and upstreams."""

    memory_bytes: int | None = None
    """For all connections together, see `core/memory_budget.py`. None: a quarter of the container's limit, else 64
    MiB."""
    max_requests: int = 4096
    """Exchanges in flight at once."""
    series: int = MOST_SERIES
    """Of metrics, by what requests came to, see `Numbers.max_series`."""


MOST_WORKERS = 64
"""Beyond it, one control process would be what all wait for."""


@dataclass(frozen=True, slots=True)
class RedisTls:
    """What a Redis has to prove, and how the sidecar proves itself to it."""

    ca: str | None = None
    """A PEM file: who signs its certificate; None: those whom the system trusts."""
    certificate: CertificateFiles | None = None
    """Shown where it asks for one."""


@dataclass(frozen=True, slots=True)
class RedisPolicy:
    """Where the replicas of a fleet meet."""

    url: str
    password_file: str | None = None
    """Holds the password alone; read at each connection, so that another one may take its place."""
    tls: RedisTls | None = None
    prefix: str = "sidecar"
    """Of every key."""
    fleet: str | None = None
    """Replicas of one name act as one; None: the name of the service."""


@dataclass(frozen=True, slots=True)
class Share:
    """How breakers of `scope: fleet` learn of each other."""

    redis: RedisPolicy | None = None
