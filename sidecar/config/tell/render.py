"""A snapshot's values as a file would write them: dotted YAML keys, durations and shares with their units.

What two snapshots differ in, and what an effective configuration says, is told in these words. How a key is written
is in its declaration (see `schema/section.py`). Secrets are never told: of a value that may be one there is a mark
alone.
"""

from __future__ import annotations

from sidecar.config.schema.file import Settings
from sidecar.config.schema.listeners import ListenerSection
from sidecar.config.schema.routes import Route as RouteSection
from sidecar.config.schema.upstreams import UpstreamSection
from sidecar.core.snapshot import Listener, Route, Snapshot, Upstream

Rendered = dict[str, str]
"""Dotted key → value. A key that is unset is not in it."""

_FIRST = ("listener", "match", "upstream", "weights")
"""What a route is about, before its policies."""


def route(value: Route) -> Rendered:
    """Everything of a route but its name."""
    told = RouteSection.told(value, value.hidden)
    del told["name"]
    return {**{key: told[key] for key in _FIRST if key in told}, **told}


def upstream(value: Upstream) -> Rendered:
    return UpstreamSection.told(value)


def listener(value: Listener) -> Rendered:
    return ListenerSection.told(value)


def process(value: Snapshot) -> Rendered:
    """What belongs to the process: its servers, its telemetry, its end."""
    return Settings.told(value)
