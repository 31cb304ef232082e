"""The rules of an upstream's endpoints and of the choice among them that need more than one key."""

from __future__ import annotations

from sidecar.config.load.check import Checked
from sidecar.config.problems import Report
from sidecar.config.schema.upstreams import UpstreamSection
from sidecar.config.yaml.nodes import MappingNode, Sequence
from sidecar.core.snapshot import Balancing, Source

_SAID_BY = {
    Source.SRV: "the SRV records say the weight and priority of each endpoint",
    Source.FILE: "the file says the weight, priority and zone of each endpoint",
    Source.KUBERNETES: "the EndpointSlices say the zone of each endpoint",
}


def check_upstream(section: Checked[UpstreamSection], report: Report) -> None:
    """Report every broken rule."""
    _sources(section, report)
    _hash_on(section, report)


def _sources(section: Checked[UpstreamSection], report: Report) -> None:
    endpoints = section.node.get("endpoints")
    items = endpoints.items if isinstance(endpoints, Sequence) else ()
    if len(items) != len(section.value.endpoints):
        return  # one of them was reported
    for one, item in zip(section.value.endpoints, items, strict=True):
        source = one.address.source
        if source is Source.ADDRESS or not isinstance(item, MappingNode):
            continue
        for name in ("weight", "priority", "zone"):
            entry = item.entries.get(name)
            if entry is not None:
                report.add(entry.key.problem(f"{_SAID_BY[source]}: leave {name!r} out here"))


def _hash_on(section: Checked[UpstreamSection], report: Report) -> None:
    balancing, entry = section.value.load_balancing, section.node.entry("load_balancing")
    if balancing is None or entry is None or section.is_bad("load_balancing", "policy"):
        return
    is_ring = balancing.policy is Balancing.RING_HASH
    hash_on = balancing.hash_on
    if hash_on is None:
        if is_ring and not section.is_bad("load_balancing", "hash_on"):
            message = (
                "`ring_hash` needs `hash_on`: {header: NAME}, {cookie: NAME} or {client: true} says which requests "
                "go to the same endpoint"
            )
            report.add(entry.value.problem(message))
        return
    node = section.node.get("load_balancing", "hash_on")
    if node is None:
        return
    if not is_ring:
        report.add(node.problem("only `policy: ring_hash` asks for `hash_on`: add that, or leave this out"))
    given = [one for one in (hash_on.header, hash_on.cookie, hash_on.client or None) if one is not None]
    if len(given) != 1 and not section.bad:
        report.add(node.problem("give exactly one of header: NAME, cookie: NAME and client: true"))
