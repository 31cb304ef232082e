"""What the sidecar asks of endpoints by itself, as the file writes it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sidecar.config.schema import values
from sidecar.config.schema.section import Section, key, required
from sidecar.core import snapshot as core

NO_KIND = core.CheckPolicy(path=None)
"""A question of which it is not said yet what is asked."""


class GrpcCheckSection(Section):
    built_in = NO_KIND

    service: values.Text | None = key(
        "Whose health is asked for. Unset: that of the server as a whole.",
        examples=["shop.Payments"],
        fills="service",
    )

    def _changes(self, base: Any, but: Collection[str] = ()) -> dict[str, Any]:
        return {"service": self.service or ""}


class HealthCheckSection(Section):
    built_in = core.HealthCheckPolicy(check=NO_KIND)

    path: values.Path | None = key(
        "Asked with GET; a status from 200 to 399 is good. One of `path`, `tcp` and `grpc` is given.",
        examples=["/healthz"],
        fills="check.path",
    )
    tcp: values.EmptyMapping | None = key(
        "`{}`: a connection is enough, with its TLS handshake where the upstream has a `tls`.",
        fills="check.is_tcp",
    )
    grpc: GrpcCheckSection | None = key(
        "The service `grpc.health.v1.Health` is asked, and has to say SERVING. Needs `protocol: http2` or `auto`.",
        fills="check",
    )
    host: values.RewriteHost | None = key(
        "What `Host` (`:authority`) says. Unset: the endpoint as it is configured.",
        examples=["payments.internal"],
        fills="check.host",
    )
    interval: values.Duration | None = key(
        "From one check of an endpoint to the next, 5 % more or less by chance; the first one comes anywhere in it.",
        fills="interval_seconds",
    )
    timeout: values.Duration | None = key(
        "For all of one check, with the connection that it opens; at most `interval`.",
        fills="check.timeout_seconds",
    )
    healthy: values.Count | None = key(
        "Checks in a row that must pass for an unhealthy endpoint to be used again. They end an ejection, too.",
        fills="healthy",
    )
    unhealthy: values.Count | None = key(
        "Checks in a row that must fail for an endpoint to be left out.", fills="unhealthy"
    )


def failover_to(value: object) -> object:
    """A list of names is short for `to`."""
    return {"to": value} if isinstance(value, list) else value


class FailoverSection(Section):
    built_in = core.FailoverPolicy(())

    to: list[values.Name] = required(
        "Upstreams that take over, in this order.",
        examples=[["payments-dr"]],
        fills="to",
        form=values.TUPLE,
    )
    below: values.PositiveShare | None = key(
        "It begins when less than this share of the endpoints is usable. From then on the upstream keeps 1.4 times "
        "the share that is usable, and the rest goes over.",
        fills="below",
    )
    back: values.BackAfterText | None = key(
        "It ends when this share of the endpoints has been usable for so long; the load comes back over 30s.",
        fills="back",
    )
