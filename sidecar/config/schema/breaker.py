"""The circuit breaker's policy as the file writes it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, TypeVar

from sidecar.config.schema import values
from sidecar.config.schema.form import FIELDS, WORDS, Form
from sidecar.config.schema.health_checks import NO_KIND, GrpcCheckSection
from sidecar.config.schema.section import Section, key
from sidecar.config.schema.units import format_duration
from sidecar.core import snapshot as core

T = TypeVar("T")

_BUILT_IN = core.BreakerPolicy()
_COUNT_TIMEOUT_AFTER = Form(
    lambda given: None if given == values.AUTO else given,
    lambda stored: values.AUTO if stored is None else format_duration(stored),
    unset=values.AUTO,
)


class SlidingWindow(Section):
    built_in = core.WindowPolicy()

    type: values.WindowTypeName | None = key(
        "`time` keeps the calls of the last `size` seconds, `count` the last `size` calls.", fills="type"
    )
    size: values.WindowSize | None = key(
        "A duration for `time`, a number of calls for `count` (which has no built-in one).",
        examples=["10s", 100],
        fills="size",
    )


class HalfOpenCheck(Section):
    built_in = NO_KIND

    path: values.Path | None = key(
        "Asked with GET; a status from 200 to 399 is good, and anything else is not. Or `grpc` is given.",
        examples=["/healthz"],
        fills="path",
    )
    grpc: GrpcCheckSection | None = key(
        "The service `grpc.health.v1.Health` is asked, and has to say SERVING. Needs an upstream that speaks HTTP/2.",
    )
    timeout: values.Duration | None = key(
        "For all of it, with the wait for a connection; at most `max_wait`.", fills="timeout_seconds"
    )


class HalfOpen(Section):
    built_in = _BUILT_IN

    max_calls: values.Count | None = key(
        "Probes at the same time; further requests are refused.", fills="half_open_max_calls"
    )
    successes: values.Count | None = key("Good probes that close the breaker.", fills="half_open_successes")
    max_wait: values.Duration | None = key(
        "Without a verdict for this long the breaker opens again.", fills="half_open_max_wait_seconds"
    )
    check: HalfOpenCheck | None = key(
        "The sidecar itself probes the upstream when the breaker has waited, so that no request has to, and a "
        "breaker closes without any. Unset: a request is the probe.",
        fills="half_open_check",
    )


class Thresholds(Section):
    """When a breaker trips and how long it stays open; what a candidate may vary."""

    built_in = _BUILT_IN

    sliding_window: SlidingWindow | None = key("The calls that the rates are computed over.", fills="window")
    minimum_calls: values.Count | None = key(
        "Below this many calls in the window no rate trips the breaker. "
        "The built-in one shrinks with a shorter count window.",
        fills="minimum_calls",
    )
    failure_rate_threshold: values.PositiveShare | None = key(
        "Share of failed calls at which the breaker opens.", fills="failure_rate_threshold"
    )
    consecutive_failures: values.CountOrZero | None = key(
        "Failures in a row that open the breaker, whatever the rate; 0 switches this trigger off.",
        fills="consecutive_failures",
    )
    slow_call_duration: values.Duration | None = key(
        "A call that takes longer is slow. Unset: slowness is not judged.",
        examples=["1s"],
        fills="slow_call_seconds",
    )
    slow_call_rate_threshold: values.PositiveShare | None = key(
        "Share of slow calls at which the breaker opens.", fills="slow_call_rate_threshold"
    )
    open_for: values.Duration | None = key(
        "How long the breaker refuses before its first probe; doubles, with jitter, at each failed recovery.",
        fills="open_seconds",
    )
    max_open_for: values.Duration | None = key(
        "Where that doubling ends; at least `open_for`.", fills="max_open_seconds"
    )


class CircuitBreaker(Thresholds):
    mode: values.BreakerModeName | None = key(
        "`enforce` refuses while open, `metrics_only` counts and never refuses, `disabled` does neither, "
        "`forced_open` refuses everything.",
        fills="mode",
    )
    scope: values.ScopeName | None = key(
        "`process`: each process judges by what it sees itself. `fleet`: the replicas that meet by `share` act as "
        "one: what some of them see opens the breakers of those that know nothing else, and all together probe with "
        "`half_open.max_calls`.",
        fills="scope",
    )
    half_open: HalfOpen | None = key("How recovery is tried.")
    ramp: values.DurationOrZero | None = key(
        "After closing, admit a growing share of requests over this long; 0s admits all at once.",
        fills="ramp_seconds",
    )
    failure_on: list[values.FailureItem] | None = key(
        "What counts as a failure: 5xx, connect_failure, reset, timeout, a status such as 429, "
        "or a gRPC one such as grpc:UNAVAILABLE; without any of those UNAVAILABLE, UNKNOWN, INTERNAL, DATA_LOSS and "
        "DEADLINE_EXCEEDED count (5xx and timeout). "
        "Judged at the end of the response, or 1s after its head.",
        examples=[["5xx", 429]],
        fills="failure_on",
        form=WORDS,
    )
    failure_header: dict[values.HeaderName, values.HeaderValue | None] | None = key(
        "Response header fields that mark a failure whatever the status: any of them, "
        "with exactly this value.",
        examples=[{"x-fail": "1"}],
        fills="failure_headers",
        form=FIELDS,
    )
    count_timeout_after: values.DurationOrAuto | None = key(
        "An attempt that timed out with less time than this says nothing about the upstream; at most the route's "
        "timeouts, or none would ever count. `auto`: three times the p95 of the route's last 1,000 successes, at "
        "most 0.8s unless the p95 itself is longer, at least 50ms; 0.8s while fewer than 20 successes are known.",
        fills="count_timeout_after_seconds",
        form=_COUNT_TIMEOUT_AFTER,
        default=values.AUTO,
    )
    warm_up: values.PeriodOrOff | None = key(
        "Connections that are refused before the upstream's first answer to this process open nothing, for at most "
        "this long: a pod that starts is no outage. `off`: they count from the first on.",
        fills="warm_up_seconds",
    )
    candidate: Thresholds | None = key(
        "A second policy on the same traffic: counted in metrics, never acts. "
        "What it leaves out is as above.",
        examples=[{"failure_rate_threshold": "30%"}],
        fills="candidate",
    )

    def store(self, base: T, but: Collection[str] = ()) -> T:
        """`base`, a `BreakerPolicy`, with what is given, and with what follows from it."""
        policy: Any = super().store(base, (*but, "candidate"))
        if self.minimum_calls is None and policy.window.type is core.WindowType.COUNT:
            # resilience4j: a built-in number that a short count window could never hold shrinks to the window.
            policy = replace(policy, minimum_calls=min(policy.minimum_calls, int(policy.window.size)))
        if self.candidate is not None:
            policy = replace(policy, candidate=_candidate(self.candidate, policy.window))
        stored: T = policy
        return stored


def _candidate(section: Thresholds, active: core.WindowPolicy) -> core.CandidatePolicy:
    """A window of which it gives a part is otherwise that of the active policy; without any part it has none."""
    candidate = section.store(core.CandidatePolicy(window=active))
    return candidate if section.sliding_window is not None else replace(candidate, window=None)
