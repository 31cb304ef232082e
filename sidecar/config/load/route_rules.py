"""The rules of a route that need more than one key: each finds what is wrong and reports it where it is best
mended.

Every rule is silent about a key that was reported already. Messages about policies do not name the route,
so that a mistake in `defaults` is told once and not for each route.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from heapq import nsmallest
from math import inf

from sidecar.config.load import action_rules, defaults
from sidecar.config.load.action_rules import BODILESS, DESTINATIONS, match_nodes
from sidecar.config.load.check import Checked
from sidecar.config.problems import Problem, Report
from sidecar.config.schema.breaker import Thresholds
from sidecar.config.schema.policies import Policies
from sidecar.config.schema.readers import nearest
from sidecar.config.schema.routes import DEFAULT_LISTENER, Route
from sidecar.config.schema.section import stored
from sidecar.config.schema.units import format_duration
from sidecar.config.schema.upstreams import upstream_name
from sidecar.config.yaml.nodes import Entry, MappingNode, Node, Scalar, Sequence, is_null
from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import BreakerPolicy, HedgePolicy, RouteTimeouts, WindowType


@dataclass(frozen=True, slots=True)
class Known:
    """The names a route may refer to."""

    upstreams: Collection[str]
    listeners: Collection[str]
    defaults: MappingNode | None = None


def check_route(route: Checked[Route], known: Known, report: Report) -> None:
    """Report every broken rule of `route` (the defaults are under it already)."""
    _destination(route, known, report)
    _listener(route, known, report)
    _matches(route, report)
    action_rules.check_route(route, report)
    action_rules.check_policies(route, report)
    _timeouts(route, known, report)
    _breaker(route, known, report)
    _fallback(route, known, report)
    _hedge(route, known, report)
    _mirror(route, known, report)


def check_policies(section: Checked[Policies], report: Report) -> None:
    """The rules that hold for `defaults` alone, used or not."""
    _fallback_kind(section, report)
    action_rules.check_policies(section, report)


def check_header_maps(section: Checked[Policies], report: Report) -> None:
    """Header names that differ only by case are the same name."""
    weights = section.node.get("weights")
    shares = weights.entries if isinstance(weights, MappingNode) else ()
    of_shares = [
        ("weights", share, ops, key)
        for share in shares
        for ops in ("request_headers", "response_headers")
        for key in ("set", "add")
    ]
    for path in (*sorted(defaults.HEADER_MAPS), ("respond", "headers"), *of_shares):
        node = section.node.get(*path)
        if not isinstance(node, MappingNode):
            continue
        first: dict[str, Scalar] = {}
        for key, entry in node.entries.items():
            seen = first.setdefault(key.lower(), entry.key)
            if seen is not entry.key:
                report.add(entry.key.problem(f"duplicate header {key!r}: first given at {seen.place}"))


def _destination(route: Checked[Route], known: Known, report: Report) -> None:
    node = route.node
    entries = {key: entry for key in DESTINATIONS if (entry := node.entry(key)) is not None}
    written, weights = entries.get("upstream"), entries.get("weights")
    first, *others = entries or ("",)
    for key in others:
        report.add(entries[key].key.problem(f"`{key}` beside `{first}`: a route has one of them"))
    if not entries:
        report.add(node.problem("missing key 'upstream' (or 'weights', 'redirect' or 'respond')"))
    if written and not route.is_bad("upstream"):
        _refers_to(written.value, known.upstreams, "upstream", report)
    if weights and isinstance(weights.value, MappingNode):
        for name, entry in weights.value.entries.items():
            if not any(bad[:2] == ("weights", name) for bad in route.bad):
                _refers_to(entry.key, known.upstreams, "upstream", report)
        shares = route.value.weights or {}
        if not any(share.weight for share in shares.values()) and not any(
            bad[0] == "weights" for bad in route.bad
        ):
            report.add(weights.key.problem("all weights are 0: give one upstream a weight above 0"))
    for empty in entries.values():
        if _has_no_value(empty):
            report.add(empty.key.problem(f"{empty.key.text!r} has no value"))


def _refers_to(node: Node, names: Collection[str], kind: str, report: Report) -> None:
    if not isinstance(node, Scalar) or node.is_broken:
        return
    name = node.value if isinstance(node.value, str) and node.value else node.text
    if not name or "://" in name or name in names:
        return
    message = f"unknown {kind} {name!r}"

    def with_remedy() -> Problem:
        return node.problem(f"{message}{nearest(name, names) or _others(names)}")

    report.add(node.problem(message), with_remedy)


def _others(names: Collection[str]) -> str:
    return f"; known are {', '.join(nsmallest(10, names))}" if names else "; none is configured"


def _listener(route: Checked[Route], known: Known, report: Report) -> None:
    written = route.node.get("listener")
    if written is not None and not is_null(written):
        if not route.is_bad("listener"):
            _refers_to(written, known.listeners, "listener", report)
    elif DEFAULT_LISTENER not in known.listeners:
        names = ", ".join(sorted(known.listeners))
        report.add(
            route.node.problem(
                f"missing key 'listener': there is no {DEFAULT_LISTENER!r}, only {names or 'none'}"
            )
        )


def _matches(route: Checked[Route], report: Report) -> None:
    written = route.node.get("match")
    if isinstance(written, Sequence) and not written.items:
        report.add(written.problem("an empty list matches nothing; leave `match` out to match everything"))
    for match in match_nodes(written):
        _one_of(match.get("path"), ("exact", "prefix", "regex"), report)
        _grpc_match(match, report)
        for group in ("headers", "query"):
            conditions = match.get(group)
            if isinstance(conditions, MappingNode):
                for entry in conditions.entries.values():
                    _one_of(entry.value, ("exact", "prefix", "suffix", "regex", "present"), report)
        for key in ("hosts", "methods", "client"):
            listed = match.get(key)
            if isinstance(listed, Sequence) and not listed.items:
                report.add(listed.problem(f"an empty list matches nothing; leave `{key}` out to match any"))


def _grpc_match(match: MappingNode, report: Report) -> None:
    entry = match.entries.get("grpc")
    if entry is None or is_null(entry.value):
        return
    path, grpc = match.entries.get("path"), entry.value
    if path is not None and not is_null(path.value):
        report.add(
            path.key.problem("'path' beside 'grpc', whose service and method are the path: give one of both")
        )
    if not isinstance(grpc, MappingNode):
        return
    given = [grpc.entries[key] for key in ("service", "method") if key in grpc.entries]
    for one in given:
        if _has_no_value(one):
            report.add(one.key.problem(f"{one.key.text!r} has no value"))
    if "method" in grpc.entries and "service" not in grpc.entries:
        method = grpc.entries["method"]
        report.add(method.key.problem("'method' without 'service': say whose method it is"))


def _one_of(node: Node | None, keys: tuple[str, ...], report: Report, *, is_needed: bool = False) -> None:
    """`is_needed`: also where the mapping has other keys."""
    if not isinstance(node, MappingNode):
        return
    given = [node.entries[key] for key in keys if key in node.entries]
    wanted = f"{', '.join(keys[:-1])} or {keys[-1]}"
    if not given and (is_needed or not node.entries):
        report.add(node.problem(f"give one of {wanted}"))
    for entry in given[1:]:
        report.add(
            entry.key.problem(f"{entry.key.text!r} beside {given[0].key.text!r}: give one of {wanted}")
        )
    for entry in given:
        if _has_no_value(entry):
            report.add(entry.key.problem(f"{entry.key.text!r} has no value"))


def _has_no_value(entry: Entry) -> bool:
    return isinstance(entry.value, Scalar) and entry.value.value is None and not entry.value.is_broken


def _timeouts(route: Checked[Route], known: Known, report: Report) -> None:
    times = stored(route.value.timeouts, RouteTimeouts())
    whole = (("timeouts", "request"), times.request_seconds)
    for key, seconds in (("attempt", times.attempt_seconds), ("head", times.head_seconds)):
        if seconds is not None and seconds < inf:
            _at_most(route, (("timeouts", key), seconds), whole, known, report)


def _at_most(
    section: Checked[Route],
    lesser: tuple[defaults.Path, float],
    greater: tuple[defaults.Path, float],
    known: Known,
    report: Report,
) -> None:
    """Report when `lesser` is over `greater`, at the one that the file gives (the first if both)."""
    (low_path, low), (high_path, high) = lesser, greater
    if low <= high or section.is_bad(*low_path) or section.is_bad(*high_path):
        return
    places = {}
    for path in (low_path, high_path):
        entry = section.node.entry(*path)
        places[path] = None if entry is None or is_null(entry.value) else entry
    at = places[low_path] or places[high_path]
    if at is None:
        return
    other = high_path if places[low_path] else low_path
    found = places[other]
    where = f"at {found.key.place}" if found else "built in"
    if found and _is_default(known, at) and not _is_default(known, found):
        where = f"of route {section.value.name!r}, {where}"
    relation, value, bound = ("over", low, high) if other is high_path else ("under", high, low)
    mine = ".".join(low_path if other is high_path else high_path)
    theirs = f"{'.'.join(other)} ({format_duration(bound)}, {where})"
    message = f"{mine} ({format_duration(value)}) is {relation} {theirs}"
    report.add(at.value.problem(message))


def _is_default(known: Known, entry: Entry) -> bool:
    """Whether it stands in `defaults`, whose line alone does not say which route it is wrong for."""
    return known.defaults is not None and any(
        entry is one for section in known.defaults.entries.values() for one in _entries(section)
    )


def _entries(entry: Entry) -> Iterator[Entry]:
    yield entry
    if isinstance(entry.value, MappingNode):
        for inner in entry.value.entries.values():
            yield from _entries(inner)


def _breaker(route: Checked[Route], known: Known, report: Report) -> None:
    section = route.value.circuit_breaker
    if section is None:
        return
    times = stored(route.value.timeouts, RouteTimeouts())
    policy = stored(section, BreakerPolicy())
    top = ("circuit_breaker",)
    if policy.count_timeout_after_seconds is not None:
        _count_timeout_after(route, policy.count_timeout_after_seconds, times, known, report)
    opened: tuple[defaults.Path, float] = ((*top, "open_for"), policy.open_seconds)
    longest: tuple[defaults.Path, float] = ((*top, "max_open_for"), policy.max_open_seconds)
    _at_most(route, opened, longest, known, report)
    if policy.half_open_check is not None:
        half_open = (*top, "half_open")
        timeout = (*half_open, "check", "timeout"), policy.half_open_check.timeout_seconds
        _at_most(route, timeout, ((*half_open, "max_wait"), policy.half_open_max_wait_seconds), known, report)
        _one_of(route.node.get(*half_open, "check"), ("path", "grpc"), report, is_needed=True)
    _window(route, top, section, policy, report)
    candidate = policy.candidate
    if section.candidate is None or candidate is None:
        return
    inner = (*top, "candidate")
    if candidate.open_seconds is not None:
        opened = ((*inner, "open_for"), candidate.open_seconds)
    if candidate.max_open_seconds is not None:
        longest = ((*inner, "max_open_for"), candidate.max_open_seconds)
    if inner in (opened[0][:2], longest[0][:2]):
        _at_most(route, opened, longest, known, report)
    _window(route, inner, section.candidate, policy, report)


def _count_timeout_after(
    route: Checked[Route], seconds: float, times: RouteTimeouts, known: Known, report: Report
) -> None:
    """Above a timeout of the route none of its timeouts could ever count."""
    counted = (("circuit_breaker", "count_timeout_after"), seconds)
    _at_most(route, counted, (("timeouts", "request"), times.request_seconds), known, report)
    if times.attempt_seconds is not None:
        _at_most(route, counted, (("timeouts", "attempt"), times.attempt_seconds), known, report)


def _window(
    route: Checked[Route],
    prefix: defaults.Path,
    section: Thresholds,
    policy: BreakerPolicy,
    report: Report,
) -> None:
    path = (*prefix, "sliding_window")
    node = route.node.get(*path)
    is_bad = any(bad[: len(path)] == path for bad in route.bad) or route.is_bad(*path)
    active = BreakerPolicy().window if prefix == ("circuit_breaker",) else policy.window
    window = stored(section.sliding_window, active)
    if isinstance(node, MappingNode) and not is_bad and not _is_window_sound(node, window.type, report):
        return
    minimum, written = section.minimum_calls, route.node.get(*prefix, "minimum_calls")
    is_count = window.type is WindowType.COUNT and not is_bad
    if is_count and minimum is not None and written is not None and minimum > window.size:
        message = f"minimum_calls ({minimum}) can never be reached in a window of {window.size:g} calls"
        report.add(written.problem(message))


def _is_window_sound(node: MappingNode, kind: WindowType, report: Report) -> bool:
    size = node.get("size")
    is_given = size is not None and not is_null(size)
    if kind is WindowType.COUNT and not is_given:
        if isinstance(node.get("type"), Scalar):
            report.add(node.problem("a window of type count needs a `size`, such as 100"))
        return False
    if not is_given or size is None or not isinstance(size, Scalar):
        return True
    is_duration = str(size.value).strip("+").isdigit() is False
    if kind is WindowType.COUNT and is_duration:
        report.add(size.problem("the size of a count window is a number of calls, such as 100"))
        return False
    if kind is WindowType.TIME and not is_duration:
        report.add(
            size.problem(f"the size of a time window needs a unit: write {size.text}s, or `type: count`")
        )
        return False
    return True


def _fallback(route: Checked[Route], known: Known, report: Report) -> None:
    _fallback_kind(route, report)
    target = route.node.get("fallback", "upstream")
    if target is None or route.is_bad("fallback", "upstream") or route.value.fallback is None:
        return
    _refers_to(target, known.upstreams, "upstream", report)
    written = route.value.upstream
    name = route.value.fallback.upstream
    if written and name and upstream_name(written) == upstream_name(name):
        report.add(target.problem(f"the fallback is the upstream of route {route.value.name!r} itself"))


def _hedge(route: Checked[Route], known: Known, report: Report) -> None:
    """A hedge that begins when the time is up is none."""
    hedge = stored(route.value.hedge, HedgePolicy())
    if route.value.hedge is not None and not isinstance(hedge.after, str):
        times = stored(route.value.timeouts, RouteTimeouts())
        whole = (("timeouts", "request"), times.request_seconds)
        _at_most(route, (("hedge", "after"), hedge.after), whole, known, report)


def _mirror(route: Checked[Route], known: Known, report: Report) -> None:
    target = route.node.get("mirror", "upstream")
    if route.value.mirror is not None and target is not None and not route.is_bad("mirror", "upstream"):
        _refers_to(target, known.upstreams, "upstream", report)
    methods = route.node.get("mirror", "methods")
    if isinstance(methods, Sequence) and not methods.items:
        report.add(
            methods.problem("an empty list copies nothing; leave `methods` out for GET, HEAD and OPTIONS")
        )


def _fallback_kind(section: Checked[Policies], report: Report) -> None:
    node = section.node.get("fallback")
    if not isinstance(node, MappingNode):
        return
    keys = node.entries
    if not keys:
        report.add(node.problem("an empty fallback: give `status`, `headers` and `body`, or `upstream`"))
    if "upstream" in keys:
        for key in ("status", "headers", "body", "body_file"):
            if key in keys:
                report.add(
                    keys[key].key.problem(f"{key!r} beside 'upstream': a fallback has one or the other")
                )
    if "body" in keys and "body_file" in keys:
        report.add(
            keys["body_file"].key.problem("'body_file' beside 'body': a fallback has one or the other")
        )
    status = section.value.fallback.status if section.value.fallback else None
    body = keys.get("body") or keys.get("body_file")
    if status in BODILESS and body and not is_null(body.value):
        report.add(body.key.problem(f"a response with status {status} has no body"))
