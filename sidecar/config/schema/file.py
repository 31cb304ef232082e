"""The file format as a whole: one class for each mapping, a declaration for each key. Values, not rules between them.

Rules that need two keys at once are in `load/route_rules.py` and `load/server_rules.py`.
"""

from __future__ import annotations

from sidecar.config.schema import values
from sidecar.config.schema.addresses import ADMIN_ADDRESS, PROBES_ADDRESS
from sidecar.config.schema.listeners import ListenerSection
from sidecar.config.schema.policies import Policies
from sidecar.config.schema.routes import Route
from sidecar.config.schema.section import Section, key, required
from sidecar.config.schema.share import ShareSection
from sidecar.config.schema.telemetry import TelemetrySection
from sidecar.config.schema.upstreams import UpstreamSection
from sidecar.core import snapshot as core

BUILT_IN = core.Snapshot({}, {}, (), PROBES_ADDRESS, core.Admin(ADMIN_ADDRESS))
"""Of a file that says nothing."""


class AdminSection(Section):
    built_in = core.Admin(ADMIN_ADDRESS)

    address: values.ListenAddress | None = key(
        "Of the admin API, which may change state: loopback or a UNIX socket, else `token_file` is needed.",
        fills="address",
    )
    token_file: values.FileName | None = key(
        "A file that holds the bearer token callers must send, relative to the configuration file. "
        "Unset: no token is asked for.",
        examples=["/var/run/secrets/sidecar/token"],
        fills="token_file",
    )
    trace_url: values.TraceUrl | None = key(
        "Template of links to a trace in the dashboard, with {trace_id}. Unset: no links.",
        examples=["http://jaeger:16686/trace/{trace_id}"],
        fills="trace_url",
    )


class ProbesSection(Section):
    built_in = BUILT_IN

    address: values.ListenAddress | None = key(
        "Of /livez, /readyz, /startupz and /metrics; read only.", fills="probes"
    )


class DrainSection(Section):
    built_in = BUILT_IN

    delay: values.DurationOrZero | None = key(
        "New connections are still served this long after SIGTERM, while /readyz already fails: time for "
        "load balancers to notice. Counted from `POST /drain` where that came before; 0s where nobody has "
        "to notice, as in a Job.",
        fills="drain.delay_seconds",
    )


class ProcessLimitsSection(Section):
    built_in = BUILT_IN.limits

    memory: values.Size | None = key(
        "For all connections together: heads, bodies and answers that wait, and 4 KiB for each connection. Above it "
        "those are closed that hold most for longest without a byte. Unset: a quarter of the container's limit of "
        "memory, 64MiB without one.",
        examples=["32MiB"],
        fills="memory_bytes",
    )
    max_requests: values.Count | None = key(
        "Exchanges in flight at once, over all listeners; 503 beyond. The app's own calls may come to twice as many, "
        "those of `critical` routes to a tenth more.",
        fills="max_requests",
    )
    series: values.Count | None = key(
        "Rows of `http.server.request.duration` and `http.client.request.duration` together: one for each route, "
        "upstream, method, status and error that there was. Beyond it what is new shares one row for each route and "
        "method (`otel.metric.overflow`), and `sidecar.telemetry.overflowed` counts it. With several workers each "
        "has so many, and so has their sum.",
        fills="series",
    )


class Settings(Section):
    """The top level without what is checked item by item."""

    built_in = BUILT_IN

    version: values.Version = required("Of the file format; 1 is the only one.", examples=[1])
    workers: values.Workers | None = key(
        "Processes that serve traffic, or `auto`: one for each core that this process may use. With more than one, a "
        "control process has the admin API, probes and metrics of all, `limits` and those of upstreams and listeners "
        "are divided among them, as are `retry.budget.min_per_second` and `mirror.max_in_flight`, and listeners have "
        "at most 128 addresses.",
        fills="workers",
    )
    listeners: dict[values.Name, ListenerSection] | None = key(
        "Addresses that accept traffic, by name. Unset: `inbound` (calls to this pod's app) and `outbound` "
        "(the app's calls to others) at their built-in addresses; given, only those given exist."
    )
    admin: AdminSection | None = key("The admin API.", fills="admin")
    probes: ProbesSection | None = key("What an orchestrator asks.")
    telemetry: TelemetrySection | None = key("Traces, metrics and logs.", fills="telemetry")
    drain_timeout: values.Duration | None = key(
        "Exchanges in flight may take this long after SIGTERM and `drain.delay`; they are cut off beyond.",
        fills="drain.timeout_seconds",
    )
    drain: DrainSection | None = key("The beginning of the end.")
    limits: ProcessLimitsSection | None = key("Of the whole process.", fills="limits")
    share: ShareSection | None = key("Where breakers of `scope: fleet` learn of each other.", fills="share")


class File(Settings):
    """A whole configuration file."""

    upstreams: dict[values.Name, UpstreamSection] | None = key("Groups of endpoints, by name.")
    defaults: Policies | None = key("Policies of every route that does not say otherwise, key by key.")
    routes: list[Route] = required("The rules; the most specific match wins, then the order here.")
