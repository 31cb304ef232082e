"""The whole of one configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot.endpoint import Address
from sidecar.core.snapshot.listener import Listener
from sidecar.core.snapshot.process import Admin, Drain, ProcessLimits, Share
from sidecar.core.snapshot.route import Route
from sidecar.core.snapshot.telemetry import Telemetry
from sidecar.core.snapshot.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Snapshot:
    listeners: Mapping[str, Listener]
    upstreams: Mapping[str, Upstream]
    routes: tuple[Route, ...]
    """In the order of the file."""
    probes: Address
    admin: Admin
    passed: Mapping[str, Route] = field(default_factory=dict)
    """By listener with `unmatched: pass_through`: the policies of what no route names."""
    telemetry: Telemetry = Telemetry()
    drain: Drain = Drain()
    limits: ProcessLimits = ProcessLimits()
    workers: int | str = 1
    """Processes that serve; `auto`: one for each core."""
    share: Share = Share()
    files: tuple[str, ...] = ()
    """Every file this snapshot was read from."""
    digest: str = ""
    """Of the files' content, to tell a real change from a touched file."""
