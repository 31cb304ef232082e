"""Where an upstream's requests go: an address, or a source that lists addresses."""

from __future__ import annotations

from typing import Any

from sidecar.config.schema import values
from sidecar.config.schema.section import Section, key, required
from sidecar.core import snapshot as core
from sidecar.core.snapshot import Endpoint


def short_form(value: object) -> object:
    """An address alone stands for an endpoint of weight 1."""
    return value if isinstance(value, dict) else {"address": value}


class EndpointSection(Section):
    """A text stands for its `address`."""

    built_in = core.Endpoint("", 0)

    address: values.EndpointAddress = required(
        "host:port, [v6]:port or unix:/path; `https://host` for TLS as `tls` says, with port 443 unless another is "
        "given. A name is resolved again when its TTL ends, and every address it has is an endpoint. Or a source "
        "that lists endpoints: `srv://NAME` (DNS SRV), `file:///PATH` (watched), "
        "`kubernetes://SERVICE.NAMESPACE:PORT` (EndpointSlices).",
        examples=["payments:80"],
    )
    weight: values.EndpointWeight | None = key(
        "Its share of the requests beside the others'; 0: only if there is no other. Of a name, that of each address."
    )
    priority: values.EndpointPriority | None = key(
        "Endpoints of a higher number take over by degrees as those of a lower one fail: all is well down to 72 % "
        "of them."
    )
    zone: values.ZoneName | None = key(
        "Where it runs. With `SIDECAR_ZONE` set, endpoints of our own zone go first, if that of all is known.",
        examples=["eu-west-1a"],
    )

    def endpoint(self) -> Endpoint:
        address = self.address
        return Endpoint(
            address.host,
            address.port,
            address.path,
            is_https=address.is_https,
            source=address.source,
            weight=1 if self.weight is None else self.weight,
            priority=self.priority or 0,
            zones=() if self.zone is None else (self.zone,),
        )


def written(endpoint: Endpoint) -> Any:
    """As the file says it."""
    address = f"https://{endpoint}" if endpoint.is_https else str(endpoint)
    more: dict[str, Any] = {}
    if endpoint.weight != 1:
        more["weight"] = endpoint.weight
    if endpoint.priority:
        more["priority"] = endpoint.priority
    if endpoint.zones:
        more["zone"] = endpoint.zones[0]
    return {"address": address, **more} if more else address
