"""What is counted, where it falls, and that no client can make the series grow."""

from __future__ import annotations

import sys
import threading
from bisect import bisect_left
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.admin.prometheus import render
from sidecar.core.errors import Reason
from sidecar.core.families.catalogue import FAMILIES
from sidecar.core.families.family import Attributes, HistogramRow, Value
from sidecar.core.numbers import (
    BUDGET_BOUNDS,
    FOLD_AT,
    MAX_SERIES,
    MAX_SHAPES,
    METHODS,
    Numbers,
)
from sidecar.core.observe import Notice
from sidecar.core.retry import RetryCause
from sidecar.core.snapshot import DURATION_BOUNDS, Endpoint, Upstream
from sidecar.core.sources import (
    BreakerReading,
    ConfigNumbers,
    Sources,
    UpstreamNumbers,
    server_of,
)
from sidecar.core.statechart import BY_TRAFFIC
from sidecar.core.transition import State, Transition, TransitionReason, WindowNumbers
from tests.telemetry.fakes import FakeAttempt, FakeExchange, count_ended

ROUTE: Attributes = (("sidecar.route", "checkout"), ("sidecar.listener", "outbound"))
GET: Attributes = (("http.request.method", "GET"), ("url.scheme", "http"))


def read(numbers: Numbers, name: str, sources: Sources | None = None) -> dict[Attributes, Value]:
    family = next(family for family in FAMILIES if family.name == name)
    points = list(family.points(numbers.routes(), sources or Sources()))
    assert len(dict(points)) == len(points), "each set of attributes appears once"
    return dict(points)


def by(numbers: Numbers, name: str) -> dict[object, Value]:
    """Of a counter of `ROUTE` by reason alone."""
    found = read(numbers, f"sidecar.{name}")
    assert all(attributes[:2] == ROUTE and len(attributes) == 3 for attributes in found)
    return {dict(attributes)["sidecar.deadline.reason"]: count for attributes, count in found.items()}


def retries(numbers: Numbers) -> dict[object, Value]:
    """Of the upstream `payments`, by reason."""
    found = read(numbers, "sidecar.retry.attempts")
    assert all(attributes[:3] == (*ROUTE, ("sidecar.upstream", "payments")) for attributes in found)
    return {dict(attributes)["sidecar.retry.reason"]: count for attributes, count in found.items()}


def pass_through(numbers: Numbers, exchange: FakeExchange) -> None:
    count_ended(numbers, exchange)


def test_bounds_are_those_of_the_conventions() -> None:
    assert DURATION_BOUNDS == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    assert list(BUDGET_BOUNDS) == sorted(BUDGET_BOUNDS)


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.005, 0), (0.0051, 1), (0.25, 6), (10.0, 13), (10.1, 14)]
)
def test_upper_bounds_are_inclusive_and_the_last_bucket_is_open(seconds: float, bucket: int) -> None:
    numbers = Numbers()
    pass_through(numbers, FakeExchange(started=0.0, ended=seconds, attempts=()))
    (row,) = read(numbers, "http.server.request.duration").values()
    assert isinstance(row, HistogramRow)
    assert list(row.counts).index(1) == bucket
    assert row.sum == seconds


def test_a_hedge_is_counted_by_what_became_of_it_and_is_no_retry() -> None:
    numbers = Numbers()
    lost, won = FakeAttempt(status=0), FakeAttempt(resend=1, cause=RetryCause.HEDGE)
    pass_through(numbers, FakeExchange(attempts=(lost, won)))
    slow_hedge = FakeAttempt(status=0, resend=1, cause=RetryCause.HEDGE)
    pass_through(
        numbers, FakeExchange(attempts=(slow_hedge, FakeAttempt()))
    )  # who has the client is the last
    failed = FakeAttempt(status=0, reason=Reason.CONNECTION_REFUSED, resend=1, cause=RetryCause.HEDGE)
    pass_through(numbers, FakeExchange(attempts=(failed, FakeAttempt())))
    where = (*ROUTE, ("sidecar.upstream", "payments"))
    assert read(numbers, "sidecar.hedge.attempts") == {
        (*where, ("sidecar.hedge.outcome", outcome)): 1 for outcome in ("won", "lost", "failed")
    }
    assert read(numbers, "sidecar.retry.attempts") == {}
    rows = read(numbers, "http.client.request.duration").values()
    assert sum(sum(row.counts) for row in rows if isinstance(row, HistogramRow)) == 6


def test_one_exchange_is_one_server_row_and_one_client_row_for_each_attempt() -> None:
    numbers = Numbers()
    failed = FakeAttempt(status=0, reason=Reason.CONNECTION_REFUSED)
    pass_through(numbers, FakeExchange(attempts=(failed, FakeAttempt())))
    server = read(numbers, "http.server.request.duration")
    assert list(server) == [ROUTE + GET + (("http.response.status_code", 200),)]
    where: Attributes = (("sidecar.upstream", "payments"), ("server.address", "pay"), ("server.port", 80))
    sources = Sources(upstreams=[UpstreamNumbers("payments", server=("pay", 80))])
    assert set(read(numbers, "http.client.request.duration", sources)) == {
        ROUTE + where + GET + (("error.type", "connection_refused"),),
        ROUTE + where + GET + (("http.response.status_code", 200),),
    }
    assert retries(numbers) == {"connect_failure": 1}
    by_tls = Sources(upstreams=[UpstreamNumbers("payments", server=("pay", 80), scheme="https")])
    schemes = {dict(key)["url.scheme"] for key in read(numbers, "http.client.request.duration", by_tls)}
    assert schemes == {"https"}


def test_a_grpc_call_is_counted_by_its_own_status() -> None:
    numbers = Numbers()
    for code in range(17):
        attempts = (FakeAttempt(grpc_status=14), FakeAttempt(grpc_status=code))
        pass_through(numbers, FakeExchange(grpc_status=code, attempts=attempts))
    pass_through(numbers, FakeExchange(grpc_status=12, reason=Reason.NO_ROUTE, attempts=()))
    pass_through(numbers, FakeExchange())
    server = [dict(row) for row in read(numbers, "http.server.request.duration")]
    codes = [row["rpc.grpc.status_code"] for row in server if row.get("rpc.system") == "grpc"]
    assert sorted(codes) == sorted([*range(17), 12])
    wrong = {row["error.type"]: row["rpc.grpc.status_code"] for row in server if "error.type" in row}
    assert wrong == {
        "UNKNOWN": 2, "DEADLINE_EXCEEDED": 4, "UNIMPLEMENTED": 12, "INTERNAL": 13, "UNAVAILABLE": 14, "DATA_LOSS": 15,
        "no_route": 12,
    }  # fmt: skip
    client = [dict(row) for row in read(numbers, "http.client.request.duration")]
    assert {row.get("rpc.grpc.status_code") for row in client} == {None, *range(17)}
    assert sum("error.type" in row for row in client) == 16, "all but OK"


def test_reasons_that_share_an_error_type_share_a_row() -> None:
    numbers = Numbers()
    for reason in (Reason.CONNECTION_RESET, Reason.INCOMPLETE_RESPONSE):
        pass_through(numbers, FakeExchange(status=502, reason=reason, attempts=()))
    ((attributes, row),) = read(numbers, "http.server.request.duration").items()
    assert attributes[-2:] == (("http.response.status_code", 502), ("error.type", "connection_reset"))
    assert isinstance(row, HistogramRow)
    assert sum(row.counts) == 2


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_counted_under_its_own_error_type(reason: Reason) -> None:
    numbers = Numbers()
    failed = FakeAttempt(status=0, reason=reason)
    pass_through(numbers, FakeExchange(status=502, reason=reason, attempts=(failed,)))
    for name in ("http.server.request.duration", "http.client.request.duration"):
        (attributes,) = read(numbers, name)
        assert dict(attributes)["error.type"] == reason.error_type
        assert reason.error_type in {one.value for one in Reason}


@pytest.mark.parametrize(
    ("status", "server", "client"), [(200, "", ""), (404, "", "404"), (503, "503", "503")]
)
def test_a_status_is_an_error_type_as_the_conventions_say(status: int, server: str, client: str) -> None:
    numbers = Numbers()
    pass_through(numbers, FakeExchange(status=status, attempts=(FakeAttempt(status=status),)))
    for name, expected in (
        ("http.server.request.duration", server),
        ("http.client.request.duration", client),
    ):
        (attributes,) = read(numbers, name)
        assert dict(attributes).get("error.type", "") == expected


def test_series_of_all_routes_are_bounded_and_what_shares_one_is_counted() -> None:
    numbers = Numbers(max_series=4)
    statuses = [200, 200, 201, 202, 203]
    for route in ("a", "b"):
        for status in statuses:
            attempts = (FakeAttempt(status=status),)
            pass_through(numbers, FakeExchange(route_name=route, status=status, attempts=attempts))
    rows = read(numbers, "http.server.request.duration")
    counts = {
        (dict(key)["sidecar.route"], dict(key).get("http.response.status_code")): sum(row.counts)  # type: ignore[union-attr]
        for key, row in rows.items()
    }
    assert counts == {("a", 200): 2, ("a", 201): 1, ("a", None): 2, ("b", None): 5}
    assert list(read(numbers, "sidecar.telemetry.overflowed").values()) == [4, 10]
    assert "sidecar_telemetry_overflowed_total" in "".join(
        render(numbers, Sources(), openmetrics=False, wall_offset=0.0)
    )


def test_a_route_that_goes_leaves_room_for_the_series_of_another() -> None:
    numbers = Numbers(max_series=2)
    for route in ("a", "b"):
        pass_through(numbers, FakeExchange(route_name=route))
    numbers.retain({"b"})
    assert numbers.series == 2
    numbers.max_series = 3
    pass_through(numbers, FakeExchange(route_name="b", attempts=()))
    assert list(read(numbers, "sidecar.telemetry.overflowed").values()) == [2]


def test_active_requests_are_those_of_the_live_set_and_stay_as_zero() -> None:
    live = [FakeExchange(), FakeExchange(method=b"BREW"), FakeExchange(route_name=None)]
    numbers = Numbers(live)
    assert read(numbers, "http.server.active_requests") == {
        ROUTE + GET: 1,
        (*ROUTE, ("http.request.method", "_OTHER"), ("url.scheme", "http")): 1,
    }
    live.clear()
    assert set(read(numbers, "http.server.active_requests").values()) == {0}


def test_made_up_methods_and_statuses_cannot_make_the_series_grow() -> None:
    numbers = Numbers()
    for index in range(3000):
        method = METHODS[index % len(METHODS)] if index % 2 else b"M%d" % index
        status = 100 + index % 900
        attempts = (FakeAttempt(status=status),)
        pass_through(numbers, FakeExchange(method=method, status=status, attempts=attempts))
    (route,) = numbers.routes()
    most = MAX_SERIES + len(METHODS) + 1
    assert len(route.server) <= most
    assert len(route.client) <= most
    assert len(route.shapes) <= MAX_SHAPES
    rows = read(numbers, "http.server.request.duration")
    assert sum(sum(row.counts) for row in rows.values() if isinstance(row, HistogramRow)) == 3000
    assert any(("otel.metric.overflow", True) in attributes for attributes in rows)
    assert set(read(numbers, "http.server.active_requests").values()) == {0}


def test_exchange_without_a_route_is_counted_without_attributes_a_client_chose() -> None:
    numbers = Numbers()
    exchange = FakeExchange(
        route_name=None, status=404, reason=Reason.NO_ROUTE, attempts=(), budget_source=""
    )
    count_ended(numbers, exchange)
    expected = (*GET, ("http.response.status_code", 404), ("error.type", "no_route"))
    assert list(read(numbers, "http.server.request.duration")) == [expected]
    assert read(numbers, "http.server.active_requests") == {}


def test_budgets_are_counted_by_source_and_recovered_ones_told_apart() -> None:
    numbers = Numbers()
    pass_through(numbers, FakeExchange(budget_seconds=2.0, budget_source="route"))
    pass_through(numbers, FakeExchange(budget_seconds=0.5, budget_source="trace"))
    rows = read(numbers, "sidecar.deadline.budget")
    assert {dict(attributes)["sidecar.deadline.source"]: row.sum for attributes, row in rows.items()} == {  # type: ignore[union-attr]
        "route": 2.0,
        "trace": 0.5,
    }
    assert read(numbers, "sidecar.deadline.recovered") == {ROUTE: 1}


def test_an_exchange_without_a_bound_has_no_budget_and_exceeds_none() -> None:
    numbers = Numbers()
    pass_through(numbers, FakeExchange(budget_seconds=2.0, budget_source="route"))
    pass_through(numbers, FakeExchange(ended=1e6, budget_seconds=inf, budget_source=""))
    (row,) = read(numbers, "sidecar.deadline.budget").values()
    assert isinstance(row, HistogramRow)
    assert (row.sum, sum(row.counts)) == (2.0, 1)
    assert by(numbers, "deadline.exceeded") == {"timeout": 0, "late": 0}


@pytest.mark.parametrize("budget", [0.28, 0.295, 0.3])
def test_who_takes_the_very_length_of_the_budget_has_exceeded_it(budget: float) -> None:
    """Whatever the clock shows: from its sum with the budget a little less may remain."""
    numbers, started = Numbers(), 20_000.0
    assert started + budget - started < budget
    late = FakeExchange(
        started=started, ended=started + budget, budget_seconds=budget, status=504, reason=Reason.TIMEOUT
    )
    in_time = FakeExchange(started=started, ended=started + budget - 0.001, budget_seconds=budget)
    for exchange in (late, in_time):
        pass_through(numbers, exchange)
    assert by(numbers, "deadline.exceeded") == {"timeout": 1, "late": 0}


def test_exceeded_and_rejected_are_never_the_same_exchange() -> None:
    numbers = Numbers()
    late = FakeExchange(started=0.0, ended=2.1, status=504, reason=Reason.TIMEOUT)
    spent = FakeExchange(
        started=0.0,
        ended=0.0,
        budget_seconds=0.0,
        status=504,
        reason=Reason.DEADLINE_EXCEEDED,
        attempts=(),
    )
    for exchange in (late, spent, FakeExchange()):
        pass_through(numbers, exchange)
    assert by(numbers, "deadline.exceeded") == {"timeout": 1, "late": 0}
    assert by(numbers, "deadline.rejected") == {"spent": 1, "too_small": 0, "not_sent": 0}
    assert read(numbers, "sidecar.cancellations") == {(*ROUTE, ("sidecar.cancellation.cause", "deadline")): 1}


def test_a_deadline_is_counted_by_what_came_of_it() -> None:
    """Of what took too long: whether the sidecar ended it. Of what was refused: when, and for what."""
    numbers, gone = Numbers(), Reason.DEADLINE_EXCEEDED
    answered = FakeExchange(started=0.0, ended=2.1)
    left = FakeExchange(started=0.0, ended=2.1, status=499, reason=Reason.CLIENT_GONE)
    in_line = FakeExchange(
        started=0.0, ended=2.1, status=504, reason=gone, attempts=(FakeAttempt(status=0, reason=gone),)
    )
    too_small = FakeExchange(started=0.0, ended=0.0, status=504, reason=gone, attempts=())
    spent = FakeExchange(started=0.0, ended=0.0, budget_seconds=0.0, status=504, reason=gone, attempts=())
    for exchange in (answered, left, in_line, *[too_small] * 2, *[spent] * 3):
        pass_through(numbers, exchange)
    assert by(numbers, "deadline.exceeded") == {"timeout": 0, "late": 2}
    assert by(numbers, "deadline.rejected") == {"spent": 3, "too_small": 2, "not_sent": 1}


def test_a_further_attempt_is_counted_by_why_the_one_before_was_not_enough() -> None:
    numbers = Numbers()
    numbers.expect("checkout", "outbound", "payments", [RetryCause.NOT_CONNECTED, RetryCause.STATUS])
    assert retries(numbers) == {"connect_failure": 0, "status": 0}
    bad = FakeAttempt(status=503)
    second, third = (
        FakeAttempt(resend=1, cause=RetryCause.STATUS),
        FakeAttempt(resend=2, cause=RetryCause.RESET),
    )
    pass_through(numbers, FakeExchange(attempts=(bad, second)))
    pass_through(numbers, FakeExchange(attempts=(bad, second, third)))
    assert retries(numbers) == {"connect_failure": 0, "status": 2, "reset": 1}
    numbers.expect("checkout", "outbound", "payments", [RetryCause.STATUS, RetryCause.REFUSED])
    assert retries(numbers) == {"connect_failure": 0, "status": 2, "reset": 1, "refused": 0}


def test_transitions_and_notices_are_counted() -> None:
    numbers = Numbers()
    pass_through(numbers, FakeExchange())
    reason = TransitionReason.FAILURE_RATE
    opened = Transition(1, "checkout", "payments", State.CLOSED, State.OPEN, reason, 1.0, WindowNumbers())
    numbers.transitioned(opened)
    numbers.noticed(Notice.INVALID_TIMEOUT_HEADER, "checkout")
    ((attributes, count),) = read(numbers, "sidecar.circuit_breaker.transitions").items()
    assert count == 1
    assert attributes[2:] == (
        ("sidecar.circuit_breaker.state.from", "closed"),
        ("sidecar.circuit_breaker.state.to", "open"),
        ("sidecar.circuit_breaker.reason", "failure_rate"),
    )
    assert read(numbers, "sidecar.deadline.invalid") == {ROUTE: 1}
    assert read(numbers, "sidecar.retry.budget_exhausted") == {ROUTE: 0}


def test_state_is_pulled_from_the_sources() -> None:
    breaker = BreakerReading(
        "checkout", "payments", State.HALF_OPEN, successful=4, failed=2, ignored=1, rejected=9
    )
    config = ConfigNumbers(generation=3, reloads_failed=1, is_last_reload_successful=False, age_seconds=2.5)
    sources = Sources(breakers=[breaker], config=config)
    states = read(Numbers(), "sidecar.circuit_breaker.state", sources)
    assert [attributes[-1][1] for attributes, value in states.items() if value] == ["half_open"]
    assert len(states) == len(State)
    calls = read(Numbers(), "sidecar.circuit_breaker.calls", sources)
    assert [(attributes[-1][1], value) for attributes, value in calls.items()] == [
        ("success", 4),
        ("failure", 2),
        ("ignored", 1),
    ]
    assert list(read(Numbers(), "sidecar.circuit_breaker.not_permitted", sources).values()) == [9]
    assert read(Numbers(), "sidecar.config.last_reload_success", sources) == {(): 0}
    assert read(Numbers(), "sidecar.config.age", sources) == {(): 2.5}


def test_removed_routes_are_forgotten_once_nothing_is_under_way() -> None:
    live = [FakeExchange(route_name="old")]
    numbers = Numbers(live)
    numbers.retain({"new"})
    assert [route.name for route in numbers.routes()] == ["old"]
    count_ended(numbers, live.pop())
    numbers.retain({"new"})
    assert numbers.routes() == []


def test_exemplar_is_the_last_sampled_exchange_of_its_bucket() -> None:
    numbers = Numbers()
    pass_through(numbers, FakeExchange())
    pass_through(numbers, FakeExchange(is_sampled=False, trace_id=b"f" * 32))
    (row,) = read(numbers, "http.server.request.duration").values()
    assert isinstance(row, HistogramRow)
    (exemplar,) = filter(None, row.exemplars)
    assert exemplar[:2] == (b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7")
    assert row.counts[row.exemplars.index(exemplar)] == 2


TIMES = st.sampled_from([0.001, 0.005, 0.006, 0.02, 0.3, 20.0])


@given(st.lists(st.tuples(st.booleans(), TIMES, TIMES), min_size=1, max_size=20), st.integers(1, 300))
def test_each_bucket_has_the_last_sampled_exchange_that_fell_in_it(
    told: list[tuple[bool, float, float]], times: int
) -> None:
    numbers = Numbers()
    expected: dict[tuple[str, int], tuple[bytes, float]] = {}
    for number in range(times):
        is_sampled, seconds, first_seconds = told[number % len(told)]
        trace_id = b"%032x" % number
        attempt = FakeAttempt(started=100.0, ended=100.0 + first_seconds)
        count_ended(
            numbers,
            FakeExchange(
                trace_id=trace_id, is_sampled=is_sampled, ended=100.0 + seconds, attempts=(attempt,)
            ),
        )
        if is_sampled:
            for name, value in (
                ("http.server.request.duration", 100.0 + seconds - 100.0),
                ("http.client.request.duration", 100.0 + first_seconds - 100.0),
            ):
                expected[name, bisect_left(DURATION_BOUNDS, value)] = trace_id, value

    found = {}
    for name in ("http.server.request.duration", "http.client.request.duration"):
        (row,) = read(numbers, name).values()
        assert isinstance(row, HistogramRow)
        for bucket, exemplar in enumerate(row.exemplars):
            if exemplar is not None:
                found[name, bucket] = exemplar[0], exemplar[2]
    assert found == expected


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        ((Endpoint("pay", 80),), ("pay", 80)),
        ((Endpoint("", 0, "/run/app.sock"),), ("/run/app.sock", None)),
        ((Endpoint("a", 80), Endpoint("b", 80)), ("payments", 80)),
        ((Endpoint("a", 80), Endpoint("b", 81)), ("payments", None)),
    ],
)
def test_server_of_names_what_is_configured(
    endpoints: tuple[Endpoint, ...], expected: tuple[str, int | None]
) -> None:
    assert server_of(Upstream("payments", endpoints)) == expected


def test_readers_in_other_threads_lose_nothing_and_see_whole_exchanges() -> None:
    numbers = Numbers()
    is_over = threading.Event()
    wrong: list[object] = []

    def read_on() -> None:
        before = 0
        while not is_over.is_set():
            rows = [
                row
                for row in read(numbers, "http.server.request.duration").values()
                if isinstance(row, HistogramRow)
            ]
            count = sum(sum(row.counts) for row in rows)
            total = sum(row.sum for row in rows)
            active = list(read(numbers, "http.server.active_requests").values())
            if count < before or total != count or not all(value in (0, 1) for value in active):
                wrong.append((before, count, total, active))
            before = count

    readers = [threading.Thread(target=read_on) for _ in range(3)]
    switch_seconds = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for reader in readers:
            reader.start()
        statuses = (200, 404, 503)
        for index in range(30_000):
            attempts = (FakeAttempt(status=503),) * (index % 3)
            status = statuses[index % 7 % 3]
            exchange = FakeExchange(
                status=status, started=0.0, ended=1.0, attempts=attempts, is_sampled=index % 5 == 0
            )
            pass_through(numbers, exchange)
    finally:
        is_over.set()
        sys.setswitchinterval(switch_seconds)
        for reader in readers:
            reader.join()
    assert wrong == []
    rows = read(numbers, "http.server.request.duration").values()
    assert sum(sum(row.counts) for row in rows if isinstance(row, HistogramRow)) == 30_000
    tries = read(numbers, "http.client.request.duration").values()
    assert sum(sum(row.counts) for row in tries if isinstance(row, HistogramRow)) == 30_000
    assert list(read(numbers, "sidecar.retry.attempts").values()) == [10_000]
    assert set(read(numbers, "http.server.active_requests").values()) == {0}


def test_what_waits_to_be_folded_is_bounded_on_many_routes() -> None:
    numbers = Numbers()
    for _ in range(5 * FOLD_AT):
        for route in ("a", "b"):
            pass_through(numbers, FakeExchange(route_name=route, budget_source="route"))
    assert max(len(shape.values) for route in numbers.routes() for shape in route.shapes) <= FOLD_AT * 3
    for route in numbers._routes.values():
        assert [len(shape.values) // 3 < FOLD_AT for shape in route.shapes] == [True]


def test_what_may_be_counted_has_its_series_before_anything_has_happened() -> None:
    numbers = Numbers()
    for _ in range(2):
        numbers.expect("checkout", "outbound", "payments", [RetryCause.REFUSED])
    transitions = read(numbers, "sidecar.circuit_breaker.transitions")
    assert set(transitions.values()) == {0}
    assert {tuple(value for _, value in attributes[2:]) for attributes in transitions} == {
        (before.value, after.value, reason.value) for before, after, reason in BY_TRAFFIC
    }
    causes = {
        (*ROUTE, ("sidecar.cancellation.cause", cause)): 0 for cause in ("client", "caller", "deadline")
    }
    assert read(numbers, "sidecar.cancellations") == causes
    assert retries(numbers) == {"refused": 0}
    assert by(numbers, "deadline.exceeded") == {"timeout": 0, "late": 0}
    assert by(numbers, "deadline.rejected") == {"spent": 0, "too_small": 0, "not_sent": 0}
    for counter in ("deadline.invalid", "retry.budget_exhausted"):
        assert read(numbers, f"sidecar.{counter}") == {ROUTE: 0}


def test_what_is_expected_again_keeps_its_counts() -> None:
    numbers = Numbers()
    numbers.expect("checkout", "outbound", "payments")
    reason = TransitionReason.FAILURE_RATE
    opened = Transition(1, "checkout", "payments", State.CLOSED, State.OPEN, reason, 1.0, WindowNumbers())
    numbers.transitioned(opened)
    numbers.expect("checkout", "outbound", "payments")
    numbers.expect("checkout", "outbound", "other")
    counts = read(numbers, "sidecar.circuit_breaker.transitions")
    assert sum(counts.values()) == 1
    assert len(counts) == 2 * len(BY_TRAFFIC)


def test_an_opening_before_the_first_look_is_seen_by_its_time() -> None:
    breakers = [
        BreakerReading("checkout", "payments", State.CLOSED, opened_at=1_700_000_000.5),
        BreakerReading("quiet", "payments", State.CLOSED),
    ]
    told = read(Numbers(), "sidecar.circuit_breaker.opened_timestamp", Sources(breakers=breakers))
    assert list(told.values()) == [1_700_000_000.5, 0.0]


def test_durations_fall_into_the_buckets_that_were_configured() -> None:
    numbers = Numbers(duration_bounds=(0.01, 1.0))
    count_ended(numbers, FakeExchange(started=100.0, ended=100.5))
    (row,) = read(numbers, "http.server.request.duration").values()
    assert isinstance(row, HistogramRow)
    assert (row.counts, row.sum, row.bounds) == ([0, 1, 0], 0.5, (0.01, 1.0))
    assert (
        "".join(render(numbers, Sources(), openmetrics=False, wall_offset=0.0)).count(
            "duration_seconds_bucket"
        )
        == 6
    )
