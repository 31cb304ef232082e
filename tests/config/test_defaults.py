"""`defaults` under routes, key by key, and where each value came from."""

import pytest

from sidecar.config.load import Loaded, load_text
from sidecar.config.load.origins import From, Origin
from sidecar.config.problems import Place
from sidecar.core.snapshot import (
    BreakerPolicy,
    CandidatePolicy,
    FallbackPolicy,
    HeaderOps,
    HedgePolicy,
    MirrorPolicy,
    RouteTimeouts,
    WindowPolicy,
    WindowType,
)


def loaded(defaults: str, route: str = "") -> Loaded:
    text = (
        "version: 1\n"
        "upstreams: {app: {endpoints: ['a:1']}, spare: {endpoints: ['b:1']}}\n"
        f"defaults: {{{defaults}}}\n"
        "routes:\n"
        f"- {{name: a, upstream: app, {route}}}\n"
    )
    return load_text(text, "s.yaml", {"SECRET": "hidden"})


def test_a_routes_own_key_wins_and_the_others_stay() -> None:
    route = loaded("timeouts: {request: 9s, idle: 1m}", "timeouts: {request: 2s}").snapshot.routes[0]
    assert route.timeouts == RouteTimeouts(2.0, None, 60.0)


def test_deep_keys_are_merged_too() -> None:
    route = loaded(
        "circuit_breaker: {open_for: 2s, half_open: {max_calls: 3, successes: 2}, candidate: {open_for: 9s}}",
        "circuit_breaker: {half_open: {max_calls: 4}, candidate: {minimum_calls: 7}}",
    ).snapshot.routes[0]
    assert route.breaker == BreakerPolicy(
        open_seconds=2.0,
        half_open_max_calls=4,
        half_open_successes=2,
        counts_rate_limited=False,
        candidate=CandidatePolicy(minimum_calls=7, open_seconds=9.0),
    )


def test_header_operations_are_merged_by_name_whatever_its_case() -> None:
    route = loaded(
        "request_headers: {set: {x-a: '1', X-B: '2', x-c: '3'}, remove: [x-d]}",
        "request_headers: {set: {x-b: '9', x-c: null}, remove: [x-e]}",
    ).snapshot.routes[0]
    assert dict(route.request_headers.set) == {b"x-a": b"1", b"x-b": b"9"}
    assert route.request_headers.remove == {b"x-e"}


def test_null_takes_back_what_defaults_give() -> None:
    both = "timeouts: {attempt: 1s}, fallback: {body: x}, circuit_breaker: {candidate: {open_for: 1s}}"
    route = loaded(
        both, "timeouts: {attempt: null}, fallback: null, circuit_breaker: {candidate: null}"
    ).snapshot.routes[0]
    assert (route.timeouts.attempt_seconds, route.fallback, route.breaker.candidate) == (None, None, None)


def test_null_takes_back_a_hedge_or_a_mirror_as_a_whole() -> None:
    both = "hedge: {max: 2}, mirror: {upstream: 'http://127.0.0.1:1'}"
    (route,) = loaded(both, "hedge: null").snapshot.routes
    assert (route.hedge, route.mirror) == (None, MirrorPolicy("127.0.0.1:1"))
    found = loaded(both, "hedge: {after: 1s}, mirror: null").snapshot
    assert (found.routes[0].hedge, found.routes[0].mirror) == (HedgePolicy(1.0, 2), None)
    assert "127.0.0.1:1" in loaded(both).snapshot.upstreams


def test_a_section_that_says_nothing_leaves_the_defaults() -> None:
    route = loaded(
        "timeouts: {request: 9s}, response_headers: {set: {x-a: b}}", "timeouts: , response_headers: {}"
    )
    assert route.snapshot.routes[0].timeouts.request_seconds == 9.0
    assert route.snapshot.routes[0].response_headers == HeaderOps(set=((b"x-a", b"b"),))


@pytest.mark.parametrize(
    ("defaults", "own", "result"),
    [
        ("{status: 503, body: x}", "{body: y}", FallbackPolicy(503, (), b"y")),
        ("{status: 503, body: x}", "{upstream: spare}", FallbackPolicy(upstream="spare")),
        ("{upstream: spare}", "{status: 503}", FallbackPolicy(503)),
        ("{body_file: none.json}", "{body: y}", FallbackPolicy(body=b"y")),
    ],
)
def test_a_fallback_of_another_kind_replaces_that_of_defaults(
    defaults: str, own: str, result: FallbackPolicy
) -> None:
    text = (
        "version: 1\nupstreams: {app: {endpoints: ['a:1']}, spare: {endpoints: ['b:1']}}\n"
        f"defaults: {{fallback: {defaults}}}\nroutes:\n- {{name: a, upstream: app, fallback: {own}}}\n"
    )
    assert load_text(text).snapshot.routes[0].fallback == result


def test_a_window_of_another_type_does_not_take_the_size_of_defaults() -> None:
    count = "circuit_breaker: {sliding_window: {type: count, size: 100}}"
    window = (
        loaded(count, "circuit_breaker: {sliding_window: {type: time}}").snapshot.routes[0].breaker.window
    )
    assert window == WindowPolicy(WindowType.TIME, 10.0)
    window = loaded(count, "circuit_breaker: {sliding_window: {size: 50}}").snapshot.routes[0].breaker.window
    assert window == WindowPolicy(WindowType.COUNT, 50)


def test_origins_name_the_route_the_defaults_or_the_built_in_value() -> None:
    origins = loaded(
        "timeouts: {idle: 1m}, request_headers: {set: {x-a: '${SECRET}'}}",
        "timeouts: {request: 2s}, circuit_breaker: {failure_on: [5xx, 429]}",
    ).origins
    assert origins.of("a", "timeouts.request") == Origin(From.ROUTE, Place("s.yaml", 5, 39), "2s")
    assert origins.of("a", "timeouts.idle") == Origin(From.DEFAULTS, Place("s.yaml", 3, 23), "1m")
    assert origins.of("a", "timeouts.attempt") == Origin(From.BUILT_IN, None, None)
    assert origins.of("a", "circuit_breaker.open_for") == Origin(From.BUILT_IN, None, "5s")
    assert origins.of("a", "deadline.recover_from_trace") == Origin(From.BUILT_IN, None, "true")
    assert origins.of("a", "circuit_breaker.failure_on").text == "[5xx, 429]"
    assert origins.of("a", "request_headers.set.x-a") == Origin(
        From.DEFAULTS, Place("s.yaml", 3, 58), "${SECRET}"
    )
    assert str(origins.of("a", "timeouts.idle")) == "defaults, s.yaml:3:23"
    assert str(origins.of("a", "timeouts.attempt")) == "built in"
    assert origins.place_of("a") == Place("s.yaml", 5, 3)


def test_every_built_in_origin_states_what_the_snapshot_has() -> None:
    origins = loaded("").origins.of_route("a")
    stated = {key: origin.text for key, origin in origins.items() if origin.text is not None}
    assert stated == {
        "timeouts.request": "15s",
        "timeouts.idle": "5m",
        "deadline.mode": "enforce",
        "deadline.offset": "5ms",
        "deadline.headers": "[grpc-timeout, x-envoy-expected-rq-timeout-ms, x-envoy-upstream-rq-timeout-ms, "
        "x-request-timeout-ms, l5d-timeout]",
        "deadline.recover_from_trace": "true",
        "deadline.cancel_with_caller": "safe",
        "deadline.inject_baggage": "false",
        "admission.mode": "off",
        "admission.min_budget": "p50",
        "admission.max_reject_ratio": "0.2",
        "clients.forwarded_hops": "0",
        "cors.allow_credentials": "false",
        "cors.max_age": "5s",
        "cors.allow_private_network": "false",
        "circuit_breaker.sliding_window.type": "time",
        "circuit_breaker.sliding_window.size": "10s",
        "circuit_breaker.minimum_calls": "20",
        "circuit_breaker.failure_rate_threshold": "50%",
        "circuit_breaker.consecutive_failures": "5",
        "circuit_breaker.slow_call_rate_threshold": "80%",
        "circuit_breaker.open_for": "5s",
        "circuit_breaker.max_open_for": "1m",
        "circuit_breaker.mode": "enforce",
        "circuit_breaker.half_open.max_calls": "1",
        "circuit_breaker.half_open.successes": "1",
        "circuit_breaker.half_open.max_wait": "10s",
        "circuit_breaker.ramp": "0s",
        "circuit_breaker.failure_on": "[5xx, connect_failure, reset, timeout]",
        "circuit_breaker.count_timeout_after": "auto",
        "circuit_breaker.scope": "process",
        "circuit_breaker.warm_up": "30s",
        "circuit_breaker.half_open.check.timeout": "1s",
        "weights_when_open": "shift",
        "shift_up_to": "2",
        "retry.attempts": "0",
        "retry.on": "[connect_failure, refused]",
        "retry.backoff.base": "25ms",
        "retry.backoff.max": "250ms",
        "retry.budget.ratio": "0.2",
        "retry.budget.min_per_second": "3",
        "retry.non_idempotent": "false",
        "retry.buffer": "64KiB",
        "retry.nested": "false",
        "hedge.after": "p95",
        "hedge.max": "1",
        "mirror.share": "1.0",
        "mirror.methods": "[GET, HEAD, OPTIONS]",
        "mirror.buffer": "64KiB",
        "mirror.attempt": "5s",
        "mirror.max_in_flight": "64",
        "fallback.status": "200",
    }


def test_an_unknown_route_or_key_is_a_key_error() -> None:
    origins = loaded("").origins
    with pytest.raises(KeyError):
        origins.of("b", "timeouts.request")
    with pytest.raises(KeyError):
        origins.of("a", "timeouts.none")
