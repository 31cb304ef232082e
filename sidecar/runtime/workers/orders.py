"""What supervisor and children say to each other over the lifeline (`lifeline.py`): small, and seldom."""

from __future__ import annotations

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Address
from sidecar.runtime.workers.sockets import Identity

# From the supervisor


@dataclass(frozen=True, slots=True)
class Connect:
    """With the end of a new channel: to control, one to a worker; to a worker, the one to control."""

    number: int
    pid: int
    """The other side's."""
    deaths: int = 0
    """Of the worker, so far."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take from the sockets of a worker that is not there."""

    number: int


@dataclass(frozen=True, slots=True)
class Leave:
    """That worker is back."""

    number: int


@dataclass(frozen=True, slots=True)
class NewSockets:
    """With the sockets of an address that a reload has brought."""

    one: Identity


@dataclass(frozen=True, slots=True)
class KeepSockets:
    """All addresses that are in use; the others are closed. From control, and passed on to workers."""

    identities: tuple[Identity, ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """End: let finish what is under way."""

    is_urgent: bool = False
    """Without the delay in which load balancers notice."""
    signal: str | None = None
    """The name of the one that the supervisor got; None: it got none."""
    is_replaced: bool = False
    """Another pod has the same sockets and serves: end none of them."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """For control: what do its servers listen on?"""


@dataclass(frozen=True, slots=True)
class GoOn:
    """For control, after `HandOver`: nobody takes over."""


@dataclass(frozen=True, slots=True)
class Reload:
    """SIGHUP, for control."""


@dataclass(frozen=True, slots=True)
class End:
    """All workers have gone, control may go."""


@dataclass(frozen=True, slots=True)
class Died:
    """For control: a child has ended which was not asked to."""

    name: str
    number: int
    pid: int
    told: str
    """By what, and after how long."""
    restarts: int
    """How often it was started again so far, this time included."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to `BindThese`."""

    problem: str = ""
    """Why an address cannot be bound; empty: they are, and workers have been sent them."""


# From children


@dataclass(frozen=True, slots=True)
class Serving:
    """A worker takes connections from its own sockets; control answers."""


@dataclass(frozen=True, slots=True)
class BindThese:
    """Control asks for sockets of addresses, with their keys in the configuration."""

    addresses: tuple[tuple[Address, str], ...]


@dataclass(frozen=True, slots=True)
class Configured:
    """With a file in memory that holds the snapshot in use: what a child that is started from now on begins with."""

    generation: int
    drain_seconds: float
    """What a drain may take in all by it."""


@dataclass(frozen=True, slots=True)
class Remember:
    """With a file in memory that the next control process is given: what the dead had counted."""


@dataclass(frozen=True, slots=True)
class LogLevel:
    """An operator wants lines of at least this level, of all that a pod writes."""

    name: str


@dataclass(frozen=True, slots=True)
class Listening:
    """With the sockets of control's servers: the answer to `HandOver`."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Control was asked to end the pod's process."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Control has not heard of a worker for too long, or a worker of control."""

    number: int
    pid: int


Order = (
    Connect
    | Adopt
    | Leave
    | NewSockets
    | KeepSockets
    | Drain
    | HandOver
    | GoOn
    | Reload
    | End
    | Died
    | Answered
    | Serving
    | BindThese
    | Configured
    | Remember
    | LogLevel
    | Listening
    | Quit
    | Kill
)
