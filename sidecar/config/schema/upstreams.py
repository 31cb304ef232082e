"""An upstream as the file writes it, and the ones that a URL in a route implies."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from sidecar.config.schema import values
from sidecar.config.schema.endpoints import EndpointSection, short_form, written
from sidecar.config.schema.form import Form, Hidden, flow
from sidecar.config.schema.health_checks import FailoverSection, HealthCheckSection, failover_to
from sidecar.config.schema.section import Section, key, required
from sidecar.config.schema.tls import UpstreamTlsSection
from sidecar.config.schema.units import parse_upstream_url
from sidecar.config.schema.values import OrShorthand
from sidecar.core import snapshot as core

_SHORT = {"type": "string", "examples": ["payments:80", "unix:/run/app.sock"]}


class UpstreamLimitsSection(Section):
    built_in = core.UpstreamLimits()

    max_connections: values.Count | None = key(
        "Connections to the upstream at once.", fills="max_connections"
    )
    max_pending: values.CountOrZero | None = key(
        "Exchanges that may wait for a connection; 503 beyond, and with 0 nobody waits.", fills="max_pending"
    )
    max_requests: values.Count | None = key("Exchanges in flight at once; 503 beyond.", fills="max_requests")
    adaptive: values.AdaptiveName | None = key(
        "`on` finds a limit below `max_requests` by the time that the heads of good answers take, and answers 503 "
        "to what would only stand in a line at the upstream; `observe` counts what `on` would have refused "
        "(`sidecar.adaptive.requests`), `off` does neither.",
        fills="adaptive",
    )


class UpstreamTimeoutsSection(Section):
    built_in = core.Upstream("", ())

    connect: values.Duration | None = key(
        "To establish a connection, its TLS handshake included; 504 beyond.", fills="connect_seconds"
    )
    idle: values.Duration | None = key(
        "An unused connection is closed after this long; keep it below the upstream's own.",
        fills="idle_seconds",
    )


class HashSection(Section):
    """Exactly one of the three."""

    header: values.HeaderName | None = key("A field of the request.", examples=["x-user"])
    cookie: values.CookieName | None = key("A cookie of the request.", examples=["session"])
    client: values.Flag | None = key("`true`: the address that the request comes from.", examples=[True])


def _hash_key(section: HashSection) -> core.HashKey:
    if section.header is not None:
        return core.HashKey(core.HashOn.HEADER, section.header.encode())
    if section.cookie is not None:
        return core.HashKey(core.HashOn.COOKIE, section.cookie.encode())
    return core.HashKey(core.HashOn.CLIENT)


def _tell_hash_key(hash_key: core.HashKey | None, _: Hidden) -> str | None:
    if hash_key is None:
        return None
    return flow({hash_key.on.value: hash_key.name.decode() or True})


class BalancingSection(Section):
    built_in = core.BalancingPolicy()

    policy: values.BalancingName | None = key(
        "`least_request`: the one of two random endpoints with fewer requests in flight; `peak_ewma`: with less of "
        "that times the time that its attempts take; `round_robin`: in turn; `ring_hash`: by `hash_on`.",
        fills="policy",
    )
    hash_on: HashSection | None = key(
        "For `ring_hash`: requests in which this is equal go to the same endpoint, as long as that is usable and has "
        "less than 1.25 times its part of the load; those without it go by `least_request`.",
        fills="hash_key",
        form=Form(_hash_key, tell=_tell_hash_key),
    )
    zone: values.ZonePreference | None = key(
        "`prefer`: endpoints of our own zone (`SIDECAR_ZONE`) go first and the others take over by degrees, where a "
        "zone is known of every usable one; `any`: zones do not matter.",
        fills="prefers_zone",
    )
    slow_start: values.DurationOrZero | None = key(
        "A new endpoint comes to its whole share in this time, from 10 % on. One that is back from an ejection takes "
        "10s at least.",
        fills="slow_start_seconds",
    )


class EjectionSection(Section):
    built_in = core.EjectionPolicy()

    mode: values.EjectionModeName | None = key(
        "`enforce` leaves bad endpoints out, where there are two or more; `off` does not tell endpoints apart.",
        fills="is_on",
    )
    consecutive_failures: values.CountOrZero | None = key(
        "Failures of one endpoint in a row after which it is left out; 0 switches this off.",
        fills="consecutive_failures",
    )
    failure_rate_threshold: values.PositiveShare | None = key(
        "Share of an endpoint's failed calls at which it is left out.", fills="failure_rate_threshold"
    )
    minimum_calls: values.Count | None = key(
        "Below this many calls of an endpoint within `interval` no rate is judged.", fills="minimum_calls"
    )
    interval: values.Duration | None = key(
        "What the rate is computed over, from an endpoint's first failure on. If the majority fails within it, that "
        "is the upstream, and nobody further is left out.",
        fills="interval_seconds",
    )
    slower_than_peers: values.FactorOrOff | None = key(
        "An endpoint is left out, too, if its median is this many times that of its peers; needs three of them, with "
        "20 calls each.",
        examples=[5],
        fills="slower_than_peers",
    )
    base: values.Duration | None = key(
        "How long an endpoint is left out, times how often it was; one is taken off for each `base` without that.",
        fills="base_seconds",
    )
    max: values.Duration | None = key("Where that growth ends.", fills="max_seconds")
    max_ejected: values.Share | None = key(
        "The largest share of endpoints that are left out at once, but one of two or more; 0% leaves nobody out.",
        fills="max_ejected",
    )
    panic: values.Share | None = key(
        "With a smaller share of usable endpoints all are used alike; 0%: never.", fills="panic"
    )


class UpstreamSection(Section):
    built_in = core.Upstream("", ())

    endpoints: list[Annotated[EndpointSection, OrShorthand(short_form, _SHORT)]] = required(
        "Where requests go: addresses, names, or sources that list endpoints; each alone, or with its weight, "
        "priority and zone.",
        examples=[["payments:80"]],
        fills="endpoints",
        form=Form(
            lambda sections: tuple(section.endpoint() for section in sections),
            lambda endpoints: [written(endpoint) for endpoint in endpoints],
        ),
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
    load_balancing: BalancingSection | None = key("Which endpoint gets the next request.", fills="balancing")
    ejection: EjectionSection | None = key(
        "When an endpoint that fails is left out, and for how long.", fills="ejection"
    )

    health_check: HealthCheckSection | None = key(
        "The sidecar itself asks each endpoint, all the time, whether it is well. Unset: it goes by what comes of "
        "the requests alone.",
        fills="health_check",
    )
    failover: (
        Annotated[
            FailoverSection,
            values.OrShorthand(
                failover_to, {"type": "array", "items": {"type": "string"}, "examples": [["payments-dr"]]}
            ),
        ]
        | None
    ) = key(
        "Upstreams that take over when too few endpoints are usable, by degrees; a list is short for `to`. An "
        "upstream whose breaker is open has no usable endpoint.",
        fills="failover",
    )

    def upstream(self, name: str) -> core.Upstream:
        """The upstream of this name."""
        return with_tls(self.store(core.Upstream(name, ())))


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
