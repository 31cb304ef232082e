"""A snapshot's values as a file would write them: dotted YAML keys, durations and shares with their units.

The other direction of `build.py`. What two snapshots differ in, and what an effective configuration says, is told
in these words. Secrets are never told: of a value that may be one there is a mark alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from sidecar.config import hiding
from sidecar.config.units import format_duration, format_share, format_size
from sidecar.core.snapshot import (
    BreakerPolicy,
    CandidatePolicy,
    DeadlinePolicy,
    FallbackPolicy,
    HeaderOps,
    Listener,
    Match,
    PathMatch,
    Route,
    Snapshot,
    Telemetry,
    Upstream,
    ValueMatch,
    WindowPolicy,
    WindowType,
)

Written = dict[str, str]
"""Dotted key → value. A key that is unset is not in it."""


def route(value: Route) -> Written:
    """Everything of a route but its name."""
    return _given(
        {
            "listener": value.listener,
            "match": _matches(value),
            **_target(value.upstreams),
            "rewrite.prefix": hiding.text(value.rewrite.prefix, value.hidden),
            "rewrite.host": hiding.text(value.rewrite.host, value.hidden),
            **_header_ops("request_headers", value.request_headers, value.hidden),
            **_header_ops("response_headers", value.response_headers, value.hidden),
            "timeouts.request": format_duration(value.timeouts.request_seconds),
            "timeouts.attempt": _duration(value.timeouts.attempt_seconds),
            "timeouts.idle": format_duration(value.timeouts.idle_seconds),
            **_prefixed("deadline", deadline(value.deadline)),
            "admission.mode": value.admission.mode.value,
            "admission.min_budget": _budget(value.admission.min_budget),
            "admission.max_reject_ratio": format_share(value.admission.max_reject_ratio),
            **_prefixed("circuit_breaker", breaker(value.breaker, value.hidden)),
            **_fallback(value.fallback, value.hidden),
        }
    )


def _matches(value: Route) -> str:
    told = [match(item, value.hidden) for item in value.matches]
    return f"any of {_list(told)}" if len(told) > 1 else told[0]


def match(value: Match, hidden: frozenset[str] = frozenset()) -> str:
    """One match in YAML's flow style; `everything` for one without conditions. `hidden` are texts not to tell."""
    parts = {
        "hosts": _list(str(hiding.text(host, hidden)) for host in value.hosts) if value.hosts else None,
        "path": _path(value.path, hidden),
        "methods": _list(sorted(value.methods)) if value.methods else None,
        "headers": _conditions(value.headers, hidden),
        "query": _conditions(value.query, hidden),
    }
    return _flow(_given(parts)) if any(parts.values()) else "everything"


def deadline(value: DeadlinePolicy) -> Written:
    return _given(
        {
            "mode": value.mode.value,
            "max": _duration(value.max_seconds),
            "offset": format_duration(value.offset_seconds),
            "headers": _list(name.decode() for name in value.headers),
            "recover_from_trace": _flag(value.recover_from_trace),
            "cancel_with_caller": value.cancel_with_caller.value,
            "inject_baggage": _flag(value.inject_baggage),
        }
    )


def breaker(value: BreakerPolicy, hidden: frozenset[str] = frozenset()) -> Written:
    return _given(
        {
            "mode": value.mode.value,
            **_window(value.window),
            "minimum_calls": str(value.minimum_calls),
            "failure_rate_threshold": format_share(value.failure_rate_threshold),
            "consecutive_failures": str(value.consecutive_failures),
            "slow_call_duration": _duration(value.slow_call_seconds),
            "slow_call_rate_threshold": format_share(value.slow_call_rate_threshold),
            "open_for": format_duration(value.open_seconds),
            "max_open_for": format_duration(value.max_open_seconds),
            "half_open.max_calls": str(value.half_open_max_calls),
            "half_open.successes": str(value.half_open_successes),
            "half_open.max_wait": format_duration(value.half_open_max_wait_seconds),
            "ramp": format_duration(value.ramp_seconds),
            "failure_on": _list(sorted(_word(item) for item in value.failure_on)),
            "failure_header": _fields(value.failure_headers, hidden),
            "count_timeout_after": format_duration(value.count_timeout_after_seconds),
            **_prefixed("candidate", _candidate(value.candidate)),
        }
    )


def upstream(value: Upstream) -> Written:
    return {
        "endpoints": _list(map(str, value.endpoints)),
        "limits.max_connections": str(value.limits.max_connections),
        "limits.max_pending": str(value.limits.max_pending),
        "limits.max_requests": str(value.limits.max_requests),
        "timeouts.connect": format_duration(value.connect_seconds),
        "timeouts.idle": format_duration(value.idle_seconds),
    }


def listener(value: Listener) -> Written:
    limits, times = value.limits, value.timeouts
    return {
        "address": str(value.address),
        "limits.connections": str(limits.connections),
        "limits.head": format_size(limits.head_bytes),
        "limits.headers": str(limits.headers),
        "limits.url": format_size(limits.url_bytes),
        "timeouts.head": format_duration(times.head_seconds),
        "timeouts.idle": format_duration(times.idle_seconds),
        "timeouts.body": format_duration(times.body_seconds),
        "trust": value.trust.value,
    }


def process(value: Snapshot) -> Written:
    """What belongs to the process: its servers, its telemetry, its end."""
    return _given(
        {
            "probes.address": str(value.probes),
            "admin.address": str(value.admin.address),
            "admin.token_file": value.admin.token_file,
            "admin.trace_url": hiding.url(value.admin.trace_url),
            **_prefixed("telemetry", telemetry(value.telemetry)),
            "drain_timeout": format_duration(value.drain.timeout_seconds),
            "drain.delay": format_duration(value.drain.delay_seconds),
        }
    )


def telemetry(value: Telemetry) -> Written:
    otlp = value.otlp
    return _given(
        {
            "service_name": value.service_name,
            "otlp.endpoint": hiding.url(otlp.endpoint) if otlp else None,
            "otlp.protocol": otlp.protocol if otlp else None,
            # every vendor has a name of its own for the key that stands there
            "otlp.headers": _flow({name: hiding.mark(text) for name, text in otlp.headers})
            if otlp and otlp.headers
            else None,
            "otlp.compression": otlp.compression if otlp else None,
            "traces.sample_ratio": format_share(value.trace_sample_ratio),
            "metrics.interval": format_duration(value.metrics_interval_seconds),
            "access_log.format": value.access_log.format.value,
            "access_log.sample_ratio": format_share(value.access_log.sample_ratio),
            "logs": _flag(value.logs),
        }
    )


def _target(upstreams: tuple[tuple[str, int], ...]) -> dict[str, str | None]:
    if len(upstreams) == 1:
        return {"upstream": upstreams[0][0]}
    return {"weights": _flow({name: str(weight) for name, weight in upstreams})}


def _window(value: WindowPolicy) -> dict[str, str | None]:
    is_time = value.type is WindowType.TIME
    size = format_duration(value.size) if is_time else str(int(value.size))
    return {"sliding_window.type": value.type.value, "sliding_window.size": size}


def _candidate(value: CandidatePolicy | None) -> dict[str, str | None]:
    if value is None:
        return {}
    return {
        **(_window(value.window) if value.window is not None else {}),
        "minimum_calls": _text(value.minimum_calls),
        "failure_rate_threshold": _share(value.failure_rate_threshold),
        "consecutive_failures": _text(value.consecutive_failures),
        "slow_call_duration": _duration(value.slow_call_seconds),
        "slow_call_rate_threshold": _share(value.slow_call_rate_threshold),
        "open_for": _duration(value.open_seconds),
        "max_open_for": _duration(value.max_open_seconds),
    }


def _fallback(value: FallbackPolicy | None, hidden: frozenset[str]) -> dict[str, str | None]:
    if value is None:
        return {}
    if value.upstream is not None:
        return {"fallback.upstream": value.upstream}
    body = value.body.decode("utf-8", "replace")
    shown = body if len(body) <= 60 else f"{body[:60]}… ({len(value.body)} bytes)"
    return {
        "fallback.status": str(value.status),
        "fallback.headers": _fields(value.headers, hidden),
        "fallback.body": hiding.mark(body) if body in hidden else shown,
    }


def _header_ops(key: str, value: HeaderOps, hidden: frozenset[str]) -> dict[str, str | None]:
    return {
        f"{key}.set": _fields(value.set, hidden),
        f"{key}.add": _fields(value.add, hidden),
        f"{key}.remove": _list(sorted(name.decode() for name in value.remove)) if value.remove else None,
    }


def _fields(value: Iterable[tuple[bytes, bytes]], hidden: frozenset[str]) -> str | None:
    found = {name.decode(): content.decode("utf-8", "replace") for name, content in value}
    return (
        _flow({name: hiding.content(name, text, hidden) for name, text in found.items()}) if found else None
    )


def _path(value: PathMatch | None, hidden: frozenset[str]) -> str | None:
    return None if value is None else _flow({value.kind.value: str(hiding.text(value.value, hidden))})


def _conditions(values: tuple[ValueMatch, ...], hidden: frozenset[str]) -> str | None:
    return _flow({value.name: _condition(value, hidden) for value in values}) if values else None


def _condition(value: ValueMatch, hidden: frozenset[str]) -> str:
    if value.present is not None:
        return _flow({"present": _flag(value.present)})
    if value.regex is not None:
        return _flow({"regex": hiding.content(value.name, value.regex.pattern, hidden)})
    return hiding.content(value.name, str(value.exact), hidden)


def _budget(value: float | str) -> str:
    return value if isinstance(value, str) else format_duration(value)


def _word(value: Enum | int) -> str:
    return str(value.value) if isinstance(value, Enum) else str(value)


def _duration(seconds: float | None) -> str | None:
    return None if seconds is None else format_duration(seconds)


def _share(value: float | None) -> str | None:
    return None if value is None else format_share(value)


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _list(items: Iterable[str]) -> str:
    return f"[{', '.join(items)}]"


def _flow(items: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}"


def _prefixed(prefix: str, items: Mapping[str, str | None]) -> dict[str, str | None]:
    return {f"{prefix}.{key}": value for key, value in items.items()}


def _given(items: Mapping[str, str | None]) -> Written:
    return {key: value for key, value in items.items() if value is not None}
