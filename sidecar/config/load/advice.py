"""What a configuration may hold and is rarely meant: told by `sidecar check`, and no reason to refuse it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from sidecar.config.load.check import Checked
from sidecar.config.load.server_rules import is_loopback
from sidecar.config.problems import Problem
from sidecar.config.schema.file import Settings
from sidecar.config.schema.routes import DEFAULT_LISTENER, Route
from sidecar.config.schema.upstreams import implicit_upstream
from sidecar.config.yaml.nodes import MappingNode, Node, Sequence
from sidecar.core.snapshot import ClientCertificate, Direction, Upstream

_METADATA_NAMES = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"}
)
_METADATA_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        (
            "169.254.0.0/16",  # link-local: AWS, Google, Azure, and most others
            "fe80::/10",
            "fd00:ec2::/64",  # AWS by IPv6
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure's host
            "192.0.0.192/32",  # Oracle
        ),
    )
)
_OPEN = (
    "warning: everybody who reaches this address can send requests out in this pod's name; 127.0.0.1 is for the app "
    "alone"
)
_NOBODY_ASKS = (
    "warning: no request is of a known client, since the route's listener asks for no certificates: give it `tls` "
    "with `client: request` or `require`"
)
_METADATA = (
    "warning: this is the address of the cloud's metadata, where a node's credentials are: who reaches a route to it "
    "may get them"
)


def advice(
    settings: Checked[Settings],
    top: MappingNode,
    upstreams: Mapping[str, Upstream],
    routes: list[Checked[Route]],
) -> tuple[Problem, ...]:
    """The warnings of a sound configuration, whose document is `top`. None repeats a value, which may be a secret."""
    found = [*_open_listeners(settings)]
    for name, upstream in upstreams.items():
        found += _of_upstream(upstream, top.get("upstreams", name, "endpoints"))
    asking = _asking(settings)
    for route in routes:
        found += _of_route(route)
        found += _of_clients(route, asking)
    return tuple(node.problem(message) for node, message in found)


def is_metadata(host: str) -> bool:
    """Whether a host, lower-case, is where a cloud tells a machine of itself."""
    if host.rstrip(".") in _METADATA_NAMES:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in network for network in _METADATA_NETWORKS)


def _open_listeners(settings: Checked[Settings]) -> Iterator[tuple[Node, str]]:
    for name, section in (settings.value.listeners or {}).items():
        node = settings.node.get("listeners", name, "address")
        address = section.address_of(name)
        is_egress = section.direction_of(name) is Direction.OUTBOUND
        if node is not None and address is not None and is_egress and not is_loopback(address):
            yield node, _OPEN


def _asking(settings: Checked[Settings]) -> frozenset[str]:
    """The listeners that ask their clients for certificates."""
    return frozenset(
        name
        for name, section in (settings.value.listeners or {}).items()
        if section.tls is not None and section.tls.client not in (None, ClientCertificate.OFF)
    )


def _of_clients(route: Checked[Route], asking: frozenset[str]) -> Iterator[tuple[Node, str]]:
    if (route.value.listener or DEFAULT_LISTENER) in asking:
        return
    written = route.node.get("match")
    for match in written.items if isinstance(written, Sequence) else (written,):
        node = match.get("client") if isinstance(match, MappingNode) else None
        if node is not None:
            yield node, _NOBODY_ASKS


def _of_upstream(upstream: Upstream, node: Node | None) -> Iterator[tuple[Node, str]]:
    items = node.items if isinstance(node, Sequence) else ()
    for endpoint, item in zip(upstream.endpoints, items, strict=False):
        if is_metadata(endpoint.host):
            yield item, _METADATA


def _of_route(route: Checked[Route]) -> Iterator[tuple[Node, str]]:
    """An upstream that is written as a URL, in the route, its fallback or its mirror."""
    fallback, mirror = route.value.fallback, route.value.mirror
    for written, path in (
        (route.value.upstream, ("upstream",)),
        (fallback.upstream if fallback is not None else None, ("fallback", "upstream")),
        (mirror.upstream if mirror is not None else None, ("mirror", "upstream")),
    ):
        node = route.node.get(*path)
        if written is None or "://" not in written or node is None:
            continue
        if is_metadata(implicit_upstream(written).endpoints[0].host):
            yield node, _METADATA
