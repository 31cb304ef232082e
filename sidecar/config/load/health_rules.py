"""The rules of an upstream's health check and failover that need more than one key, or other upstreams."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from heapq import nsmallest

from sidecar.config.load.check import Checked
from sidecar.config.problems import Problem, Report
from sidecar.config.schema.readers import nearest
from sidecar.config.schema.section import stored
from sidecar.config.schema.units import format_back_after, format_duration, format_share
from sidecar.config.schema.upstreams import UpstreamSection
from sidecar.config.yaml.nodes import MappingNode, Node, Sequence, is_null
from sidecar.core.snapshot import FailoverPolicy, HealthCheckPolicy, HttpVersion

KINDS = ("path", "tcp", "grpc")

Sections = Mapping[str, Checked[UpstreamSection]]
"""Of all upstreams that could be read, by name."""


def check_health(section: Checked[UpstreamSection], report: Report) -> None:
    """Report every broken rule of a `health_check`."""
    node, given = section.node.get("health_check"), section.value.health_check
    if given is None or not isinstance(node, MappingNode):
        return
    one_kind(section, ("health_check",), KINDS, report)
    grpc = node.entries.get("grpc")
    is_1 = section.value.protocol in (None, HttpVersion.HTTP1) and not section.is_bad("protocol")
    if grpc is not None and not is_null(grpc.value) and is_1:
        message = "a gRPC check needs an upstream that speaks HTTP/2: write `protocol: http2` beside it"
        report.add(grpc.key.problem(message))
    _check_time(section, node, stored(given, HealthCheckPolicy()), report)


def _check_time(
    section: Checked[UpstreamSection], node: MappingNode, policy: HealthCheckPolicy, report: Report
) -> None:
    timeout, interval = policy.check.timeout_seconds, policy.interval_seconds
    if timeout <= interval or any(section.is_bad("health_check", key) for key in ("timeout", "interval")):
        return
    given, remedy = node.get("timeout"), ""
    if given is None:
        remedy = f"; write a `timeout` of {format_duration(interval)} or less beside it"
    message = (
        f"health_check.timeout ({_told(node, 'timeout', timeout)}) is over health_check.interval "
        f"({_told(node, 'interval', interval)}): one check would not have ended when the next one is due{remedy}"
    )
    report.add((given or node.get("interval") or node).problem(message))


def _told(node: MappingNode, key: str, seconds: float) -> str:
    return format_duration(seconds) if node.get(key) else f"{format_duration(seconds)}, built in"


def one_kind(
    section: Checked[UpstreamSection], path: tuple[str, ...], kinds: tuple[str, ...], report: Report
) -> None:
    """Report a question at `path` that asks for nothing, or for two things."""
    node = section.node.get(*path)
    if not isinstance(node, MappingNode):
        return
    given = [node.entries[kind] for kind in kinds if kind in node.entries]
    wanted = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
    if not given:
        report.add(node.problem(f"nothing is asked for: give {wanted}"))
    for entry in given[1:]:
        report.add(
            entry.key.problem(f"{entry.key.text!r} beside {given[0].key.text!r}: give one of {wanted}")
        )
    for entry in given:
        if is_null(entry.value):
            hint = ": write {}" if entry.key.text != "path" else ""
            report.add(entry.key.problem(f"{entry.key.text!r} has no value{hint}"))


def check_failovers(sections: Sections, names: Mapping[str, object], report: Report) -> None:
    """Report every broken rule of all `failover`s. `names`: of all upstreams, read or not."""
    for name, section in sections.items():
        node, given = section.node.get("failover"), section.value.failover
        if given is None or node is None or section.is_bad("failover"):
            continue
        items = _items(node)
        if not given.to:
            report.add(
                node.problem("an empty list: name an upstream that takes over, or leave `failover` out")
            )
        seen: set[str] = set()
        for to, item in zip(given.to, items, strict=False):
            if to == name:
                report.add(item.problem(f"upstream {name!r} cannot take over from itself"))
            elif to not in names:
                report.add(item.problem(f"unknown upstream {to!r}"), partial(_of_unknown, item, to, names))
            elif to in seen:
                report.add(item.problem(f"{to!r} stands here twice: each upstream is asked once"))
            seen.add(to)
        _check_shares(section, stored(given, FailoverPolicy(())), node, report)
    _check_circles(sections, report)


def _of_unknown(item: Node, to: str, names: Collection[str]) -> Problem:
    remedy = nearest(to, names) or f"; known are {', '.join(nsmallest(10, names))}"
    return item.problem(f"unknown upstream {to!r}{remedy}")


def _items(node: Node) -> list[Node]:
    listed = node if isinstance(node, Sequence) else node.get("to") if isinstance(node, MappingNode) else None
    return list(listed.items) if isinstance(listed, Sequence) else []


def _check_shares(
    section: Checked[UpstreamSection], policy: FailoverPolicy, node: Node, report: Report
) -> None:
    if policy.back.share >= policy.below or not isinstance(node, MappingNode):
        return
    if section.is_bad("failover", "below") or section.is_bad("failover", "back"):
        return
    at = node.get("back") or node.get("below") or node
    report.add(
        at.problem(
            f"failover.back ({format_back_after(policy.back)}) is under failover.below "
            f"({format_share(policy.below)}): it would end where it begins"
        )
    )


def _check_circles(sections: Sections, report: Report) -> None:
    """An upstream that in the end takes over from itself. Each circle is told once, at its first upstream."""
    told: set[frozenset[str]] = set()
    for name in sections:
        circle = _circle(name, sections)
        if len(circle) < 2 or frozenset(circle) in told:
            continue
        told.add(frozenset(circle))
        node = sections[name].node.entry("failover")
        if node is not None:
            way = " → ".join((*circle, name))
            message = (
                f"failover goes round in a circle: {way}; where two are to stand in for each other, write the "
                "endpoints of one of them once more, as an upstream without a failover"
            )
            report.add(node.key.problem(message))


def _circle(start: str, sections: Sections) -> list[str]:
    """A way from `start` back to it, without its last step; empty if there is none."""
    before: dict[str, str] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        section = sections.get(name)
        failover = None if section is None else section.value.failover
        for to in () if failover is None else failover.to:
            if to == start:
                way = [name]
                while way[-1] != start:
                    way.append(before[way[-1]])
                return way[::-1]
            if to not in before:
                before[to] = name
                waiting.append(to)
    return []
