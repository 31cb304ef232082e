"""The file format: one class for each mapping of the file, a description under each key. Values, not rules
between them.

Rules that need two keys at once are in `route_rules.py` and `server_rules.py`; the policies of a route
are in `policies.py`.
"""

from __future__ import annotations

from sidecar.config.schema import values
from sidecar.config.schema.addresses import ADMIN_ADDRESS, LISTENER_ADDRESSES, PROBES_ADDRESS
from sidecar.config.schema.policies import Policies, Route
from sidecar.config.schema.units import format_duration, format_share, format_size
from sidecar.config.schema.values import Section, required, setting
from sidecar.core.snapshot import (
    AccessLog,
    Drain,
    Endpoint,
    ListenerLimits,
    ListenerTimeouts,
    Otlp,
    Telemetry,
    Trust,
    Upstream,
    UpstreamLimits,
)

DEFAULT_LISTENER = "inbound"
"""Of a route that names none."""

_LIMITS = ListenerLimits()
_TIMEOUTS = ListenerTimeouts()
_UPSTREAM = Upstream("", (Endpoint("", 0),))
_UPSTREAM_LIMITS = UpstreamLimits()
_TELEMETRY = Telemetry()
_ACCESS_LOG = AccessLog()
_DRAIN = Drain()


class ListenerLimitsSection(Section):
    connections: values.Count | None = setting(
        "Client connections at once; the next one is closed at once and counted.", default=_LIMITS.connections
    )
    head: values.Size | None = setting(
        "Request line and header fields of one request; 431 beyond.", default=format_size(_LIMITS.head_bytes)
    )
    headers: values.Count | None = setting(
        "Header fields of one request; 431 beyond.", default=_LIMITS.headers
    )
    url: values.Size | None = setting("Request target; 414 beyond.", default=format_size(_LIMITS.url_bytes))


class ListenerTimeoutsSection(Section):
    head: values.Duration | None = setting(
        "From a request's first byte to the end of its head; the connection is closed beyond.",
        default=format_duration(_TIMEOUTS.head_seconds),
    )
    idle: values.Duration | None = setting(
        "Between two requests on one connection; it is closed beyond.",
        default=format_duration(_TIMEOUTS.idle_seconds),
    )
    body: values.Duration | None = setting(
        "Without progress while a body is read from, or an answer written to, the client; closed beyond.",
        default=format_duration(_TIMEOUTS.body_seconds),
    )


class ListenerSection(Section):
    address: values.ListenAddress | None = setting(
        "Where it listens. `inbound` and `outbound` have one built in "
        f"({LISTENER_ADDRESSES['inbound']} and {LISTENER_ADDRESSES['outbound']}); other names need one."
    )
    limits: ListenerLimitsSection | None = setting("What one client may cost.")
    timeouts: ListenerTimeoutsSection | None = setting("How long a client may take.")
    trust: values.TrustName | None = setting(
        "Whether the mesh's own header fields of its callers are believed: `all` or `none`. With `none`, which "
        "suits a listener that strangers reach, `x-envoy-*` and `Proxy-Status` are dropped; other timeout fields "
        "can only shorten a request, and the trace goes on.",
        default=Trust.ALL.value,
    )
    direction: values.DirectionName | None = setting(
        "Whose calls it takes: `inbound`, those to this pod's app, or `outbound`, those of the app to others. An "
        "outbound call keeps to the deadline of the inbound one that caused it, and ends with it. The names "
        "`inbound` and `outbound` say it themselves; every other name needs one."
    )
    forwarded: values.ForwardedName | None = setting(
        "What upstreams are told of the client in `Forwarded` and `X-Forwarded-For`, `-Proto` and `-Host`: `set` "
        "replaces what came, `append` adds to it, `keep` passes it on as it came, `off` drops it. Unset: `keep` for "
        "outbound listeners; for inbound ones `append`, and `set` with `trust: none`."
    )


class AdminSection(Section):
    address: values.ListenAddress | None = setting(
        "Of the admin API, which may change state: loopback or a UNIX socket, else `token_file` is needed.",
        default=str(ADMIN_ADDRESS),
    )
    token_file: values.NonEmptyText | None = setting(
        "A file that holds the bearer token callers must send, relative to the configuration file. "
        "Unset: no token is asked for.",
        examples=["/var/run/secrets/sidecar/token"],
    )
    trace_url: values.TraceUrl | None = setting(
        "Template of links to a trace in the dashboard, with {trace_id}. Unset: no links.",
        examples=["http://jaeger:16686/trace/{trace_id}"],
    )


class ProbesSection(Section):
    address: values.ListenAddress | None = setting(
        "Of /livez, /readyz, /startupz and /metrics; read only.", default=str(PROBES_ADDRESS)
    )


class OtlpSection(Section):
    endpoint: values.Url = required(
        "The collector: port 4317 for grpc, 4318 for http/protobuf.", examples=["http://otel-collector:4317"]
    )
    protocol: values.Protocol | None = setting("`grpc` or `http/protobuf`.", default=Otlp("").protocol)
    headers: dict[values.HeaderName, values.HeaderValue | None] | None = setting(
        "Sent with each export, for a collector that wants a key.", examples=[{"api-key": "${OTLP_KEY}"}]
    )
    compression: values.Compression | None = setting("`gzip` or `none`.", default="none")


class TracesSection(Section):
    sample_ratio: values.Share | None = setting(
        "Share of the traces that start here which are exported; a caller's sampled flag is always "
        "respected.",
        default=_TELEMETRY.trace_sample_ratio,
    )


class MetricsSection(Section):
    interval: values.Duration | None = setting(
        "Between two exports.", default=format_duration(_TELEMETRY.metrics_interval_seconds)
    )


class AccessLogSection(Section):
    format: values.LogFormatName | None = setting(
        "`json`, `text` or `off`.", default=_ACCESS_LOG.format.value
    )
    sample_ratio: values.Share | None = setting(
        "Share of the exchanges that get a line.", default=format_share(_ACCESS_LOG.sample_ratio)
    )


class TelemetrySection(Section):
    """OTEL_* environment variables win over these."""

    service_name: values.NonEmptyText | None = setting(
        "`service.name` of all that is exported. Unset: OTEL_SERVICE_NAME, else a generic one.",
        examples=["orders"],
    )
    otlp: OtlpSection | None = setting("Where to export to. Unset: nothing is exported.")
    traces: TracesSection | None = setting("Spans.")
    metrics: MetricsSection | None = setting("Metrics by OTLP; /metrics is served in any case.")
    access_log: AccessLogSection | None = setting("One line for each exchange.")
    logs: values.Flag | None = setting(
        "Send events and the access log also as OTLP log records.", default=_TELEMETRY.logs
    )


class DrainSection(Section):
    delay: values.DurationOrZero | None = setting(
        "New connections are still served this long after SIGTERM, while /readyz already fails: time for "
        "load balancers to notice. Counted from `POST /drain` where that came before; 0s where nobody has "
        "to notice, as in a Job.",
        default=format_duration(_DRAIN.delay_seconds),
    )


class UpstreamLimitsSection(Section):
    max_connections: values.Count | None = setting(
        "Connections to the upstream at once.", default=_UPSTREAM_LIMITS.max_connections
    )
    max_pending: values.CountOrZero | None = setting(
        "Exchanges that may wait for a connection; 503 beyond, and with 0 nobody waits.",
        default=_UPSTREAM_LIMITS.max_pending,
    )
    max_requests: values.Count | None = setting(
        "Exchanges in flight at once; 503 beyond.", default=_UPSTREAM_LIMITS.max_requests
    )


class UpstreamTimeoutsSection(Section):
    connect: values.Duration | None = setting(
        "To establish a connection; 504 beyond.", default=format_duration(_UPSTREAM.connect_seconds)
    )
    idle: values.Duration | None = setting(
        "An unused connection is closed after this long; keep it below the upstream's own.",
        default=format_duration(_UPSTREAM.idle_seconds),
    )


class UpstreamSection(Section):
    endpoints: list[values.EndpointAddress] = required(
        "host:port, [v6]:port or unix:/path. A name is resolved again when its TTL ends, and every address "
        "it has is an endpoint.",
        examples=[["payments:80"]],
    )
    limits: UpstreamLimitsSection | None = setting("What the upstream may be asked for at once.")
    timeouts: UpstreamTimeoutsSection | None = setting("Of its connections.")


class Settings(Section):
    """The top level without what is checked item by item."""

    version: values.Version = required("Of the file format; 1 is the only one.", examples=[1])
    listeners: dict[values.Name, ListenerSection] | None = setting(
        "Addresses that accept traffic, by name. Unset: `inbound` (calls to this pod's app) and `outbound` "
        "(the app's calls to others) at their built-in addresses; given, only those given exist."
    )
    admin: AdminSection | None = setting("The admin API.")
    probes: ProbesSection | None = setting("What an orchestrator asks.")
    telemetry: TelemetrySection | None = setting("Traces, metrics and logs.")
    drain_timeout: values.Duration | None = setting(
        "Exchanges in flight may take this long after SIGTERM; they are cut off beyond.",
        default=format_duration(_DRAIN.timeout_seconds),
    )
    drain: DrainSection | None = setting("The beginning of the end.")


class File(Settings):
    """A whole configuration file."""

    upstreams: dict[values.Name, UpstreamSection] | None = setting("Groups of endpoints, by name.")
    defaults: Policies | None = setting("Policies of every route that does not say otherwise, key by key.")
    routes: list[Route] = required("The rules; the most specific match wins, then the order here.")
