"""An upstream as the file writes it, and the ones that a URL in a route implies."""

from __future__ import annotations

from dataclasses import replace

from sidecar.config.schema import values
from sidecar.config.schema.form import Form
from sidecar.config.schema.section import Section, key, required
from sidecar.config.schema.tls import UpstreamTlsSection
from sidecar.config.schema.units import parse_upstream_url
from sidecar.core import snapshot as core


class UpstreamLimitsSection(Section):
    built_in = core.UpstreamLimits()

    max_connections: values.Count | None = key(
        "Connections to the upstream at once.", fills="max_connections"
    )
    max_pending: values.CountOrZero | None = key(
        "Exchanges that may wait for a connection; 503 beyond, and with 0 nobody waits.", fills="max_pending"
    )
    max_requests: values.Count | None = key("Exchanges in flight at once; 503 beyond.", fills="max_requests")


class UpstreamTimeoutsSection(Section):
    built_in = core.Upstream("", ())

    connect: values.Duration | None = key(
        "To establish a connection, its TLS handshake included; 504 beyond.", fills="connect_seconds"
    )
    idle: values.Duration | None = key(
        "An unused connection is closed after this long; keep it below the upstream's own.",
        fills="idle_seconds",
    )


class UpstreamSection(Section):
    built_in = core.Upstream("", ())

    endpoints: list[values.EndpointAddress] = required(
        "host:port, [v6]:port or unix:/path; `https://host` for TLS as `tls` says, with port 443 unless another is "
        "given. A name is resolved again when its TTL ends, and every address it has is an endpoint.",
        examples=[["payments:80"]],
        fills="endpoints",
        form=Form(tuple, lambda endpoints: [written(endpoint) for endpoint in endpoints]),
    )
    limits: UpstreamLimitsSection | None = key("What the upstream may be asked for at once.", fills="limits")
    protocol: values.UpstreamHttpName | None = key(
        "What its endpoints speak: `http1`, or `http2`, without `tls` by prior knowledge (h2c), as gRPC servers do. "
        "With `tls` the handshake must agree on it (ALPN), and `auto` takes what it agrees on.",
        fills="protocol",
    )
    mesh: values.Flag | None = key(
        "A sidecar of ours stands in front of it too: its refusals are known as such and count for no breaker here.",
        fills="is_mesh",
    )
    timeouts: UpstreamTimeoutsSection | None = key("Of its connections.")
    tls: UpstreamTlsSection | None = key(
        "How connections to it are encrypted. Unset: in clear text, unless its endpoints are written with `https://`.",
        fills="tls",
    )

    def upstream(self, name: str) -> core.Upstream:
        """The upstream of this name."""
        return with_tls(self.store(core.Upstream(name, ())))


def written(endpoint: core.Endpoint) -> str:
    """As the file says it."""
    return f"https://{endpoint}" if endpoint.is_https else str(endpoint)


def with_tls(upstream: core.Upstream) -> core.Upstream:
    """With what `https://` stands for."""
    if upstream.tls is None and any(endpoint.is_https for endpoint in upstream.endpoints):
        return replace(upstream, tls=core.UpstreamTls())
    return upstream


def upstream_name(written: str) -> str:
    """The name of what `upstream:` says: for a URL, that of the implicit upstream, `host:port`."""
    return str(parse_upstream_url(written)) if "://" in written else written


def implicit_upstream(url: str) -> core.Upstream:
    endpoint = parse_upstream_url(url)
    return with_tls(core.Upstream(str(endpoint), (endpoint,)))
