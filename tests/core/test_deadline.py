"""Budgets: which figure wins, what margin comes off, and what the next hop is told."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.block import Block
from sidecar.core.deadline import (
    BAGGAGE,
    MAX_BAGGAGE_BYTES,
    MAX_VALUES,
    MIN_SEND_SECONDS,
    Budget,
    Form,
    baggage_deadlines,
    budget,
    budget_of,
    carried_field,
    grpc_timeout,
    parse_timeout,
    timeout_fields,
    timeouts_of,
    whole_milliseconds,
    with_baggage_deadline,
)
from sidecar.core.head_template import HeadTemplate
from sidecar.core.snapshot import TIMEOUT_HEADERS, DeadlinePolicy, Mode

NO_OFFSET = DeadlinePolicy(offset_seconds=0.0)
EXPECTED = b"x-envoy-expected-rq-timeout-ms"
GRPC = b"grpc-timeout"
# Found before any test: the names of a random search push these out of the cache, and then there are two of each.
CARRIED_EXPECTED = (carried_field(EXPECTED, Form.MILLISECONDS),)
CARRIED_GRPC = carried_field(GRPC, Form.GRPC)
CARRIED_LINKERD = carried_field(b"l5d-timeout", Form.DURATION)
CARRIED_BAGGAGE = carried_field(BAGGAGE, Form.BAGGAGE)


@pytest.mark.parametrize(
    ("value", "form", "seconds"),
    [
        (b"1500", Form.MILLISECONDS, 1.5),
        (b" 1500\t", Form.MILLISECONDS, 1.5),
        (b"0", Form.MILLISECONDS, 0.0),
        (b"-20", Form.MILLISECONDS, -0.02),
        (b"9" * 18, Form.MILLISECONDS, (10**18 - 1) / 1000),
        (b"9" * 19, Form.MILLISECONDS, None),
        (b"9" * 5000, Form.MILLISECONDS, None),
        (b"", Form.MILLISECONDS, None),
        (b"-", Form.MILLISECONDS, None),
        (b"+5", Form.MILLISECONDS, None),
        (b"1_000", Form.MILLISECONDS, None),
        (b"1.5", Form.MILLISECONDS, None),
        (b"1e3", Form.MILLISECONDS, None),
        (b"0x10", Form.MILLISECONDS, None),
        (b"100,200", Form.MILLISECONDS, None),
        (b"\xd9\xa1", Form.MILLISECONDS, None),
        (b"1H", Form.GRPC, 3600.0),
        (b"2M", Form.GRPC, 120.0),
        (b"3S", Form.GRPC, 3.0),
        (b"4m", Form.GRPC, 0.004),
        (b"5u", Form.GRPC, 0.000005),
        (b"6n", Form.GRPC, 0.000000006),
        (b"99999999H", Form.GRPC, 99_999_999 * 3600.0),
        (b"0S", Form.GRPC, 0.0),
        (b"-1S", Form.GRPC, -1.0),
        (b"123456789m", Form.GRPC, None),
        (b"5", Form.GRPC, None),
        (b"m", Form.GRPC, None),
        (b"5s", Form.GRPC, None),
        (b"5ms", Form.GRPC, None),
        (b"1.5S", Form.GRPC, None),
        (b"500ms", Form.DURATION, 0.5),
        (b"1s", Form.DURATION, 1.0),
        (b"1m30s", Form.DURATION, 90.0),
        (b"1.5s", Form.DURATION, 1.5),
        (b"2h", Form.DURATION, 7200.0),
        (b"1d", Form.DURATION, 86400.0),
        (b"250us", Form.DURATION, 0.00025),
        ("250µs".encode(), Form.DURATION, 0.00025),
        (b"0", Form.DURATION, 0.0),
        (b"0s", Form.DURATION, 0.0),
        (b"-3ms", Form.DURATION, -0.003),
        (b"15", Form.DURATION, None),
        (b"s", Form.DURATION, None),
        (b"1.s", Form.DURATION, None),
        (b".5s", Form.DURATION, None),
        (b"1 s", Form.DURATION, None),
        (b"1s-2s", Form.DURATION, None),
        (b"1s" * 7, Form.DURATION, None),
        (b"1w", Form.DURATION, None),
    ],
)
def test_each_form_is_read_as_its_own_specification_says(
    value: bytes, form: Form, seconds: float | None
) -> None:
    parsed = parse_timeout(value, form)

    assert parsed == (None if seconds is None else pytest.approx(seconds, rel=1e-12))


def test_without_any_timeout_the_route_decides() -> None:
    assert budget({b"host": b"a"}, DeadlinePolicy(), 15.0, None) == Budget().take(
        15.0, "route", measured_seconds=15.0
    )


def test_the_smallest_valid_header_decides_and_all_valid_ones_are_carried() -> None:
    fields = {GRPC: b"3S", EXPECTED: b"2000", b"x-request-timeout-ms": b"soon", b"l5d-timeout": b"2500ms"}

    assert budget(fields, NO_OFFSET, 15.0, 4.0) == Budget().take(
        seconds=2.0,
        source="header",
        invalid=1,
        carried=(
            CARRIED_GRPC,
            *CARRIED_EXPECTED,
            CARRIED_LINKERD,
        ),
        measured_seconds=2.0,
    )


@pytest.mark.parametrize(
    ("name", "value", "seconds", "invalid"),
    [
        (b"x-request-timeout-ms", b"300, 600", 0.3, 0),
        (b"x-request-timeout-ms", b"600, 300", 0.3, 0),
        (b"x-request-timeout-ms", b"600,300\t,  450", 0.3, 0),
        (b"x-request-timeout-ms", b"300, 300", 0.3, 0),
        (b"x-request-timeout-ms", b"soon, 300", 0.3, 1),
        (b"x-request-timeout-ms", b"300, ", 0.3, 1),
        (b"x-request-timeout-ms", b", 300, soon", 0.3, 2),
        (b"x-request-timeout-ms", b"300, 0", 0.0, 0),
        (b"x-request-timeout-ms", b"300, -1", 0.0, 0),
        (GRPC, b"1S, 500m", 0.5, 0),
        (b"l5d-timeout", b"1m30s, 250ms", 0.25, 0),
        (b"l5d-timeout", b"250ms, 1000", 0.25, 1),
    ],
)
def test_of_several_lines_of_one_field_the_smallest_counts(
    name: bytes, value: bytes, seconds: float, invalid: int
) -> None:
    found = budget({name: value}, NO_OFFSET, 15.0, None)

    assert (found.seconds, found.source, found.invalid) == (pytest.approx(seconds), "header", invalid)
    assert [field.name for field in found.carried] == [name]
    assert found.is_spent == (seconds == 0.0)


@pytest.mark.parametrize(("value", "invalid"), [(b"soon, later", 2), (b", ", 2), (b"soon", 1), (b"", 1)])
def test_a_field_without_one_valid_line_bounds_nothing(value: bytes, invalid: int) -> None:
    assert budget({b"x-request-timeout-ms": value}, NO_OFFSET, 15.0, None) == Budget().take(
        15.0, "route", invalid=invalid, measured_seconds=15.0
    )


@pytest.mark.parametrize(
    ("value", "seconds", "form"),
    [
        (b"700, 0.6s", 0.6, Form.DURATION),
        (b"0.7s, 600", 0.6, Form.MILLISECONDS),
    ],
)
def test_lines_of_a_header_of_ones_own_are_each_read_in_their_form(
    value: bytes, seconds: float, form: Form
) -> None:
    policy = replace(NO_OFFSET, headers=(b"x-patience",))

    found = budget({b"x-patience": value}, policy, 15.0, None)

    assert (found.seconds, found.carried) == (seconds, (carried_field(b"x-patience", form),))


def test_no_more_lines_are_read_than_a_caller_can_mean() -> None:
    first = b", ".join([b"500"] * MAX_VALUES)
    assert budget({EXPECTED: first + b", 1"}, NO_OFFSET, 15.0, None).seconds == 0.5
    assert budget({EXPECTED: b"," * 60_000}, NO_OFFSET, 15.0, None).invalid == MAX_VALUES

    assert len(baggage_deadlines(b"deadline-ms=5," * 4_000)) == MAX_VALUES


NO_BOUND = Budget().take(inf, "", measured_seconds=inf)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("recovered", [None, inf])
def test_where_nobody_sets_a_bound_there_is_no_budget(mode: Mode, recovered: float | None) -> None:
    policy = DeadlinePolicy(mode=mode)

    assert budget({}, policy, inf, recovered) == NO_BOUND


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
def test_an_invalid_field_sets_no_bound_and_is_counted(mode: Mode) -> None:
    policy = DeadlinePolicy(mode=mode)

    assert budget({EXPECTED: b"soon"}, policy, inf, inf) == Budget().take(
        inf, "", invalid=1, measured_seconds=inf
    )


def test_without_a_timeout_of_the_route_caller_and_trace_still_bound() -> None:
    assert budget({EXPECTED: b"500"}, NO_OFFSET, inf, None) == Budget().take(
        0.5, "header", carried=CARRIED_EXPECTED, measured_seconds=0.5
    )
    assert budget({EXPECTED: b"500"}, NO_OFFSET, inf, inf).source == "header"
    assert budget({}, NO_OFFSET, inf, 0.25) == Budget().take(0.25, "trace", measured_seconds=0.25)
    assert budget({}, NO_OFFSET, 15.0, inf) == Budget().take(15.0, "route", measured_seconds=15.0)
    assert budget({}, NO_OFFSET, inf, 0.0).is_spent
    observing = replace(NO_OFFSET, mode=Mode.OBSERVE)
    assert budget({EXPECTED: b"500"}, observing, inf, None) == Budget().take(
        inf, "header", measured_seconds=0.5
    )


@pytest.mark.parametrize("is_grpc", [True, False])
def test_no_bound_is_sent_as_no_field(is_grpc: bool) -> None:
    assert whole_milliseconds(inf) is None
    assert timeout_fields((), inf, is_grpc=is_grpc) == []
    assert timeout_fields(ALL_CARRIED, inf, is_grpc=is_grpc) == []
    assert with_baggage_deadline(b"a=b", inf) == b"a=b"
    assert with_baggage_deadline(None, inf) == b""


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(0.001, 1), (0.0019999, 1), (15.0, 15_000), (1e9, 10**12)]
)
def test_what_is_sent_is_rounded_down(seconds: float, milliseconds: int) -> None:
    assert whole_milliseconds(seconds) == milliseconds


def test_the_route_wins_over_a_generous_caller_but_its_header_is_still_rewritten() -> None:
    assert budget({EXPECTED: b"60000"}, NO_OFFSET, 15.0, None) == Budget().take(
        15.0, "route", carried=CARRIED_EXPECTED, measured_seconds=15.0
    )


def test_max_caps_the_caller_but_not_the_route() -> None:
    capped = replace(NO_OFFSET, max_seconds=1.0)

    def taken(fields: dict[bytes, bytes]) -> tuple[float, str]:
        found = budget(fields, capped, 15.0, None)
        return found.seconds, found.source

    assert taken({EXPECTED: b"5000"}) == (1.0, "header")
    assert taken({EXPECTED: b"500"}) == (0.5, "header")
    assert taken({}) == (15.0, "route")


def test_offset_comes_off_the_callers_figure_before_max() -> None:
    policy = DeadlinePolicy(offset_seconds=0.02, max_seconds=1.0)

    assert budget({EXPECTED: b"5000"}, policy, 15.0, None).seconds == 1.0
    assert budget({EXPECTED: b"1010"}, policy, 15.0, None).seconds == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("given", "left"),
    [(b"1000", 0.98), (b"201", 0.181), (b"200", 0.18), (b"199", 0.1791), (b"10", 0.009), (b"1", 0.0009)],
)
def test_offset_is_at_most_a_tenth_of_the_budget(given: bytes, left: float) -> None:
    policy = DeadlinePolicy(offset_seconds=0.02)

    assert budget({EXPECTED: given}, policy, 15.0, None).seconds == pytest.approx(left)
    assert budget({}, policy, 15.0, int(given) / 1000).seconds == pytest.approx(left)


def test_offset_never_comes_off_the_routes_own_timeout() -> None:
    assert budget({EXPECTED: b"2001"}, DeadlinePolicy(offset_seconds=0.001), 1.0, 5.0).seconds == 1.0


@pytest.mark.parametrize("value", [b"0", b"-1", b"-99999"])
def test_zero_or_less_is_spent(value: bytes) -> None:
    assert budget({EXPECTED: value}, DeadlinePolicy(), 15.0, None) == Budget().take(
        0.0, "header", True, 0, CARRIED_EXPECTED, 0.0
    )


@pytest.mark.parametrize("recovered", [0.0, -3.0])
def test_a_caller_whose_time_is_up_leaves_nothing(recovered: float) -> None:
    assert budget({}, DeadlinePolicy(), 15.0, recovered) == Budget().take(0.0, "trace", True, 0, (), 0.0)


def test_one_millisecond_is_not_spent() -> None:
    found = budget({EXPECTED: b"1"}, DeadlinePolicy(), 15.0, None)

    assert not found.is_spent
    assert found.seconds < MIN_SEND_SECONDS


def test_a_tie_goes_to_the_header_then_to_the_trace() -> None:
    assert budget({EXPECTED: b"1000"}, NO_OFFSET, 1.0, 1.0).source == "header"
    assert budget({}, NO_OFFSET, 1.0, 1.0).source == "trace"


def test_recovery_can_be_switched_off() -> None:
    policy = DeadlinePolicy(recover_from_trace=False)

    assert budget({}, policy, 15.0, 1.0) == Budget().take(15.0, "route", measured_seconds=15.0)


def test_observe_measures_and_acts_on_the_route_alone() -> None:
    policy = replace(NO_OFFSET, mode=Mode.OBSERVE)
    fields = {EXPECTED: b"100", GRPC: b"bad"}

    assert budget(fields, policy, 15.0, None) == Budget().take(15.0, "header", False, 1, (), 0.1)
    assert budget({EXPECTED: b"0"}, policy, 15.0, None) == Budget().take(15.0, "header", False, 0, (), 0.0)


def test_a_remembered_head_is_read_once_for_each_policy_and_timeout() -> None:
    lookup = {b"grpc-timeout": b"2S", b"x-request-timeout-ms": b"soon"}
    block, policy = Block([], lookup), DeadlinePolicy()
    first = budget_of(block, policy, 15.0)
    assert first == budget(lookup, policy, 15.0, None)
    assert (first.source, first.invalid) == ("header", 1)
    assert budget_of(block, policy, 15.0) is first
    assert budget_of(block, policy, 1.0) == budget(lookup, policy, 1.0, None)
    observing = replace(policy, mode=Mode.OBSERVE)
    assert budget_of(block, observing, 1.0) == budget(lookup, observing, 1.0, None)
    assert budget_of(block, policy, 15.0) == first


@pytest.mark.parametrize(
    "fields",
    [
        {b"x-request-timeout-ms": b"200"},
        {b"x-request-timeout-ms": b"soon"},
        {b"x-request-timeout-ms": b"200, 100"},
        {b"x-request-timeout-ms": b"0"},
        {b"x-request-timeout-ms": b"9" * 18},
        {b"x-request-timeout-ms": b"9" * 19},
        {b"x-request-timeout-ms": b""},
        {b"grpc-timeout": b"2S"},
        {b"l5d-timeout": b"200ms"},
        {b"l5d-timeout": b"200"},
        {b"x-request-timeout-ms": b"200", b"l5d-timeout": b"100ms"},
        {b"x-request-timeout-ms": b"200", b"baggage": b"deadline-ms=100"},
        {b"baggage": b"deadline-ms=100"},
        {b"x-my-timeout": b"1s"},
        {},
    ],
)
def test_what_a_template_knows_of_timeouts_changes_no_budget(fields: dict[bytes, bytes]) -> None:
    names = (*DeadlinePolicy().headers, b"x-my-timeout")
    gaps = [(place, name, b"", b"") for place, name in enumerate(fields)]
    template = HeadTemplate([None] * len(gaps), b"", gaps)
    for policy in (DeadlinePolicy(), DeadlinePolicy(headers=names), DeadlinePolicy(mode=Mode.OBSERVE)):
        known = timeouts_of(template, policy)
        assert template.timeouts is known
        for recovered in (None, 0.05, 5.0):
            found = budget(fields, policy, 15.0, recovered, known)
            assert found == budget(fields, policy, 15.0, recovered)
        if not known.may_bound:
            assert budget(fields, policy, 15.0, None).source == "route"


def test_off_ignores_everything() -> None:
    policy = replace(NO_OFFSET, mode=Mode.OFF)

    assert budget({EXPECTED: b"0", BAGGAGE: b"deadline-ms=0"}, policy, 15.0, 0.0) == Budget().take(
        15.0, "route", measured_seconds=15.0
    )


def test_only_configured_headers_are_read() -> None:
    policy = replace(NO_OFFSET, headers=(EXPECTED,))

    assert budget({GRPC: b"1S", EXPECTED: b"2000"}, policy, 15.0, None) == Budget().take(
        2.0, "header", carried=CARRIED_EXPECTED, measured_seconds=2.0
    )


@pytest.mark.parametrize(
    ("value", "form", "sent"), [(b"700", Form.MILLISECONDS, b"412"), (b"0.7s", Form.DURATION, b"412ms")]
)
def test_a_header_of_ones_own_is_written_back_as_it_was_read(value: bytes, form: Form, sent: bytes) -> None:
    policy = replace(NO_OFFSET, headers=(b"x-patience",))

    found = budget({b"x-patience": value}, policy, 15.0, None)

    assert found == Budget().take(
        0.7, "header", carried=(carried_field(b"x-patience", form),), measured_seconds=0.7
    )
    assert timeout_fields(found.carried, 0.4129, is_grpc=False) == [(EXPECTED, b"412"), (b"x-patience", sent)]


def test_baggage_is_one_more_timeout_header() -> None:
    fields = {BAGGAGE: b"user=1, deadline-ms = 250 ;x=y,deadline-ms=oops", EXPECTED: b"300"}

    assert budget(fields, NO_OFFSET, 15.0, None) == Budget().take(
        0.25,
        "header",
        invalid=1,
        carried=(*CARRIED_EXPECTED, CARRIED_BAGGAGE),
        measured_seconds=0.25,
    )


@pytest.mark.parametrize(
    "value", [b"", b"a=b", b"deadline-ms", b"x=deadline-ms=5", b"xdeadline-ms=5", b"Deadline-Ms=5"]
)
def test_other_baggage_says_nothing(value: bytes) -> None:
    assert baggage_deadlines(value) == []
    assert budget({BAGGAGE: value}, DeadlinePolicy(), 15.0, None).source == "route"


ALL_CARRIED = budget(
    dict.fromkeys(TIMEOUT_HEADERS, b"9") | {GRPC: b"9S", b"l5d-timeout": b"9s"}, NO_OFFSET, 15.0, None
).carried


def test_each_carried_header_is_written_in_its_own_unit() -> None:
    assert timeout_fields(ALL_CARRIED, 1.2345, is_grpc=False) == [
        (EXPECTED, b"1234"),
        (GRPC, b"1234500u"),
        (b"x-envoy-upstream-rq-timeout-ms", b"1234"),
        (b"x-request-timeout-ms", b"1234"),
        (b"l5d-timeout", b"1234ms"),
    ]


def test_expected_timeout_always_goes_and_grpc_timeout_for_grpc() -> None:
    assert timeout_fields((), 0.25, is_grpc=False) == [(EXPECTED, b"250")]
    assert timeout_fields((), 0.25, is_grpc=True) == [(EXPECTED, b"250"), (GRPC, b"250000u")]
    assert timeout_fields((carried_field(GRPC, Form.GRPC),), 0.25, is_grpc=True) == [
        (EXPECTED, b"250"),
        (GRPC, b"250000u"),
    ]


def test_the_smallest_that_is_sent_is_one_millisecond() -> None:
    assert timeout_fields((), MIN_SEND_SECONDS, is_grpc=False) == [(EXPECTED, b"1")]
    assert timeout_fields((), 0.0019999, is_grpc=False) == [(EXPECTED, b"1")]
    assert timeout_fields((), 0.002, is_grpc=False) == [(EXPECTED, b"2")]


@pytest.mark.parametrize(
    ("seconds", "sent"),
    [
        (0.001, b"1000000n"),
        (0.099, b"99000000n"),
        (0.1, b"100000u"),
        (99.0, b"99000000u"),
        (100.0, b"100000m"),
        (99_999.0, b"99999000m"),
        (100_000.0, b"100000S"),
        (1e8, b"1666666M"),
        (6e9 - 1, b"99999999M"),
        (6e9, b"1666666H"),
        (1e15, b"99999999H"),
    ],
)
def test_grpc_timeout_uses_the_finest_unit_of_eight_digits(seconds: float, sent: bytes) -> None:
    assert grpc_timeout(seconds) == sent


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, b"deadline-ms=250"),
        (b"", b"deadline-ms=250"),
        (b" \t", b"deadline-ms=250"),
        (b"a=b", b"a=b,deadline-ms=250"),
        (b"a=b;p=1 , c = d", b"a=b;p=1 , c = d,deadline-ms=250"),
        (b"deadline-ms=9", b"deadline-ms=250"),
        (b"a=b, deadline-ms = 9 ;p=1 ,c=d", b"a=b,deadline-ms=250,c=d"),
        (b"deadline-ms=9,a=b,deadline-ms=8, deadline-ms=7", b"deadline-ms=250,a=b"),
        (b"xdeadline-ms=9", b"xdeadline-ms=9,deadline-ms=250"),
        (b"a=deadline-ms=9", b"a=deadline-ms=9,deadline-ms=250"),
    ],
)
def test_baggage_keeps_its_other_members_byte_for_byte(value: bytes | None, written: bytes) -> None:
    assert with_baggage_deadline(value, 0.2509) == written


def test_baggage_is_not_made_longer_than_every_hop_has_to_carry() -> None:
    room = MAX_BAGGAGE_BYTES - len(b",deadline-ms=250")
    fits, full = b"a=" + b"b" * (room - 2), b"a=" + b"b" * (room - 1)

    assert with_baggage_deadline(fits, 0.25) == fits + b",deadline-ms=250"
    assert with_baggage_deadline(full, 0.25) == full


def test_hostile_baggage_costs_no_more_than_its_length() -> None:
    for value in (
        b"," * 60_000,
        b" " * 60_000 + b"deadline-ms",
        b"deadline-ms=," * 4_000,
        b",deadline-ms " * 4_000,
    ):
        assert {*baggage_deadlines(value)} <= {None}
        with_baggage_deadline(value, 0.25)


milliseconds = st.integers(-5, 100_000)
timeouts = st.one_of(
    st.tuples(
        st.sampled_from([n for n in TIMEOUT_HEADERS if n.endswith(b"-ms")]),
        milliseconds.map(lambda n: b"%d" % n),
    ),
    st.tuples(
        st.just(GRPC),
        st.builds(
            lambda n, u: b"%d%b" % (n, u),
            st.integers(0, 99_999_999),
            st.sampled_from([b"H", b"M", b"S", b"m", b"u", b"n"]),
        ),
    ),
    st.tuples(
        st.just(b"l5d-timeout"),
        st.builds(
            lambda n, u: b"%d%b" % (n, u), st.integers(0, 100_000), st.sampled_from([b"ms", b"s", b"m"])
        ),
    ),
    st.tuples(st.just(BAGGAGE), milliseconds.map(lambda n: b"a=b,deadline-ms=%d" % n)),
    st.tuples(st.sampled_from(TIMEOUT_HEADERS), st.binary(max_size=12)),
    st.tuples(
        st.just(b"x-request-timeout-ms"),
        st.lists(milliseconds.map(lambda n: b"%d" % n), min_size=2, max_size=4).map(b", ".join),
    ),
)
seconds = st.floats(0.001, 1000.0)


@given(
    st.lists(timeouts, max_size=6).map(dict),
    st.builds(DeadlinePolicy, max_seconds=st.none() | seconds, offset_seconds=st.floats(0.0, 1.0)),
    seconds | st.just(inf),
    st.none() | st.just(inf) | st.floats(-1.0, 1000.0),
)
def test_no_budget_is_later_than_anyone_allows(
    fields: dict[bytes, bytes], policy: DeadlinePolicy, route_seconds: float, recovered: float | None
) -> None:
    found = budget(fields, policy, route_seconds, recovered)

    allowed = [route_seconds] + ([recovered] if recovered is not None else [])
    for field in found.carried:
        if field.name == BAGGAGE:
            given_here = [one for one in baggage_deadlines(fields[BAGGAGE]) if one is not None]
        else:
            lines = [parse_timeout(one, field.form) for one in fields[field.name].split(b",")]
            given_here = [one for one in lines if one is not None]
        assert given_here
        allowed += given_here
    if found.carried and policy.max_seconds is not None:
        allowed.append(policy.max_seconds)
    assert found.seconds <= max(min(allowed), 0.0)
    assert found.seconds >= min(allowed) * 0.9 - 1e-12  # A tenth is the most that the offset takes.
    assert found.is_spent == (found.seconds <= 0.0)
    assert found.seconds == found.measured_seconds

    if found.seconds == inf:
        assert (found.source, found.carried) == ("", ())
    elif found.seconds >= MIN_SEND_SECONDS:
        forms = {field.name: field.form for field in (*ALL_CARRIED, *found.carried)}
        for name, value in timeout_fields(found.carried, found.seconds, is_grpc=True):
            told = parse_timeout(value, forms[name])
            assert told is not None
            assert 0.0 < told <= found.seconds * (1 + 1e-12)
            # at most eight digits of gRPC: above a day the unit is a second, and so on
            assert told > found.seconds * (1 - 1e-5) - 0.001 - 1e-9


@given(
    st.lists(st.sampled_from([b"a=b", b" c=d;e ", b"", b"deadline-ms=7", b" deadline-ms =1;x"]), max_size=6)
)
def test_written_baggage_is_read_back(members: list[bytes]) -> None:
    written = with_baggage_deadline(b",".join(members), 1.5)

    assert baggage_deadlines(written) == [1.5]
    others = [one for one in members if b"deadline" not in one]
    if any(one.strip() for one in members):
        assert [one for one in written.split(b",") if b"deadline" not in one] == others
