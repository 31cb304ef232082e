"""What the admin server is given of the process that it shows and changes: the whole of what it may know.

`runtime/` implements `Process`; everything here is read and called on the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sidecar.admin.probes import Vitals
from sidecar.admin.recent import Recent
from sidecar.admin.tap import Taps
from sidecar.core.adaptive import AdaptiveLimit
from sidecar.core.breaker import Breaker
from sidecar.core.ejection.standing import Standing
from sidecar.core.failover import Failover
from sidecar.core.listing import Listing
from sidecar.core.outcomes.store import OutcomeStore
from sidecar.core.override import Command
from sidecar.core.snapshot import Endpoint, Route, Snapshot, Upstream

Data = dict[str, Any]
"""A JSON object."""


class Pool(Protocol):
    """One endpoint's connections."""

    endpoint: Endpoint
    in_flight: int
    standing: Standing
    is_own_pod: bool

    @property
    def idle_count(self) -> int: ...
    @property
    def open_count(self) -> int: ...


class Cluster(Protocol):
    """One upstream as it lives."""

    name: str
    policy: Upstream
    in_flight: int
    connections: int
    overflows: int

    @property
    def adaptive_in_flight(self) -> int: ...
    @property
    def pending(self) -> int: ...
    @property
    def pools(self) -> Sequence[Pool]: ...
    @property
    def adaptive(self) -> AdaptiveLimit | None: ...


class Standby(Protocol):
    """Who takes over from an upstream of a route."""

    failover: Failover
    trials: int
    """Requests that were to find out how the upstream is."""

    @property
    def moved(self) -> Mapping[str, int]:
        """Requests that went to each of them."""


class Undecided(Exception):
    """Whether a configuration is good could not be found out; the text says why."""


class Ending(Exception):
    """This process drains and takes no new configuration any more: the one that takes its place reads the new one."""

    def __init__(self) -> None:
        super().__init__(
            "this process is ending: it takes no new configuration; ask the one that takes its place"
        )


class Process(Vitals, Protocol):
    """One sidecar process."""

    @property
    def snapshot(self) -> Snapshot:
        """The configuration in use."""

    @property
    def breakers(self) -> Mapping[tuple[str, str], Breaker]:
        """By route and upstream."""

    @property
    def clusters(self) -> Mapping[str, Cluster]: ...
    def listing(self, entry: Endpoint) -> Listing | None:
        """What is known of an entry of an upstream's `endpoints`; None for one that is an endpoint itself."""

    @property
    def standbys(self) -> Mapping[tuple[str, str], Standby]:
        """By route and upstream, for upstreams with a `failover`."""

    @property
    def outcomes(self) -> OutcomeStore:
        """What came of the last requests of each route."""

    @property
    def is_draining(self) -> bool: ...
    @property
    def recent(self) -> Recent:
        """What came of the routes in the last ten minutes."""

    @property
    def taps(self) -> Taps: ...
    @property
    def log_level(self) -> str: ...

    def now(self) -> float:
        """Monotonic seconds, the clock of breakers and transitions."""

    def wall_time(self) -> float:
        """Seconds since the epoch, at the same moment."""

    def vitals(self) -> Data:
        """The process itself, for `/status`: name, version, parts, how the last reload went."""

    async def config(self) -> Data:
        """The configuration in use but for its routes, and the last reload; no secrets."""

    def written(self, route: Route) -> Mapping[str, str]:
        """A route's keys and values as a file would say them; no secrets."""

    def seconds(self, duration: str) -> float:
        """A duration such as `5m`, in seconds.

        Raises:
            ValueError: it is none; the text says what would be.
        """

    async def override(self, command: Command) -> None:
        """An operator has spoken: it acts when this returns."""

    def fleet_of(self, breaker: Breaker) -> Data | None:
        """What the other replicas make of a breaker; None where it acts for itself."""

    def audit(self, message: str, fields: Mapping[str, Any]) -> None:
        """Write to the event log that somebody has changed something, or tried to."""

    async def set_log_level(self, name: str) -> None:
        """Raises ValueError for an unknown level."""

    async def reload(self) -> Data:
        """Load the configuration again; the answer has `is_success` and, if it is bad, `problems`.

        Raises:
            RuntimeError: there is nothing to load, or it cannot be done now.
            Undecided: nothing is known of it, and the one in use stays.
            Ending: the process is about to end.
        """

    def drain(self) -> None:
        """Stop being ready, and let every client's connection end with its next answer."""

    def quit(self) -> None:
        """The same as SIGTERM. A second call changes nothing."""
