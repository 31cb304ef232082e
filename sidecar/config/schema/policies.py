"""The policies of a route as the file writes them: every one may stand in a route and in `defaults`.

Every key is optional and None means "not given": the built-in values live in `core/snapshot.py`, and the
texts below that name them are made from there.
"""

from __future__ import annotations

from typing import Annotated

from sidecar.config.schema import values
from sidecar.config.schema.regex import MAX_STEPS
from sidecar.config.schema.units import format_duration, format_share
from sidecar.config.schema.values import OrShorthand, Section, setting
from sidecar.core.snapshot import (
    AdmissionPolicy,
    BreakerPolicy,
    DeadlinePolicy,
    Failure,
    FallbackPolicy,
    RouteTimeouts,
)

_TIMEOUTS = RouteTimeouts()
_DEADLINE = DeadlinePolicy()
_ADMISSION = AdmissionPolicy()
_BREAKER = BreakerPolicy()


class Rewrite(Section):
    prefix: values.Path | None = setting(
        "Replaces the prefix that `match.path.prefix` matched, so every match of the route needs one. "
        "Unset: the path is sent as it came.",
        examples=["/", "/api"],
    )
    host: values.RewriteHost | None = setting(
        "The Host that the upstream sees. Unset: the caller's own.", examples=["payments.internal"]
    )


class RequestHeaders(Section):
    """Applied in the order remove, set, add."""

    set: dict[values.SettableRequestHeader, values.HeaderValue | None] | None = setting(
        "Fields to replace, or to add when they are missing. "
        "In a route, null takes back what `defaults` sets.",
        examples=[{"x-mesh": "a"}],
    )
    add: dict[values.SettableRequestHeader, values.HeaderValue | None] | None = setting(
        "Fields to append beside those of the same name.", examples=[{"x-hop": "sidecar"}]
    )
    remove: list[values.SettableRequestHeader] | None = setting("Fields to drop.", examples=[["x-debug"]])


class ResponseHeaders(Section):
    """Applied in the order remove, set, add."""

    set: dict[values.SettableHeader, values.HeaderValue | None] | None = setting(
        "Fields to replace, or to add when they are missing. "
        "In a route, null takes back what `defaults` sets.",
        examples=[{"cache-control": "no-store"}],
    )
    add: dict[values.SettableHeader, values.HeaderValue | None] | None = setting(
        "Fields to append beside those of the same name.", examples=[{"x-hop": "sidecar"}]
    )
    remove: list[values.SettableHeader] | None = setting("Fields to drop.", examples=[["server"]])


class Timeouts(Section):
    request: values.DurationOrOff | None = setting(
        "For all attempts together, from the request's head to the end of the response; "
        "answered with 504 beyond. "
        "A caller's own shorter deadline wins. `off`: there is no limit, as streams need it.",
        default=format_duration(_TIMEOUTS.request_seconds),
    )
    attempt: values.DurationOrOff | None = setting(
        "For one attempt; at most `request`. Unset, or `off`: an attempt may take all that is left.",
        examples=["800ms"],
    )
    head: values.DurationOrOff | None = setting(
        "From the sending of an attempt to the head of its answer; at most `request`. Unset, or `off`: the head may "
        "take as long as the attempt.",
        examples=["500ms"],
    )
    idle: values.DurationOrOff | None = setting(
        "Without a byte in either direction, for bodies and tunnels; the exchange is given up beyond. `off`: silence "
        "ends nothing.",
        default=format_duration(_TIMEOUTS.idle_seconds),
    )


class Deadline(Section):
    mode: values.PolicyMode | None = setting(
        "`enforce` acts on deadlines, `observe` measures and acts on none, `off` ignores them.",
        default=_DEADLINE.mode.value,
    )
    max: values.Duration | None = setting(
        "Cap on what a caller may ask for. Unset: `timeouts.request` alone bounds it.", examples=["10s"]
    )
    offset: values.DurationOrZero | None = setting(
        "Taken off what a caller or a trace gave, to answer before the caller gives up; "
        "at most a tenth of that budget.",
        default=format_duration(_DEADLINE.offset_seconds),
    )
    headers: list[values.HeaderName] | None = setting(
        "Timeout header fields that are read from callers; the smallest valid one counts.",
        default=[name.decode() for name in _DEADLINE.headers],
    )
    recover_from_trace: values.Flag | None = setting(
        "Find the deadline of the inbound exchange that caused an outbound request by its trace context.",
        default=_DEADLINE.recover_from_trace,
    )
    cancel_with_caller: values.CancelMode | None = setting(
        "Which outbound exchanges end with the inbound one that caused them: `safe` (GET, HEAD, OPTIONS), "
        "`all` or `off`.",
        default=_DEADLINE.cancel_with_caller.value,
    )
    inject_baggage: values.Flag | None = setting(
        "Also write the budget into `baggage` as `deadline-ms`, for hops without a sidecar.",
        default=_DEADLINE.inject_baggage,
    )


class Admission(Section):
    mode: values.PolicyMode | None = setting(
        "`enforce` answers 504 at once when the budget is too small to succeed, `observe` counts what "
        "it would have refused, `off` does neither.",
        default=_ADMISSION.mode.value,
    )
    min_budget: values.MinBudget | None = setting(
        "The smallest budget worth trying: a duration, or `p50` or `p95` of the route's recent successes.",
        default=_ADMISSION.min_budget,
        examples=["p50", "20ms"],
    )
    max_reject_ratio: values.Share | None = setting(
        "At most this share of requests is refused, so that the estimate keeps learning.",
        default=_ADMISSION.max_reject_ratio,
    )


class SlidingWindow(Section):
    type: values.WindowTypeName | None = setting(
        "`time` keeps the calls of the last `size` seconds, `count` the last `size` calls.",
        default=_BREAKER.window.type.value,
    )
    size: values.WindowSize | None = setting(
        "A duration for `time`, a number of calls for `count` (which has no built-in one).",
        default=format_duration(_BREAKER.window.size),
        examples=["10s", 100],
    )


class HalfOpen(Section):
    max_calls: values.Count | None = setting(
        "Probes at the same time; further requests are refused.", default=_BREAKER.half_open_max_calls
    )
    successes: values.Count | None = setting(
        "Good probes that close the breaker.", default=_BREAKER.half_open_successes
    )
    max_wait: values.Duration | None = setting(
        "Without a verdict for this long the breaker opens again.",
        default=format_duration(_BREAKER.half_open_max_wait_seconds),
    )


class Thresholds(Section):
    """When a breaker trips and how long it stays open; what a candidate may vary."""

    sliding_window: SlidingWindow | None = setting("The calls that the rates are computed over.")
    minimum_calls: values.Count | None = setting(
        "Below this many calls in the window no rate trips the breaker. "
        "The built-in one shrinks with a shorter count window.",
        default=_BREAKER.minimum_calls,
    )
    failure_rate_threshold: values.PositiveShare | None = setting(
        "Share of failed calls at which the breaker opens.",
        default=format_share(_BREAKER.failure_rate_threshold),
    )
    consecutive_failures: values.CountOrZero | None = setting(
        "Failures in a row that open the breaker, whatever the rate; 0 switches this trigger off.",
        default=_BREAKER.consecutive_failures,
    )
    slow_call_duration: values.Duration | None = setting(
        "A call that takes longer is slow. Unset: slowness is not judged.", examples=["1s"]
    )
    slow_call_rate_threshold: values.PositiveShare | None = setting(
        "Share of slow calls at which the breaker opens.",
        default=format_share(_BREAKER.slow_call_rate_threshold),
    )
    open_for: values.Duration | None = setting(
        "How long the breaker refuses before its first probe; doubles, with jitter, at each failed recovery.",
        default=format_duration(_BREAKER.open_seconds),
    )
    max_open_for: values.Duration | None = setting(
        "Where that doubling ends; at least `open_for`.", default=format_duration(_BREAKER.max_open_seconds)
    )


class CircuitBreaker(Thresholds):
    mode: values.BreakerModeName | None = setting(
        "`enforce` refuses while open, `metrics_only` counts and never refuses, `disabled` does neither, "
        "`forced_open` refuses everything.",
        default=_BREAKER.mode.value,
    )
    half_open: HalfOpen | None = setting("How recovery is tried.")
    ramp: values.DurationOrZero | None = setting(
        "After closing, admit a growing share of requests over this long; 0s admits all at once.",
        default=format_duration(_BREAKER.ramp_seconds),
    )
    failure_on: list[values.FailureItem] | None = setting(
        "What counts as a failure: 5xx, connect_failure, reset, timeout, or a status such as 429. "
        "Judged at the end of the response.",
        default=[member.value for member in Failure if member in _BREAKER.failure_on],
        examples=[["5xx", 429]],
    )
    failure_header: dict[values.HeaderName, values.HeaderValue | None] | None = setting(
        "Response header fields that mark a failure whatever the status: any of them, "
        "with exactly this value.",
        examples=[{"x-fail": "1"}],
    )
    count_timeout_after: values.Duration | None = setting(
        "An attempt that timed out with less time than this says nothing about the upstream. "
        "Unset: the smallest of the route's timeouts, slow_call_duration and "
        f"{format_duration(_BREAKER.count_timeout_after_seconds)}.",
        examples=["1s"],
    )
    candidate: Thresholds | None = setting(
        "A second policy on the same traffic: counted in metrics, never acts. "
        "What it leaves out is as above.",
        examples=[{"failure_rate_threshold": "30%"}],
    )


class Fallback(Section):
    """A fixed response (status, headers, body or body_file), or another upstream."""

    status: values.Status | None = setting("Of the fixed response.", default=FallbackPolicy().status)
    headers: dict[values.SettableHeader, values.HeaderValue | None] | None = setting(
        "Of the fixed response.", examples=[{"content-type": "application/json"}]
    )
    body: values.Text | None = setting("Of the fixed response, sent as UTF-8.", examples=['{"items": []}'])
    body_file: values.NonEmptyText | None = setting(
        "A file that holds the body, relative to the configuration file; read at each load and watched.",
        examples=["fallback.json"],
    )
    upstream: values.UpstreamName | None = setting(
        "Send the request there instead: a name, or http://host:port. Excludes the fixed response."
    )


class Policies(Section):
    """What may stand in a route and, for all routes at once, in `defaults`. A route's own key wins, key by
    key.
    """

    rewrite: Rewrite | None = setting("Changes to what the upstream is asked for.")
    request_headers: RequestHeaders | None = setting("Changes to the request's header fields.")
    response_headers: ResponseHeaders | None = setting("Changes to the response's header fields.")
    timeouts: Timeouts | None = setting("How long an exchange may take.")
    deadline: Deadline | None = setting("How callers' deadlines are read, bounded and handed on.")
    admission: Admission | None = setting("Whether to refuse what cannot finish in time.")
    circuit_breaker: CircuitBreaker | None = setting(
        "When to stop asking an upstream that fails; one breaker for each route and upstream."
    )
    fallback: Fallback | None = setting(
        "What the client gets instead of the sidecar's own error. Unset: the error; null takes back what "
        "`defaults` gives."
    )


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict) else value


def exact(value: object) -> object:
    """The short form of a value's condition: the text itself."""
    return value if isinstance(value, dict) else {"exact": values.text(value)}


class PathCondition(Section):
    """Exactly one of the three."""

    exact: values.Path | None = setting("The whole path.", examples=["/healthz"])
    prefix: values.PathPrefix | None = setting(
        "Whole segments: /v1 matches /v1 and /v1/a, not /v10.", examples=["/v1"]
    )
    regex: values.RegexText | None = setting(
        "Matches the whole path, without the query. RE2's syntax: no look-around, no back-references; at "
        f"most {MAX_STEPS} steps when compiled. `.` is any character.",
        examples=["/v[0-9]+/.*"],
    )


class ValueCondition(Section):
    """Exactly one of the three; a plain text stands for `exact`."""

    exact: values.Text | None = setting("The whole value.", examples=["gold"])
    regex: values.RegexText | None = setting(
        "Matches the whole value; as for a path.", examples=["gold|silver"]
    )
    present: values.Flag | None = setting(
        "true: there, whatever its value; false: not there.", examples=[True]
    )


_Value = Annotated[ValueCondition, OrShorthand(exact, {"type": "string"})]


class Match(Section):
    """All given conditions must hold; none at all matches everything."""

    hosts: list[values.HostPattern] | None = setting(
        "Any of these: a host without port, `*.suffix` for one or more labels in front, `*` for every host.",
        examples=[["payments", "*.payments.svc"]],
    )
    path: PathCondition | None = setting("A condition on the path.")
    methods: list[values.Method] | None = setting(
        "Any of these, upper and lower case told apart; a method is any token (RFC 9110 9.1).",
        examples=[["GET", "HEAD"]],
    )
    headers: dict[values.HeaderName, _Value] | None = setting(
        "All of these, by field name.", examples=[{"x-tenant": "gold"}]
    )
    query: dict[values.Text, _Value] | None = setting(
        "All of these, by the parameter's name.", examples=[{"beta": "1"}]
    )


class Route(Policies):
    name: values.Name = values.required(
        "Its identity across reloads, in metrics and in logs; unique.", examples=["checkout-to-payments"]
    )
    listener: values.Name | None = setting("The listener whose requests it takes.", default="inbound")
    match: Annotated[list[Match], OrShorthand(_listed)] | None = setting(
        "Which requests: one match, or a list of which any must hold. Unset: all of the listener."
    )
    upstream: values.UpstreamName | None = setting(
        "Where requests go: an upstream's name, or http://host:port as a shorthand. Or else `weights`.",
        examples=["payments", "http://127.0.0.1:8080"],
    )
    weights: dict[values.Name, values.Weight] | None = setting(
        "Upstreams with their shares of the requests; at least one above zero. Excludes `upstream`.",
        examples=[{"payments": 90, "payments-canary": 10}],
    )
