"""How long a client may take: each clock starts when the connection enters the phase, and ends it on time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.core.head import response_head
from sidecar.core.snapshot import RouteTimeouts
from sidecar.downstream.http1_partial import MAX_SKIP_BYTES
from sidecar.downstream.phase import LINGER_SECONDS, SKIP_SECONDS, Phase
from tests.downstream.stage import GET, Stage, post
from tests.support.by_hand import Path

EARLY, LATE = -0.002, 0.06
"""A timeout is never early, and at most so late, in seconds; EARLY leaves room for rounding alone."""


def patient() -> Stage:
    """Without limits but the listener's."""
    return Stage(Path(timeouts=RouteTimeouts(request_seconds=1e6, idle_seconds=1e6)))


def in_idle() -> Stage:
    return patient()


def in_idle_again() -> Stage:
    stage = patient()
    stage.loop.advance(4.0)
    stage.serve()
    return stage


def in_head() -> Stage:
    stage = in_idle_again()
    stage.loop.advance(4.0)
    stage.send(b"GET / HT")
    return stage


def in_body() -> Stage:
    stage = in_idle_again()
    stage.loop.advance(4.0)
    stage.upstream()
    stage.send(post(10))
    stage.loop.advance(2.0)
    stage.send(b"12345")
    return stage


def in_chunks() -> Stage:
    stage = in_idle_again()
    stage.upstream()
    stage.send(b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n")
    stage.loop.advance(2.0)
    stage.send(b"5\r\n123")
    return stage


def in_body_after_100() -> Stage:
    stage = in_idle_again()
    lease = stage.upstream()
    stage.send(post(10, b"Expect: 100-continue"))
    stage.loop.advance(20.0)
    assert stage.phase is Phase.ANSWER
    assert lease.heard_by is not None
    lease.heard_by.interim(response_head(100, [], None))
    assert stage.statuses() == [100]
    return stage


def in_body_after_a_hold() -> Stage:
    stage = in_body()
    stage.connection.hold()
    assert stage.phase is Phase.ANSWER
    stage.loop.advance(20.0)
    stage.connection.resume()
    return stage


def in_skip() -> Stage:
    stage = in_idle_again()
    stage.loop.advance(4.0)
    lease = stage.upstream()
    stage.send(post(MAX_SKIP_BYTES + 1) + b"1")
    stage.loop.advance(2.0)
    stage.answer(lease)
    assert stage.statuses() == [200]
    return stage


def in_linger() -> Stage:
    stage = in_idle_again()
    lease = stage.upstream()
    stage.send(post(MAX_SKIP_BYTES + 2) + b"1")
    stage.loop.advance(2.0)
    stage.answer(lease)
    assert b"\r\nConnection: close\r\n" in stage.transport.take()
    return stage


def in_closing() -> Stage:
    stage = in_idle_again()
    lease = stage.upstream()
    stage.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    stage.loop.advance(2.0)
    stage.transport.unsent = 10
    stage.answer(lease)
    assert stage.statuses() == [200]
    return stage


def in_unsent() -> Stage:
    stage = in_idle_again()
    stage.upstream()
    stage.send(GET)
    stage.loop.advance(2.0)
    stage.transport.unsent = 100_000
    stage.connection.pause_writing()
    return stage


Case = tuple[Callable[[], Stage], Phase, float, str]

CASES: dict[str, Case] = {
    "idle": (in_idle, Phase.IDLE, 5.0, "close"),
    "idle again": (in_idle_again, Phase.IDLE, 5.0, "close"),
    "head": (in_head, Phase.HEAD, 2.0, "408"),
    "body": (in_body, Phase.BODY, 3.0, "408"),
    "chunks": (in_chunks, Phase.BODY, 3.0, "408"),
    "body after 100": (in_body_after_100, Phase.BODY, 3.0, "408"),
    "body after a hold": (in_body_after_a_hold, Phase.BODY, 3.0, "408"),
    "skip": (in_skip, Phase.SKIP, SKIP_SECONDS, "cut"),
    "linger": (in_linger, Phase.LINGER, LINGER_SECONDS, "cut"),
    "closing": (in_closing, Phase.CLOSING, 3.0, "cut"),
    "unsent": (in_unsent, Phase.UNSENT, 3.0, "cut"),
}


def ended(stage: Stage) -> str:
    """How the sidecar has ended it, if it has."""
    if stage.transport.is_aborted:
        return "cut"
    statuses = stage.statuses()
    if statuses:
        return str(statuses[0])
    return "close" if stage.phase is Phase.CLOSING and stage.transport.is_closing() else ""


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_client_that_stalls_has_the_time_of_its_phase_and_no_more(case: Case) -> None:
    make, phase, seconds, then = case
    stage = make()
    assert stage.phase is phase
    stage.loop.advance(seconds + EARLY)
    assert ended(stage) == ("close" if phase is Phase.CLOSING else "")
    stage.loop.advance(LATE - EARLY)
    assert ended(stage) == then


@pytest.mark.parametrize(
    ("case", "reads"), [("body", [b"6", b"7", b"8", b"9"]), ("chunks", [b"4", b"5", b"\r", b"\n"])]
)
def test_each_read_of_a_body_starts_its_clock_anew(case: str, reads: list[bytes]) -> None:
    stage = CASES[case][0]()
    for data in reads:
        stage.loop.advance(2.9)
        stage.send(data)
        assert ended(stage) == ""
    stage.loop.advance(3.0 + EARLY)
    assert ended(stage) == ""
    stage.loop.advance(LATE - EARLY)
    assert ended(stage) == "408"


def test_a_head_that_moves_does_not_get_its_time_anew() -> None:
    stage = in_head()
    for byte in b"TP/1.1\r\nHost:":
        stage.loop.advance(0.15)
        stage.send(bytes([byte]))
    stage.loop.advance(2.0 + EARLY - 13 * 0.15)
    assert ended(stage) == ""
    stage.loop.advance(LATE - EARLY)
    assert ended(stage) == "408"


def test_a_rest_that_trickles_does_not_get_its_time_anew() -> None:
    stage = in_skip()
    for _ in range(29):
        stage.loop.advance(1.0)
        stage.send(b"2")
        assert ended(stage) == ""
    stage.loop.advance(1.0 + LATE)
    assert ended(stage) == "cut"


@pytest.mark.parametrize("case", ["linger", "closing", "unsent"])
def test_a_client_that_takes_some_of_its_answer_is_not_cut(case: str) -> None:
    stage = CASES[case][0]()
    stage.transport.unsent = 1_000
    seconds = CASES[case][2]
    for _ in range(5):
        stage.loop.advance(seconds * 0.9)
        stage.transport.unsent -= 10
        assert not stage.transport.is_aborted
    stage.loop.advance(2 * (seconds + LATE))
    assert stage.transport.is_aborted


def test_the_answers_turn_has_no_clock_of_the_client() -> None:
    stage = in_idle_again()
    lease = stage.upstream()
    stage.send(GET)
    stage.loop.advance(1_000.0)
    assert (stage.phase, ended(stage)) == (Phase.ANSWER, "")
    stage.answer(lease)
    assert (stage.phase, stage.statuses()) == (Phase.IDLE, [200])
    stage.loop.advance(5.0 + EARLY)
    assert ended(stage) == ""
    stage.loop.advance(LATE - EARLY)
    assert ended(stage) == "close"


def test_a_skipped_body_that_ends_leaves_the_connection_to_the_next_request() -> None:
    stage = in_skip()
    stage.send(bytes(MAX_SKIP_BYTES))
    assert stage.phase is Phase.IDLE
    stage.serve()


def test_what_comes_in_linger_is_read_past() -> None:
    stage = in_linger()
    assert (stage.transport.has_ended_writing, stage.transport.is_paused) == (True, False)
    stage.send(bytes(100_000), GET)
    assert (stage.phase, stage.transport.written) == (Phase.LINGER, b"")
    assert stage.path.in_flight == (0, [0])


def test_who_takes_its_answer_again_goes_on_where_it_was() -> None:
    stage = in_unsent()
    stage.transport.unsent = 0
    stage.connection.resume_writing()
    assert stage.phase is Phase.ANSWER
    body = in_body()
    body.connection.pause_writing()
    assert body.phase is Phase.UNSENT
    body.connection.resume_writing()
    assert body.phase is Phase.BODY


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_when_a_connection_is_lost_nothing_of_it_is_left(case: Case) -> None:
    stage = case[0]()
    stage.lose()
    assert (stage.phase, stage.listener.connection_count) == (Phase.CLOSED, 0)
    assert stage.path.service.open_connections == 0
    assert stage.path.in_flight == (0, [0])
    assert len(stage.path.service.sweep) == 0
    stage.transport.take()
    stage.loop.advance(100.0)
    assert (stage.transport.written, stage.loop.errors) == (b"", [])
