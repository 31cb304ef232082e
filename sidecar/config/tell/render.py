"""A snapshot's values as a file would write them: dotted YAML keys, durations and shares with their units.

What two snapshots differ in, and what an effective configuration says, is told in these words. How a key is written
is in its declaration (see `schema/section.py`). Secrets are never told: of a value that may be one there is a mark
alone.

A process that serves traffic needs the declarations for a reload's differences and for `GET /config` alone. They take
1.2 MiB and 30 ms to import, so each function here imports its own; `prepare` does it ahead, in a thread.
"""

from __future__ import annotations

from sidecar.core.snapshot import Listener, Route, Snapshot, Upstream

Rendered = dict[str, str]
"""Dotted key → value. A key that is unset is not in it."""

_FIRST = ("listener", "match", "upstream", "weights")
"""What a route is about, before its policies."""


def prepare() -> None:
    """Import the declarations now: for a thread, before an event loop calls one of the functions below."""
    from sidecar.config.schema import file  # noqa: F401


def route(value: Route) -> Rendered:
    """Everything of a route but its name."""
    from sidecar.config.schema.routes import Route as RouteSection

    told = RouteSection.told(value, value.hidden)
    del told["name"]
    return {**{key: told[key] for key in _FIRST if key in told}, **told}


def upstream(value: Upstream) -> Rendered:
    from sidecar.config.schema.upstreams import UpstreamSection

    return UpstreamSection.told(value)


def listener(value: Listener) -> Rendered:
    from sidecar.config.schema.listeners import ListenerSection

    return ListenerSection.told(value)


def process(value: Snapshot) -> Rendered:
    """What belongs to the process: its servers, its telemetry, its end."""
    from sidecar.config.schema.file import Settings

    return Settings.told(value)
