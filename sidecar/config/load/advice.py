"""What a configuration may hold and is rarely meant: told by `sidecar check`, and no reason to refuse it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from sidecar.config.load.action_rules import match_nodes
from sidecar.config.load.check import Checked
from sidecar.config.load.server_rules import is_loopback
from sidecar.config.load.urls import urls_of
from sidecar.config.problems import ADVICE, Problem
from sidecar.config.schema.file import Settings
from sidecar.config.schema.routes import DEFAULT_LISTENER, Match, Route
from sidecar.config.schema.section import stored
from sidecar.config.schema.units import format_duration
from sidecar.config.schema.upstreams import implicit_upstream
from sidecar.config.yaml.nodes import MappingNode, Node, Sequence
from sidecar.core.retry import REPEATABLE
from sidecar.core.snapshot import (
    BreakerPolicy,
    ClientCertificate,
    Direction,
    Endpoint,
    HttpVersion,
    RetryPolicy,
    Scope,
    Source,
    Upstream,
)

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
_NO_ROUTES = "warning: an empty list: no route takes a request, so each one is answered 404"
_NOBODY_ASKS = (
    "warning: no request is of a known client, since the route's listener asks for no certificates: give it `tls` "
    "with `client: request` or `require`"
)
_OF_UPSTREAMS = frozenset({
    "admission", "circuit_breaker", "fallback", "request_headers", "retry", "rewrite", "shift_up_to",
    "weights_when_open",
})  # fmt: skip
"""Policies of a route that are about asking an upstream."""
_NOTHING_SHARED = "warning: nobody asks it: no route or `defaults` has `circuit_breaker: {scope: fleet}`"
_NO_PREFLIGHT = (
    "warning: browsers ask by OPTIONS before they send anything but a simple request, and `cors` is not asked then: "
    "name OPTIONS too"
)
_EVERY_PAGE = (
    "warning: with `allow_credentials` every page that a user opens may act in its name: name the origins"
)
_SAME_PLACE = (
    "warning: the listener speaks this scheme itself, so clients are sent back to where they are: let a match, as by "
    "`port`, take those alone who have come by the other one"
)
_NO_PROBES = (
    "warning: a route to it has no method that may be sent twice, so no request finds out whether it is well again, "
    "and its load stays away: give it a `health_check`, or the route a `half_open.check`"
)
_METADATA = (
    "warning: this is the address of the cloud's metadata, where a node's credentials are: who reaches a route to it "
    "may get them"
)


_WATCHES = (
    "warning: each pod that has this file holds a watch of its own at the API server for each of its {count} "
    "Services by `kubernetes://`: pods × Services in all; a headless name costs it nothing, and is some seconds later"
)

_BASE_OVER_MAX = (
    "warning: `base` is longer than `max`{built_in}, which bounds every wait: give a longer `max`, too"
)

_ONE_ADDRESS = (
    f"{ADVICE}where this is a Service with a cluster IP, a connection stays with one pod, and so do all calls on it: "
    "two pods get everything, however many there are. A headless Service's name stands for all pods, and "
    "`kubernetes://` asks which they are"
)


def advice(
    settings: Checked[Settings],
    top: MappingNode,
    upstreams: Mapping[str, Upstream],
    routes: list[Checked[Route]],
) -> tuple[Problem, ...]:
    """The warnings of a sound configuration, whose document is `top`. None repeats a value, which may be a secret."""
    found = [*_open_listeners(settings), *_nothing_to_do(top), *_unshared(top, routes)]
    for name, upstream in upstreams.items():
        found += _of_upstream(upstream, top.get("upstreams", name, "endpoints"))
        ejection = upstream.ejection
        found += _of_waits(
            top.get("upstreams", name, "ejection"), ejection.base_seconds, ejection.max_seconds
        )
    found += _of_watches(top, upstreams)
    asking = _asking(settings)
    listed = top.get("routes")
    for item in listed.items if isinstance(listed, Sequence) else ():
        found += _without_effect(item)
    for route in routes:
        found += _of_cors(route)
        found += _of_redirect(route, settings)
        found += _of_urls(route)
        found += _of_clients(route, asking)
        found += _of_failover(route, upstreams, top)
        found += _of_backoff(route)
    return tuple(
        dict.fromkeys(node.problem(message) for node, message in found)
    )  # `defaults` once for all routes


def _of_backoff(route: Checked[Route]) -> Iterator[tuple[Node, str]]:
    policy = stored(route.value.retry, RetryPolicy())
    yield from _of_waits(route.node.get("retry", "backoff"), policy.base_seconds, policy.max_seconds)


def _of_waits(node: Node | None, base_seconds: float, max_seconds: float) -> Iterator[tuple[Node, str]]:
    """Of waits that begin with one and grow up to the other."""
    if base_seconds > max_seconds and isinstance(node, MappingNode):
        built_in = "" if node.get("max") else f" (built in: {format_duration(max_seconds)})"
        yield node.get("base") or node.get("max") or node, _BASE_OVER_MAX.format(built_in=built_in)


def _nothing_to_do(top: MappingNode) -> Iterator[tuple[Node, str]]:
    """Without a route no request goes anywhere but where `unmatched: pass_through` lets it."""
    node = top.get("routes")
    if isinstance(node, Sequence) and not node.items:
        yield node, _NO_ROUTES


def _unshared(top: MappingNode, routes: list[Checked[Route]]) -> Iterator[tuple[Node, str]]:
    node = top.get("share", "redis")
    breakers = (route.value.circuit_breaker for route in routes)
    if isinstance(node, MappingNode) and all(one is None or one.scope is not Scope.FLEET for one in breakers):
        yield node, _NOTHING_SHARED


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


def _of_cors(route: Checked[Route]) -> Iterator[tuple[Node, str]]:
    cors = route.value.cors
    for match in match_nodes(route.node.get("match")) if cors is not None else ():
        methods = match.get("methods")
        named = (
            [getattr(item, "value", None) for item in methods.items] if isinstance(methods, Sequence) else []
        )
        if methods is not None and "OPTIONS" not in named:
            yield methods, _NO_PREFLIGHT
    node = route.node.get("cors", "allow_origins")
    is_open = cors is not None and cors.allow_credentials and "*" in (cors.allow_origins or ())
    if is_open and node is not None:
        yield node, _EVERY_PAGE


def _without_effect(item: Node) -> Iterator[tuple[Node, str]]:
    """What a route itself says, not `defaults`, of upstreams that it never asks."""
    if not isinstance(item, MappingNode):
        return
    own = next((key for key in ("redirect", "respond") if key in item.entries), None)
    for key in sorted(_OF_UPSTREAMS & item.entries.keys()) if own is not None else ():
        yield (
            item.entries[key].key,
            f"warning: the route has `{own}` and asks no upstream, so this does nothing",
        )


def _of_redirect(route: Checked[Route], settings: Checked[Settings]) -> Iterator[tuple[Node, str]]:
    """By the scheme alone, to that of the listener: the client comes back by the same way."""
    redirect, node = route.value.redirect, route.node.get("redirect")
    if redirect is None or node is None or redirect.scheme is None:
        return
    section = (settings.value.listeners or {}).get(route.value.listener or DEFAULT_LISTENER)
    own = "http" if section is None or section.tls is None else "https"
    is_elsewhere = redirect.host or redirect.path or redirect.prefix or redirect.port
    if redirect.scheme == own and not is_elsewhere:
        yield node, _SAME_PLACE


def _of_failover(
    route: Checked[Route], upstreams: Mapping[str, Upstream], top: MappingNode
) -> Iterator[tuple[Node, str]]:
    """Load that goes over and never comes back, since no request of the route may ask how the upstream is."""
    if stored(route.value.circuit_breaker, BreakerPolicy()).half_open_check is not None:
        return
    matches = route.value.match or []
    if not matches or any(_has_probes(match) for match in matches):
        return
    for name in route.value.weights or ([route.value.upstream] if route.value.upstream else []):
        upstream = upstreams.get(name)
        node = top.get("upstreams", name, "failover")
        if upstream is not None and upstream.failover and upstream.health_check is None and node is not None:
            yield node, _NO_PROBES


def _has_probes(match: Match) -> bool:
    """Whether a request that it takes may be sent twice."""
    if match.grpc is not None:
        return False
    return not match.methods or any(method.encode() in REPEATABLE for method in match.methods)


def _of_upstream(upstream: Upstream, node: Node | None) -> Iterator[tuple[Node, str]]:
    items = node.items if isinstance(node, Sequence) else ()
    for endpoint, item in zip(upstream.endpoints, items, strict=False):
        if is_metadata(endpoint.host):
            yield item, _METADATA
    if upstream.protocol is not HttpVersion.HTTP1 and len(items) == 1 and _may_be_service(upstream):
        yield items[0], _ONE_ADDRESS


def _may_be_service(upstream: Upstream) -> bool:
    """Whether Kubernetes may have made its only name: NAME, NAME.NAMESPACE, NAME.NAMESPACE.svc, or that with the
    cluster's domain. By TLS two labels are rather a domain of others."""
    endpoint = upstream.endpoints[0]
    if endpoint.is_literal or endpoint.source is not Source.ADDRESS:
        return False
    labels = endpoint.host.rstrip(".").split(".")
    is_short = len(labels) == 1 or (len(labels) == 2 and upstream.tls is None)
    return labels[2:3] == ["svc"] or (is_short and labels[-1] != "localhost")


def _of_watches(top: MappingNode, upstreams: Mapping[str, Upstream]) -> Iterator[tuple[Node, str]]:
    """At the first Service that is watched."""
    nodes: dict[Endpoint, Node] = {}
    for name, upstream in upstreams.items():
        listed = top.get("upstreams", name, "endpoints")
        items = listed.items if isinstance(listed, Sequence) else ()
        for endpoint, item in zip(upstream.endpoints, items, strict=False):
            if endpoint.source is Source.KUBERNETES:
                nodes.setdefault(endpoint, item)
    for node in list(nodes.values())[:1]:
        yield node, _WATCHES.format(count=len(nodes))


def _of_urls(route: Checked[Route]) -> Iterator[tuple[Node, str]]:
    for written, node in urls_of(route):
        if is_metadata(implicit_upstream(written).endpoints[0].host):
            yield node, _METADATA
