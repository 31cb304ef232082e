"""What the end of a gRPC call says about its upstream (SPEC-PROTOCOLS 12)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sidecar.core.grpc_status import GrpcStatus, from_http
from sidecar.core.head import ResponseHead
from sidecar.core.outcome import Kind, Limit, Outcome, Verdict, judge
from sidecar.core.plain import Field
from sidecar.core.snapshot import BreakerPolicy, Failure
from sidecar.core.transition import State
from sidecar.forwarding import verdicts
from sidecar.forwarding.grpc import status_in
from sidecar.forwarding.permit import Permit
from tests.support.by_hand import WHOLE, Path

POLICY = BreakerPolicy(count_timeout_after_seconds=1.0)
GOOD, BAD = Verdict.SUCCESS, Verdict.FAILURE


def answered(
    status: int | None, seconds: float = 5.0, http: int = 200, limit: Limit = Limit.CALLER
) -> Outcome:
    return Outcome(Kind.ANSWERED, http, seconds, limit=limit, grpc_status=status)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (GrpcStatus.OK, GOOD),
        (GrpcStatus.CANCELLED, GOOD),
        (GrpcStatus.UNKNOWN, BAD),
        (GrpcStatus.INVALID_ARGUMENT, GOOD),
        (GrpcStatus.DEADLINE_EXCEEDED, BAD),
        (GrpcStatus.NOT_FOUND, GOOD),
        (GrpcStatus.ALREADY_EXISTS, GOOD),
        (GrpcStatus.PERMISSION_DENIED, GOOD),
        (GrpcStatus.RESOURCE_EXHAUSTED, Verdict.RATE_ONLY_FAILURE),
        (GrpcStatus.FAILED_PRECONDITION, GOOD),
        (GrpcStatus.ABORTED, GOOD),
        (GrpcStatus.OUT_OF_RANGE, GOOD),
        (GrpcStatus.UNIMPLEMENTED, GOOD),
        (GrpcStatus.INTERNAL, BAD),
        (GrpcStatus.UNAVAILABLE, BAD),
        (GrpcStatus.DATA_LOSS, BAD),
        (GrpcStatus.UNAUTHENTICATED, GOOD),
    ],
)
def test_each_status_counts_as_the_contract_says(status: GrpcStatus, verdict: Verdict) -> None:
    assert judge(answered(status), POLICY) is verdict


def test_every_status_is_in_that_table() -> None:
    [mark] = test_each_status_counts_as_the_contract_says.pytestmark  # type: ignore[attr-defined]
    assert [status for status, _ in mark.args[1]] == list(GrpcStatus)


@pytest.mark.parametrize(
    ("seconds", "limit", "verdict"),
    [
        (1.0, Limit.CALLER, BAD),
        (0.95, Limit.CALLER, BAD),
        (0.949, Limit.CALLER, Verdict.IGNORED),
        (0.05, Limit.CALLER, Verdict.IGNORED),
        (5.0, Limit.STRANGER, Verdict.SILENCE),
        (0.5, Limit.STRANGER, Verdict.IGNORED),
    ],
)
def test_deadline_exceeded_is_a_timeout(seconds: float, limit: Limit, verdict: Verdict) -> None:
    """It counts where our own timeout would, and no sooner: a short deadline is the caller's."""
    said = answered(GrpcStatus.DEADLINE_EXCEEDED, seconds, limit=limit)
    assert judge(said, POLICY) is verdict
    assert judge(Outcome(Kind.TIMED_OUT, 0, seconds, limit=limit), POLICY) is verdict


@pytest.mark.parametrize(
    ("had", "verdict"), [(0.36, BAD), (0.341, BAD), (0.339, Verdict.IGNORED), (0.1, Verdict.IGNORED)]
)
def test_deadline_exceeded_near_the_end_is_judged_as_our_own_timeout(had: float, verdict: Verdict) -> None:
    """The server was told of less than the attempt had: 360 ms of 400, where timeouts count from 390 on."""
    policy = BreakerPolicy(count_timeout_after_seconds=0.39)
    said = answered(GrpcStatus.DEADLINE_EXCEEDED, 0.4)
    assert judge(said, policy, had) is verdict
    assert judge(Outcome(Kind.TIMED_OUT, 0, 0.4), policy, 0.4) is BAD


def test_deadline_exceeded_counts_only_where_timeouts_do() -> None:
    policy = BreakerPolicy(failure_on=frozenset({Failure.STATUS_5XX}), count_timeout_after_seconds=1.0)
    assert judge(answered(GrpcStatus.DEADLINE_EXCEEDED), policy) is Verdict.IGNORED


def test_resource_exhausted_counts_where_429_does() -> None:
    inbound = BreakerPolicy(counts_rate_limited=False)
    assert judge(answered(GrpcStatus.RESOURCE_EXHAUSTED), inbound) is Verdict.IGNORED
    assert judge(Outcome(Kind.ANSWERED, 429, 5.0), inbound) is Verdict.IGNORED


@pytest.mark.parametrize("status", GrpcStatus)
def test_failure_on_that_names_a_status_names_them_all(status: GrpcStatus) -> None:
    policy = BreakerPolicy(failure_on=frozenset({GrpcStatus.NOT_FOUND, Failure.STATUS_5XX, Failure.TIMEOUT}))
    assert judge(answered(status), policy) is (BAD if status is GrpcStatus.NOT_FOUND else GOOD)


@pytest.mark.parametrize(
    "status", [status for status in GrpcStatus if status != GrpcStatus.DEADLINE_EXCEEDED]
)
def test_without_5xx_in_failure_on_no_status_is_a_failure(status: GrpcStatus) -> None:
    policy = BreakerPolicy(failure_on=frozenset({Failure.CONNECT, Failure.RESET, Failure.TIMEOUT}))
    assert judge(answered(status), policy) is not BAD


def head(status: int, *fields: tuple[bytes, bytes]) -> ResponseHead:
    made = ResponseHead()
    made.status = status
    made.fields = lines(*fields)
    return made


def lines(*fields: tuple[bytes, bytes]) -> Sequence[Field]:
    return [(key, b"%b: %b\r\n" % (key, value), value) for key, value in fields]


def verdict_of(answer: ResponseHead, trailers: Sequence[Field]) -> Verdict:
    return judge(answered(verdicts.grpc_status(answer, trailers), http=answer.status), POLICY)


@pytest.mark.parametrize("status", GrpcStatus)
def test_a_head_that_is_trailers_too_says_the_same_as_trailers(status: GrpcStatus) -> None:
    said = (b"grpc-status", b"%d" % status)
    assert verdicts.grpc_status(head(200, said), ()) == status
    assert verdicts.grpc_status(head(200), lines(said)) == status
    assert verdict_of(head(200, said), ()) is verdict_of(head(200), lines(said))


def test_trailers_have_the_last_word() -> None:
    answer = head(200, (b"grpc-status", b"0"))
    assert verdict_of(answer, lines((b"grpc-status", b"14"))) is BAD


@pytest.mark.parametrize(
    ("http", "status", "verdict"),
    [
        (200, GrpcStatus.UNKNOWN, BAD),
        (204, None, GOOD),
        (302, None, GOOD),
        (400, None, GOOD),
        (401, None, GOOD),
        (404, None, GOOD),
        (429, GrpcStatus.UNAVAILABLE, BAD),
        (500, GrpcStatus.UNKNOWN, BAD),
        (501, GrpcStatus.UNKNOWN, BAD),
        (502, GrpcStatus.UNAVAILABLE, BAD),
        (503, GrpcStatus.UNAVAILABLE, BAD),
        (504, GrpcStatus.UNAVAILABLE, BAD),
        (505, GrpcStatus.UNKNOWN, BAD),
    ],
)
def test_without_grpc_status_http_decides(http: int, status: GrpcStatus | None, verdict: Verdict) -> None:
    answer = head(http, (b"content-type", b"text/html"))
    assert from_http(http) == verdicts.grpc_status(answer, ()) == status
    assert verdict_of(answer, lines((b"server-timing", b"x"))) is verdict


@pytest.mark.parametrize("http", [200, 404, 503])
def test_grpc_status_counts_whatever_the_http_status(http: int) -> None:
    assert verdict_of(head(http), lines((b"grpc-status", b"5"))) is GOOD
    assert verdict_of(head(http), lines((b"grpc-status", b"13"))) is BAD


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"17", b"99", b"014", b"1.0", b"14, 14", b"\xb2"])
def test_what_is_no_status_of_grpc_is_unknown(value: bytes) -> None:
    assert status_in(lines((b"grpc-status", value))) == GrpcStatus.UNKNOWN
    assert verdict_of(head(200), lines((b"grpc-status", value))) is BAD


def test_what_logs_tell_is_never_nothing() -> None:
    assert verdicts.told_grpc_status(head(404), ()) == GrpcStatus.UNKNOWN
    assert verdicts.told_grpc_status(head(503), ()) == GrpcStatus.UNAVAILABLE
    assert verdicts.told_grpc_status(head(200), lines((b"grpc-status", b"0"))) == GrpcStatus.OK


def test_an_end_that_is_no_answer_is_judged_as_any_other() -> None:
    assert judge(Outcome(Kind.RESET, 200), POLICY) is BAD
    assert judge(Outcome(Kind.CONNECT_REFUSED), POLICY) is BAD
    assert judge(Outcome(Kind.LEFT, 200, 5.0), POLICY) is Verdict.IGNORED


@pytest.mark.parametrize(
    ("status", "opens"),
    [(GrpcStatus.OK, False), (GrpcStatus.NOT_FOUND, False), (GrpcStatus.UNAVAILABLE, True)],
)
def test_a_status_that_comes_late_in_the_trailers_still_counts(status: GrpcStatus, opens: bool) -> None:
    """A stream was judged good 1 s after its first message; late failures have a row of their own."""
    path = Path(breaker=BreakerPolicy(consecutive_failures=1, judge_after_seconds=1.0))
    permit = path.destination.admit(path.loop.now, WHOLE)
    assert isinstance(permit, Permit)
    permit.sent("10.0.0.7:50051", path.loop.now)
    permit.head(200, path.loop.now)
    path.loop.advance(1.0)
    permit.look(path.loop.now)
    assert path.breaker.tally.successful == 1
    path.loop.advance(5.0)
    transition = permit.judge(answered(status), path.loop.now, None)
    permit.close(path.loop.now)
    assert (transition is not None and transition.to_state is State.OPEN) is opens
