"""Sections as read → the immutable objects of `core/snapshot.py`. Checks nothing: that is done before.

A key that was not given leaves the built-in value of the snapshot's own class in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sidecar.config.schema import policies
from sidecar.config.schema.addresses import (
    ADMIN_ADDRESS,
    LISTENER_ADDRESSES,
    LISTENER_DIRECTIONS,
    PROBES_ADDRESS,
)
from sidecar.config.schema.file import DEFAULT_LISTENER, ListenerSection, Settings, UpstreamSection
from sidecar.config.schema.units import parse_upstream_url
from sidecar.core.snapshot import (
    AccessLog,
    Address,
    Admin,
    AdmissionPolicy,
    BreakerPolicy,
    CandidatePolicy,
    DeadlinePolicy,
    Direction,
    Drain,
    FallbackPolicy,
    Forwarded,
    HeaderOps,
    Listener,
    ListenerLimits,
    ListenerTimeouts,
    Match,
    Otlp,
    PathKind,
    PathMatch,
    Rewrite,
    Route,
    RouteTimeouts,
    Telemetry,
    Trust,
    Upstream,
    UpstreamLimits,
    ValueMatch,
    WindowPolicy,
    WindowType,
)

T = TypeVar("T")
Headers = Mapping[str, str | None]


def _given(built_in: T, values: Mapping[str, object]) -> T:
    """`built_in` with those of `values` that are not None."""
    changes: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    return replace(built_in, **changes) if changes else built_in  # type: ignore[type-var]


def listener_address(name: str, section: ListenerSection) -> Address | None:
    """Where a listener of this name binds; None when it needs an address and has none."""
    return section.address or LISTENER_ADDRESSES.get(name)


def listener_direction(name: str, section: ListenerSection) -> Direction | None:
    """Whose calls a listener of this name takes; None when it has to say so and does not."""
    return section.direction or LISTENER_DIRECTIONS.get(name)


def listeners(sections: Mapping[str, ListenerSection] | None) -> dict[str, Listener]:
    if sections is None:
        sections = dict.fromkeys(LISTENER_ADDRESSES, ListenerSection())
    return {name: _listener(name, section) for name, section in sections.items()}


def _listener(name: str, section: ListenerSection) -> Listener:
    address, direction = listener_address(name, section), listener_direction(name, section)
    assert address is not None, "checked before"
    assert direction is not None, "checked before"
    trust = section.trust or Trust.ALL
    forwarded = section.forwarded or _forwarded(direction, trust)
    listener = Listener(name, address, trust=trust, direction=direction, forwarded=forwarded)
    if limits := section.limits:
        sizes = {"head_bytes": limits.head, "url_bytes": limits.url}
        counts = {"connections": limits.connections, "headers": limits.headers}
        listener = replace(listener, limits=_given(ListenerLimits(), {**sizes, **counts}))
    if times := section.timeouts:
        seconds = {"head_seconds": times.head, "idle_seconds": times.idle, "body_seconds": times.body}
        listener = replace(listener, timeouts=_given(ListenerTimeouts(), seconds))
    return listener


def _forwarded(direction: Direction, trust: Trust) -> Forwarded:
    """What a stranger says of whom it speaks for is not handed on; nobody stands in front of the app's own calls."""
    if direction is Direction.OUTBOUND:
        return Forwarded.KEEP
    return Forwarded.APPEND if trust is Trust.ALL else Forwarded.SET


def admin(settings: Settings, token_file: str | None) -> Admin:
    built_in = Admin(ADMIN_ADDRESS)
    if settings.admin is None:
        return built_in
    section = settings.admin
    return _given(
        built_in, {"address": section.address, "token_file": token_file, "trace_url": section.trace_url}
    )


def probes(settings: Settings) -> Address:
    return (settings.probes.address if settings.probes else None) or PROBES_ADDRESS


def drain(settings: Settings) -> Drain:
    delay = settings.drain.delay if settings.drain else None
    return _given(Drain(), {"timeout_seconds": settings.drain_timeout, "delay_seconds": delay})


def telemetry(settings: Settings) -> Telemetry:
    section = settings.telemetry
    if section is None:
        return Telemetry()
    log = section.access_log
    access_log = log and _given(AccessLog(), {"format": log.format, "sample_ratio": log.sample_ratio})
    return _given(
        Telemetry(),
        {
            "service_name": section.service_name,
            "otlp": _otlp(section.otlp),
            "trace_sample_ratio": section.traces and section.traces.sample_ratio,
            "metrics_interval_seconds": section.metrics and section.metrics.interval,
            "access_log": access_log,
            "logs": section.logs,
        },
    )


def _otlp(section: Any) -> Otlp | None:
    if section is None:
        return None
    headers = tuple((name, value) for name, value in (section.headers or {}).items() if value is not None)
    compression = None if section.compression == "none" else section.compression
    return _given(
        Otlp(section.endpoint),
        {"protocol": section.protocol, "headers": headers, "compression": compression},
    )


def upstream(name: str, section: UpstreamSection) -> Upstream:
    limits, times = section.limits, section.timeouts
    counts = limits and {name: getattr(limits, name) for name in type(limits).model_fields}
    return _given(
        Upstream(name, tuple(section.endpoints)),
        {
            "limits": counts and _given(UpstreamLimits(), counts),
            "connect_seconds": times and times.connect,
            "idle_seconds": times and times.idle,
        },
    )


def upstream_name(written: str) -> str:
    """The name of what `upstream:` says: for a URL, that of the implicit upstream, `host:port`."""
    return str(parse_upstream_url(written)) if "://" in written else written


def implicit_upstream(url: str) -> Upstream:
    endpoint = parse_upstream_url(url)
    return Upstream(str(endpoint), (endpoint,))


def listener_of(section: policies.Route) -> str:
    """The name of the listener whose requests a route takes."""
    return section.listener or DEFAULT_LISTENER


def route(section: policies.Route, direction: Direction, fallback_body: bytes | None) -> Route:
    weights = section.weights
    return Route(
        name=section.name,
        listener=listener_of(section),
        direction=direction,
        matches=tuple(match(item) for item in section.match) if section.match else (Match(),),
        upstreams=tuple(weights.items()) if weights else ((upstream_name(section.upstream or ""), 1),),
        rewrite=Rewrite(section.rewrite.prefix, section.rewrite.host) if section.rewrite else Rewrite(),
        request_headers=_header_ops(section.request_headers),
        response_headers=_header_ops(section.response_headers),
        timeouts=timeouts(section.timeouts),
        deadline=_deadline(section.deadline),
        admission=_admission(section.admission),
        breaker=breaker(section.circuit_breaker, timeouts(section.timeouts)),
        fallback=_fallback(section.fallback, fallback_body),
    )


def match(section: policies.Match) -> Match:
    return Match(
        hosts=tuple(section.hosts or ()),
        path=_path(section.path),
        methods=frozenset(section.methods or ()),
        headers=_conditions(section.headers),
        query=_conditions(section.query),
    )


def _path(section: policies.PathCondition | None) -> PathMatch | None:
    if section is None:
        return None
    if section.regex is not None:
        return PathMatch(PathKind.REGEX, section.regex.pattern, section.regex)
    if section.exact is not None:
        return PathMatch(PathKind.EXACT, section.exact)
    return None if section.prefix is None else PathMatch(PathKind.PREFIX, section.prefix)


def _conditions(sections: Mapping[str, policies.ValueCondition] | None) -> tuple[ValueMatch, ...]:
    items = (sections or {}).items()
    return tuple(ValueMatch(name, value.exact, value.regex, value.present) for name, value in items)


def _fields(headers: Headers | None) -> tuple[tuple[bytes, bytes], ...]:
    items = (headers or {}).items()
    return tuple((name.encode(), value.encode()) for name, value in items if value is not None)


def _header_ops(section: policies.RequestHeaders | policies.ResponseHeaders | None) -> HeaderOps:
    if section is None:
        return HeaderOps()
    return HeaderOps(_fields(section.set), _fields(section.add), _names(section.remove))


def _names(names: Sequence[str] | None) -> frozenset[bytes]:
    return frozenset(name.encode() for name in names or ())


def timeouts(section: policies.Timeouts | None) -> RouteTimeouts:
    if section is None:
        return RouteTimeouts()
    return _given(
        RouteTimeouts(),
        {
            "request_seconds": section.request,
            "attempt_seconds": section.attempt,
            "head_seconds": section.head,
            "idle_seconds": section.idle,
        },
    )


def _deadline(section: policies.Deadline | None) -> DeadlinePolicy:
    if section is None:
        return DeadlinePolicy()
    headers = None if section.headers is None else tuple(name.encode() for name in section.headers)
    return _given(
        DeadlinePolicy(),
        {
            "mode": section.mode,
            "max_seconds": section.max,
            "offset_seconds": section.offset,
            "headers": headers,
            "recover_from_trace": section.recover_from_trace,
            "cancel_with_caller": section.cancel_with_caller,
            "inject_baggage": section.inject_baggage,
        },
    )


def _admission(section: policies.Admission | None) -> AdmissionPolicy:
    if section is None:
        return AdmissionPolicy()
    values = {name: getattr(section, name) for name in policies.Admission.model_fields}
    return _given(AdmissionPolicy(), values)


def window(section: policies.SlidingWindow | None, built_in: WindowPolicy) -> WindowPolicy:
    if section is None:
        return built_in
    return _given(built_in, {"type": section.type, "size": section.size})


def breaker(section: policies.CircuitBreaker | None, times: RouteTimeouts) -> BreakerPolicy:
    """The breaker's policy; what follows from other values (SPEC 3) is worked out here."""
    policy = BreakerPolicy()
    if section is not None:
        half_open = section.half_open
        policy = _given(
            policy,
            {
                **_thresholds(section, policy.window),
                "mode": section.mode,
                "half_open_max_calls": half_open and half_open.max_calls,
                "half_open_successes": half_open and half_open.successes,
                "half_open_max_wait_seconds": half_open and half_open.max_wait,
                "ramp_seconds": section.ramp,
                "failure_on": None if section.failure_on is None else frozenset(section.failure_on),
                "failure_headers": _fields(section.failure_header),
                "count_timeout_after_seconds": section.count_timeout_after,
            },
        )
        policy = _fitting_minimum(section, policy)
        policy = _given(policy, {"candidate": _candidate(section.candidate, policy.window)})
    if section is None or section.count_timeout_after is None:
        policy = replace(policy, count_timeout_after_seconds=_count_timeout_after(policy, times))
    return policy


def _thresholds(section: policies.Thresholds, built_in: WindowPolicy) -> dict[str, object]:
    return {
        "window": section.sliding_window and window(section.sliding_window, built_in),
        "minimum_calls": section.minimum_calls,
        "failure_rate_threshold": section.failure_rate_threshold,
        "consecutive_failures": section.consecutive_failures,
        "slow_call_seconds": section.slow_call_duration,
        "slow_call_rate_threshold": section.slow_call_rate_threshold,
        "open_seconds": section.open_for,
        "max_open_seconds": section.max_open_for,
    }


def _fitting_minimum(section: policies.CircuitBreaker, policy: BreakerPolicy) -> BreakerPolicy:
    """A built-in `minimum_calls` that a short count window could never hold shrinks to the window
    (resilience4j).
    """
    if section.minimum_calls is None and policy.window.type is WindowType.COUNT:
        return replace(policy, minimum_calls=min(policy.minimum_calls, int(policy.window.size)))
    return policy


def _candidate(section: policies.Thresholds | None, active: WindowPolicy) -> CandidatePolicy | None:
    return None if section is None else _given(CandidatePolicy(), _thresholds(section, active))


def _count_timeout_after(policy: BreakerPolicy, times: RouteTimeouts) -> float:
    limits = (times.request_seconds, times.attempt_seconds, policy.slow_call_seconds)
    return min(policy.count_timeout_after_seconds, *(limit for limit in limits if limit is not None))


def _fallback(section: policies.Fallback | None, body: bytes | None) -> FallbackPolicy | None:
    if section is None:
        return None
    if section.upstream is not None:
        return FallbackPolicy(upstream=upstream_name(section.upstream))
    if body is None and section.body is not None:
        body = section.body.encode()
    return _given(
        FallbackPolicy(), {"status": section.status, "headers": _fields(section.headers), "body": body}
    )
