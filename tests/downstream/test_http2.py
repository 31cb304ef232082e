"""A client's connection that speaks HTTP/2: its phases, its bounds, and what becomes of streams that end oddly."""

from __future__ import annotations

import pytest

from sidecar.core.errors import Reason
from sidecar.core.head import response_head
from sidecar.downstream.http2 import UNREAD_REQUESTS
from sidecar.downstream.phase import LAST_CALL_SECONDS, SKIP_SECONDS, Phase
from sidecar.transport.turns import TURN_UNITS
from sidecar.upstream.streams import Processed
from tests.downstream.http2_stage import Http2Stage, field
from tests.downstream.stage import NO_ROUTE, TIMEOUTS, Stage
from tests.http2 import wire
from tests.http2.wire import DATA, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, WINDOW_UPDATE, request
from tests.support.by_hand import HandLease

CODE = {wire.NO_ERROR: b"\0\0\0\0", wire.CANCEL: b"\0\0\0\x08", wire.INTERNAL_ERROR: b"\0\0\0\x02"}
GRPC = ("content-type", "application/grpc")


def resets(stage: Http2Stage) -> list[tuple[int, bytes]]:
    return [(one.stream_id, one.payload) for one in stage.frames(RST_STREAM)]


def begun(stage: Http2Stage, *more: tuple[str, str], is_end: bool = True) -> HandLease:
    """Stream 1, which an upstream has."""
    lease = stage.upstream()
    stage.send(request(1, *more, is_end=is_end))
    assert lease.names[0] == "head"
    return lease


# Writes


def test_a_call_that_comes_in_one_read_is_answered_in_one_write() -> None:
    stage = Http2Stage()
    lease = stage.upstream()
    before = stage.transport.writes
    stage.send(request(1, GRPC, is_end=False) + wire.frame(DATA, END_STREAM, 1, b"\0\0\0\0\0"))
    assert stage.transport.writes == before
    assert lease.heard_by is not None
    head = response_head(200, [field(*GRPC)], None)
    lease.heard_by.answered(head, b"\0\0\0\0\0", [field("grpc-status", "0")])
    assert [one.kind for one in stage.frames()] == [HEADERS, DATA, HEADERS]
    assert stage.transport.writes == before + 1


# Phases


def test_a_preface_in_pieces_is_waited_for_and_another_protocol_takes_over() -> None:
    stage = Stage()
    for byte in wire.PREFACE + wire.setting():
        stage.transport.protocol.data_received(bytes([byte]))
    served = stage.transport.protocol
    assert served is not stage.connection
    assert served.phase is Phase.IDLE
    assert stage.listener.connection_count == 1


def test_a_client_that_never_says_its_settings_is_closed() -> None:
    stage = Stage()
    stage.send(wire.PREFACE)
    stage.loop.advance(TIMEOUTS.head_seconds + 0.1)
    assert stage.transport.calls[-1] == "close"


def test_an_idle_connection_is_closed_with_a_goaway() -> None:
    stage = Http2Stage()
    assert stage.phase is Phase.IDLE
    stage.loop.advance(TIMEOUTS.idle_seconds + 0.1)
    assert [one.kind for one in stage.frames()] == [GOAWAY]
    assert stage.phase is Phase.CLOSING


def test_a_connection_with_a_stream_is_not_idle() -> None:
    stage = Http2Stage()
    lease = begun(stage)
    stage.loop.advance(TIMEOUTS.idle_seconds * 2)
    assert stage.phase is Phase.ANSWER
    stage.answer(lease)
    assert [one["content-length"] for one in stage.heads(stage.frames())] == ["2"]
    assert stage.phase is Phase.IDLE


def test_a_connection_is_idle_once_the_client_has_taken_the_rest_of_an_answer() -> None:
    """Its exchange has ended before: the upstream was faster than the client."""
    stage = Http2Stage()
    stage.answer(begun(stage), b"x" * 100_000)
    assert sum(len(one.payload) for one in stage.frames(DATA)) == 65_535
    assert stage.phase is Phase.ANSWER
    assert not stage.served.was_idle(stage.loop.now)
    stage.send(wire.window(0, 100_000) + wire.window(1, 100_000))
    assert stage.phase is Phase.IDLE
    stage.loop.advance(TIMEOUTS.idle_seconds + 0.1)
    assert stage.phase is Phase.CLOSING


def test_a_connection_is_idle_once_the_rest_of_an_answer_is_cancelled() -> None:
    stage = Http2Stage()
    stage.answer(begun(stage), b"x" * 100_000)
    stage.send(wire.rst(1))
    assert stage.phase is Phase.IDLE


def test_the_rest_of_an_answer_that_the_client_never_takes_is_reset() -> None:
    stage = Http2Stage()
    stage.answer(begun(stage), b"x" * 100_000)
    stage.frames()
    stage.loop.advance(TIMEOUTS.body_seconds * 2 + 0.2)
    assert resets(stage) == [(1, CODE[wire.CANCEL])]
    assert stage.phase is Phase.IDLE


# The end


def test_a_drain_says_goaway_twice_and_closes_behind_the_last_answer() -> None:
    stage = Http2Stage()
    lease = begun(stage)
    stage.served.drain()
    [first] = stage.frames(GOAWAY)
    assert first.payload[:4] == b"\x7f\xff\xff\xff"
    stage.loop.advance(LAST_CALL_SECONDS)
    [last] = stage.frames(GOAWAY)
    assert last.payload[:4] == b"\0\0\0\x01"
    assert stage.phase is Phase.ANSWER
    stage.answer(lease)
    assert stage.phase is Phase.CLOSING
    assert stage.transport.calls[-1] == "close"


def test_a_drain_takes_what_comes_before_its_last_word() -> None:
    stage = Http2Stage()
    stage.served.drain()
    lease = begun(stage)
    stage.answer(lease)
    stage.loop.advance(LAST_CALL_SECONDS)
    assert stage.phase is Phase.CLOSING


def test_a_drain_ends_when_the_client_has_taken_the_rest() -> None:
    stage = Http2Stage()
    stage.answer(begun(stage), b"x" * 100_000)
    stage.served.drain()
    stage.loop.advance(LAST_CALL_SECONDS)
    assert stage.phase is Phase.ANSWER
    stage.send(wire.window(0, 100_000) + wire.window(1, 100_000))
    assert stage.phase is Phase.CLOSING


def test_a_client_that_is_gone_leaves_nothing() -> None:
    stage = Http2Stage()
    lease = begun(stage, is_end=False)
    stage.lose()
    assert (lease.heard_by, stage.listener.connection_count) == (None, 0)
    assert stage.path.told.finishes[-1][:2] == (499, Reason.CLIENT_GONE)
    assert not stage.path.service.exchanges
    assert stage.path.in_flight == (0, [0])


def test_a_broken_rule_ends_the_connection_and_its_streams() -> None:
    stage = Http2Stage()
    lease = begun(stage)
    stage.send(wire.frame(DATA, 0, 0, b"x"))
    assert len(stage.frames(GOAWAY)) == 1
    assert (lease.heard_by, stage.phase) == (None, Phase.CLOSING)


def test_what_is_still_read_on_a_closing_connection_begins_nothing() -> None:
    stage = Http2Stage()
    stage.loop.advance(TIMEOUTS.idle_seconds + 0.1)
    lease = stage.upstream()
    stage.send(request(1))
    assert (lease.names, stage.phase) == ([], Phase.CLOSING)


# What there is no time for in this turn of the loop


def test_requests_that_were_put_off_are_all_answered() -> None:
    stage = Http2Stage(listener=NO_ROUTE)
    numbers = range(1, 801, 2)
    stage.send(b"".join(request(number) for number in numbers))
    assert stage.path.service.turns.deferrals
    answers = [one.stream_id for one in stage.frames(HEADERS)]
    assert answers == list(numbers)
    assert not stage.transport.is_paused


def test_what_becomes_writable_meanwhile_takes_nothing_of_what_was_put_off() -> None:
    """The link takes more just then: what that lets go must not stand in the place of requests."""
    stage = Http2Stage()
    lease = begun(stage, is_end=True)
    stage.served.pause_writing()
    stage.answer_head(lease)
    stage.answer_data(lease, b"x" * 65_000)
    stage.answer_data(lease, b"x" * 1_000)
    turns = stage.path.service.turns
    turns.take(TURN_UNITS)
    stage.served.data_received(request(3) + request(5))
    assert stage.transport.is_paused
    stage.served.resume_writing()
    leases = [stage.upstream(), stage.upstream()]
    stage.loop.settle()
    assert sorted(one.names[:1] for one in leases) == [["head"], ["head"]]


def test_a_connection_with_requests_that_were_put_off_does_not_end_as_idle() -> None:
    stage = Http2Stage()
    stage.path.service.turns.take(TURN_UNITS)
    stage.served.data_received(request(1))
    assert stage.phase is Phase.ANSWER


def test_what_was_put_off_is_forgotten_with_its_connection() -> None:
    stage = Http2Stage()
    stage.path.service.turns.take(TURN_UNITS)
    lease = stage.upstream()
    stage.served.data_received(request(1))
    stage.served.data_received(request(3))
    stage.lose()
    stage.loop.settle()
    assert (lease.names, stage.loop.errors) == ([], [])


# Bounds


def test_a_client_that_reads_no_answers_is_not_read_any_more() -> None:
    """Heads wait for no window: nothing else bounds answers without a body."""
    stage = Http2Stage(listener=NO_ROUTE)
    head = wire.block((":method", "HEAD"), *wire.REQUEST[1:])
    stage.served.pause_writing()
    for number in range(UNREAD_REQUESTS - 1):
        stage.send(wire.headers(2 * number + 1, head))
    assert not stage.transport.is_paused
    stage.send(wire.headers(2 * UNREAD_REQUESTS - 1, head))
    assert stage.transport.is_paused
    stage.served.resume_writing()
    assert not stage.transport.is_paused
    assert len(stage.frames(HEADERS)) == UNREAD_REQUESTS


def test_a_client_that_takes_no_answers_to_its_pings_is_not_read_any_more() -> None:
    stage = Http2Stage()
    stage.served.pause_writing()
    stage.send(wire.ping())
    assert stage.transport.is_paused
    stage.served.resume_writing()
    assert not stage.transport.is_paused
    assert len(stage.frames(PING)) == 1


def test_a_client_that_takes_nothing_at_all_is_cut() -> None:
    stage = Http2Stage()
    begun(stage)
    stage.served.pause_writing()
    stage.loop.advance(TIMEOUTS.body_seconds * 2 + 0.2)
    assert stage.transport.is_aborted


# Requests


def test_a_body_and_its_trailers_are_passed_on() -> None:
    stage = Http2Stage()
    lease = begun(stage, is_end=False)
    stage.send(wire.frame(DATA, 0, 1, b"ab") + wire.frame(DATA, 0, 1, b"cd"))
    stage.send(wire.headers(1, wire.block(("x-end", "1"))))
    assert lease.notes[1:] == [("data", b"abcd"), ("end", [field("x-end", "1")])]


def test_a_body_that_one_read_brings_goes_with_its_head_and_the_next_stream_follows() -> None:
    stage = Http2Stage()
    first, second = stage.upstream(), stage.upstream()
    whole = wire.frame(DATA, 0, 1, b"ab") + wire.frame(DATA, END_STREAM, 1, b"cd")
    stage.send(request(1, GRPC, is_end=False) + whole + request(3))
    leases = sorted((first, second), key=lambda lease: len(lease.notes))
    assert [lease.notes for lease in leases] == [
        [("head", b"/", b"")],
        [("head", b"/", b"abcd"), ("end", [])],
    ]
    stage.loop.advance(TIMEOUTS.body_seconds * 2 + 0.1)
    assert stage.frames(HEADERS, RST_STREAM) == []  # nothing more is awaited of its client


def test_bodies_that_come_in_turns_behind_their_heads_go_with_them() -> None:
    stage = Http2Stage()
    leases = [stage.upstream(), stage.upstream()]
    parts = [
        wire.frame(DATA, END_STREAM if part else 0, one, b"%d" % part) for part in (0, 1) for one in (1, 3)
    ]
    stage.send(request(1, is_end=False) + request(3, is_end=False) + b"".join(parts))
    assert [lease.notes for lease in leases] == [[("head", b"/", b"01"), ("end", [])]] * 2


def test_an_empty_body_that_one_read_brings_has_no_piece() -> None:
    stage = Http2Stage()
    lease = stage.upstream()
    stage.send(request(1, is_end=False) + wire.frame(DATA, END_STREAM, 1, b""))
    assert lease.notes == [("head", b"/", b""), ("end", [])]


def test_a_body_that_one_read_brings_of_a_request_that_is_refused_costs_its_stream_alone() -> None:
    stage = Http2Stage(listener=NO_ROUTE)
    stage.send(request(1, is_end=False) + wire.frame(DATA, END_STREAM, 1, b"ab"))
    found = stage.frames(HEADERS, RST_STREAM)
    assert [one[":status"] for one in stage.heads(found)] == ["404"]
    assert [one.kind for one in found] == [HEADERS]
    assert stage.served.codec.load.open_streams == 0


def test_a_body_that_the_upstream_takes_no_more_of_gets_no_credit() -> None:
    stage = Http2Stage()
    lease = begun(stage, is_end=False)
    assert lease.heard_by is not None
    lease.heard_by.blocked()
    for _ in range(16):
        stage.send(wire.frame(DATA, 0, 1, bytes(16_000)))
    assert {one.stream_id for one in stage.frames(WINDOW_UPDATE)} <= {0}
    lease.heard_by.writable()
    assert {one.stream_id for one in stage.frames(WINDOW_UPDATE)} == {1}


def test_a_body_that_stalls_is_refused_and_one_that_is_held_is_not() -> None:
    stage = Http2Stage()
    lease = begun(stage, is_end=False)
    assert lease.heard_by is not None
    lease.heard_by.blocked()
    stage.loop.advance(TIMEOUTS.body_seconds * 2)
    assert lease.heard_by is not None
    lease.heard_by.writable()
    stage.loop.advance(TIMEOUTS.body_seconds * 2 + 0.1)
    found = stage.frames(HEADERS, RST_STREAM)
    assert [one[":status"] for one in stage.heads(found)] == ["408"]
    assert found[-1].payload == CODE[wire.NO_ERROR]


def test_a_body_that_is_not_as_long_as_it_says_ends_its_stream_alone() -> None:
    stage = Http2Stage()
    lease = begun(stage, ("content-length", "5"), is_end=False)
    stage.send(wire.frame(DATA, END_STREAM, 1, b"abc"))
    assert resets(stage) == [(1, b"\0\0\0\x01")]
    assert (lease.heard_by, stage.phase) == (None, Phase.IDLE)


def test_a_request_without_authority_and_host_is_reset() -> None:
    stage = Http2Stage()
    stage.send(wire.headers(1, wire.block(*wire.REQUEST[:-1])))
    assert resets(stage) == [(1, b"\0\0\0\x01")]


def large(stream_id: int, *more: tuple[str, str], method: str = "POST", flags: int = END_STREAM) -> bytes:
    """A request whose head is over 64 KiB, though few bytes on the wire."""
    fields = ((":method", method), *wire.REQUEST[1:], *more)
    bomb = wire.literal("x", "v" * 4000, 0x40) + b"\xbe" * 30
    return wire.headers(stream_id, wire.block(*fields) + bomb, flags | wire.END_HEADERS)


def test_a_head_that_is_too_large_is_answered_and_told_as_any_other_refusal() -> None:
    stage = Http2Stage()
    stage.send(large(1))
    head, body = stage.frames(HEADERS, DATA)
    [fields] = stage.heads([head])
    assert fields[":status"] == "431"
    assert fields["proxy-status"].startswith('sidecar; error=http_request_error; details="bad_request: ')
    assert {"x-request-id", "via", "date"} < fields.keys()
    assert fields["content-type"] == "application/problem+json"
    assert b'"status": 431' in body.payload
    assert stage.path.told.finishes[-1][:2] == (431, Reason.HEAD_TOO_LARGE)
    assert not stage.path.service.exchanges


def test_behind_a_head_that_is_too_large_its_body_is_read_past_and_others_are_served() -> None:
    stage = Http2Stage()
    stage.send(large(1, flags=0))
    assert [one[":status"] for one in stage.heads(stage.frames())] == ["431"]
    lease = stage.upstream()
    stage.send(wire.frame(DATA, 0, 1, b"abc") + request(3))
    assert lease.names[0] == "head"
    stage.send(wire.frame(DATA, END_STREAM, 1, b"def"))
    assert resets(stage) == []
    assert stage.served.codec.load.open_streams == 1


def test_a_head_request_whose_head_is_too_large_gets_no_body() -> None:
    stage = Http2Stage()
    stage.send(large(1, method="HEAD"))
    [head] = stage.frames(HEADERS, DATA)
    assert head.flags & END_STREAM
    assert [one[":status"] for one in stage.heads([head])] == ["431"]


def in_two(raw: bytes) -> bytes:
    """A head that one frame has no room for."""
    end = wire.frame(wire.CONTINUATION, wire.END_HEADERS, 1, raw[16_000:])
    return wire.frame(HEADERS, END_STREAM, 1, raw[:16_000]) + end


MANY = [(f"x-{number}", "a") for number in range(101)]
LONG = [(name, "/" + 16_384 * "a" if name == ":path" else value) for name, value in wire.POST]


@pytest.mark.parametrize(
    ("sent", "code", "reason"),
    [
        (large(1, GRPC), "8", Reason.HEAD_TOO_LARGE),
        (request(1, GRPC, *MANY), "8", Reason.HEAD_TOO_LARGE),
        (in_two(wire.block(*LONG, GRPC)), "13", Reason.URL_TOO_LONG),
    ],
    ids=["too large", "too many fields", "a long path"],
)
def test_a_grpc_caller_whose_request_is_refused_gets_a_grpc_status(
    sent: bytes, code: str, reason: Reason
) -> None:
    stage = Http2Stage()
    stage.send(sent)
    [fields] = stage.heads(stage.frames())
    assert (fields[":status"], fields["content-type"]) == ("200", "application/grpc")
    assert fields["grpc-status"] == code
    assert stage.path.told.finishes[-1][1] is reason


@pytest.mark.parametrize(
    "sent",
    [
        request(1, ("te", "gzip")),
        request(1, ("connection", "close")),
        wire.headers(1, wire.block(*wire.REQUEST[:-1])),
    ],
    ids=["te", "connection", "no authority"],
)
def test_a_malformed_request_is_told_though_its_answer_is_a_reset(sent: bytes) -> None:
    stage = Http2Stage()
    stage.send(sent)
    assert resets(stage) == [(1, b"\0\0\0\x01")]
    assert [one[:2] for one in stage.path.told.finishes] == [(400, Reason.BAD_REQUEST)]
    assert not stage.path.service.exchanges
    lease = stage.upstream()
    stage.send(request(3))
    assert lease.names[0] == "head"


def test_a_connection_that_ends_for_a_broken_rule_is_told_once() -> None:
    stage = Http2Stage()
    stage.send(wire.frame(DATA, 0, 0, b"x"))
    assert len(stage.frames(GOAWAY)) == 1
    assert [one[:2] for one in stage.path.told.finishes] == [(400, Reason.BAD_REQUEST)]


def test_a_trace_that_goes_no_further_gets_its_head_with_the_host_that_it_named() -> None:
    stage = Http2Stage()
    fields = ((":method", "TRACE"), *wire.REQUEST[1:], ("max-forwards", "0"))
    stage.send(wire.headers(1, wire.block(*fields)))
    [body] = stage.frames(DATA)
    assert body.payload == b"TRACE / HTTP/1.1\r\nHost: a.test\r\nmax-forwards: 0\r\n\r\n"


def test_connect_is_refused_in_words() -> None:
    stage = Http2Stage()
    stage.send(wire.headers(1, wire.block((":method", "CONNECT"), (":authority", "a.test:80"))))
    assert [one[":status"] for one in stage.heads(stage.frames())] == ["405"]


@pytest.mark.parametrize(
    ("protocol", "more", "status", "detail"),
    [
        ("connect-udp", (), "501", "other than websocket"),
        ("h2c", (), "501", "other than websocket"),
        ("websocket", (("content-length", "5"),), "400", "no content"),
    ],
)
def test_an_extended_connect_that_is_no_websocket_is_refused_in_words(
    protocol: str, more: tuple[tuple[str, str], ...], status: str, detail: str
) -> None:
    stage = Http2Stage()
    pseudo = ((":method", "CONNECT"), *wire.REQUEST[1:], (":protocol", protocol))
    stage.send(wire.headers(1, wire.block(*pseudo, *more), wire.END_HEADERS))
    found = stage.frames()
    assert [one[":status"] for one in stage.heads(found)] == [status]
    assert detail.encode() in b"".join(one.payload for one in found if one.kind == DATA)
    assert found[-1].payload == CODE[wire.NO_ERROR]


def test_a_websocket_is_asked_for_as_the_get_that_it_is() -> None:
    stage = Http2Stage()
    lease = stage.upstream()
    pseudo = ((":method", "CONNECT"), *wire.REQUEST[1:], (":protocol", "websocket"))
    of_http1 = (("sec-websocket-key", "a"), ("sec-websocket-accept", "b"), ("content-length", "0"))
    stage.send(wire.headers(1, wire.block(*pseudo, *of_http1, ("x-kept", "1")), wire.END_HEADERS))
    assert lease.names == ["head"]
    asked = lease.heads[0].request
    assert (asked.method, asked.traits.upgrade, asked.length) == (b"GET", b"websocket", 0)
    assert [field[0] for field in asked.fields] == [b"x-kept"] == list(asked.lookup)


def test_the_settings_say_that_a_connect_is_taken() -> None:
    stage = Stage()
    stage.send(wire.PREFACE + wire.setting())
    first = wire.frames_of(stage.transport.take())[0]
    assert b"\0\x08\0\0\0\x01" in first.payload


# Answers


def early(stage: Http2Stage, *more: tuple[str, str]) -> None:
    """Stream 1 is answered while its body is under way."""
    stage.answer(begun(stage, *more, is_end=False))


def test_behind_an_early_answer_the_rest_of_the_request_is_read_past() -> None:
    """Clients that upload more than a window before they look at the answer get to it."""
    stage = Http2Stage()
    early(stage)
    assert [one.kind for one in stage.frames()] == [HEADERS, DATA]
    for _ in range(16):
        stage.send(wire.frame(DATA, 0, 1, bytes(16_000)))
    assert {one.stream_id for one in stage.frames(WINDOW_UPDATE)} == {1}
    assert stage.phase is Phase.ANSWER
    stage.send(wire.frame(DATA, END_STREAM, 1, b"last"))
    assert stage.frames(GOAWAY, RST_STREAM) == []
    assert stage.phase is Phase.IDLE


@pytest.mark.parametrize("end", [wire.rst(1), wire.headers(1, wire.block(("x-end", "1")))])
def test_behind_an_early_answer_the_client_may_stop_or_end_with_trailers(end: bytes) -> None:
    stage = Http2Stage()
    early(stage)
    stage.frames()
    stage.send(end)
    assert (stage.frames(), stage.phase) == ([], Phase.IDLE)


def test_behind_an_early_answer_the_request_is_reset_without_an_error_when_its_time_is_up() -> None:
    stage = Http2Stage()
    early(stage)
    for _ in range(3):
        stage.loop.advance(SKIP_SECONDS / 3 - 0.1)
        stage.send(wire.frame(DATA, 0, 1, b"more"))
    assert stage.frames(RST_STREAM, GOAWAY) == []
    stage.loop.advance(0.5)
    assert resets(stage) == [(1, CODE[wire.NO_ERROR])]
    assert stage.phase is Phase.IDLE
    stage.send(wire.frame(DATA, 0, 1, b"late"))
    assert stage.frames(GOAWAY, RST_STREAM) == []


def test_an_early_answer_that_the_client_takes_late_is_whole_before_its_request_is_read_past() -> None:
    stage = Http2Stage()
    stage.answer(begun(stage, is_end=False), b"x" * 100_000)
    assert sum(len(one.payload) for one in stage.frames(DATA)) == 65_535
    stage.send(wire.window(0, 100_000) + wire.window(1, 100_000))
    assert [one.flags for one in stage.frames(DATA, RST_STREAM)][-1] == END_STREAM
    assert stage.phase is Phase.ANSWER
    stage.loop.advance(SKIP_SECONDS + 0.1)
    assert resets(stage) == [(1, CODE[wire.NO_ERROR])]


def test_a_drain_does_not_wait_for_requests_that_are_read_past() -> None:
    stage = Http2Stage()
    early(stage)
    stage.frames()
    stage.served.drain()
    stage.loop.advance(LAST_CALL_SECONDS)
    assert resets(stage) == [(1, CODE[wire.NO_ERROR])]
    assert stage.phase is Phase.CLOSING


def test_an_early_answer_to_grpc_is_followed_by_the_reset_at_once() -> None:
    stage = Http2Stage()
    early(stage, GRPC)
    assert [one.kind for one in stage.frames()] == [HEADERS, DATA, RST_STREAM]
    stage.send(wire.frame(DATA, 0, 1, b"late"))
    assert stage.frames(GOAWAY, RST_STREAM) == []


def test_the_head_of_an_answer_goes_out_before_its_body() -> None:
    stage = Http2Stage()
    stage.answer_head(begun(stage), field("x-a", "1"))
    [head] = stage.heads(stage.frames())
    assert (head[":status"], head["x-a"]) == ("200", "1")
    assert "date" in head


def test_trailers_end_an_answer() -> None:
    stage = Http2Stage()
    lease = begun(stage)
    stage.answer_head(lease)
    stage.answer_data(lease, b"ab")
    stage.answer_end(lease, field("x-end", "1"), field("content-length", "9"))
    found = stage.frames()
    assert [one.kind for one in found] == [HEADERS, DATA, HEADERS]
    assert found[-1].flags & END_STREAM
    assert stage.heads(found)[1] == {"x-end": "1"}


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_an_answer_without_a_body_has_none(method: str, status: int) -> None:
    stage = Http2Stage()
    lease = stage.upstream()
    stage.send(wire.headers(1, wire.block((":method", method), *wire.REQUEST[1:])))
    stage.answer_head(lease, status=status)
    stage.answer_data(lease, b"body")
    stage.answer_end(lease)
    assert b"".join(one.payload for one in stage.frames(DATA)) == b""
    assert stage.phase is Phase.IDLE


def test_an_interim_answer_comes_first() -> None:
    stage = Http2Stage()
    lease = begun(stage, ("expect", "100-continue"), is_end=False)
    assert lease.heard_by is not None
    lease.heard_by.interim(response_head(100, [], None))
    stage.answer(lease)
    assert [one[":status"] for one in stage.heads(stage.frames())] == ["100", "200"]


def test_426_says_nothing_about_the_connection() -> None:
    """RFC 9113 8.2.2: such an answer would be malformed."""
    stage = Http2Stage()
    lease = begun(stage)
    stage.answer_head(lease, field("upgrade", "foo/2"), status=426)
    [head] = stage.heads(stage.frames())
    assert head[":status"] == "426"
    assert not {"connection", "upgrade"} & set(head)


def test_a_broken_upstream_is_an_internal_error_and_a_deadline_cancels() -> None:
    stage = Http2Stage()
    first, second = stage.upstream(), stage.upstream()
    stage.send(request(1) + request(3))
    for lease in (first, second):
        stage.answer_head(lease)
        stage.answer_data(lease, b"x")
    stage.frames()
    broken = next(one for one in (first, second) if one.heard_by is not None)
    assert broken.heard_by is not None
    broken.heard_by.failed(Reason.CONNECTION_RESET, "lost", Processed.YES)
    [(_, code)] = resets(stage)
    assert code == CODE[wire.INTERNAL_ERROR]
    stage.loop.advance(60.0)
    assert [code for _, code in resets(stage)] == [CODE[wire.CANCEL]]


def test_a_grpc_caller_whose_answer_has_begun_is_told_by_trailers() -> None:
    stage = Http2Stage()
    lease = begun(stage, GRPC, is_end=False)
    stage.answer_head(lease, field("content-type", "application/grpc"))
    stage.frames()
    assert lease.heard_by is not None
    lease.heard_by.failed(Reason.CONNECTION_RESET, "lost", Processed.YES)
    found = stage.frames()
    assert [one.kind for one in found] == [HEADERS, RST_STREAM]
    assert stage.heads(found)[0]["grpc-status"] == "14"
    assert found[-1].payload == CODE[wire.NO_ERROR]


def test_a_grpc_caller_whose_head_has_not_gone_out_is_told_by_trailers_too() -> None:
    stage = Http2Stage()
    lease = begun(stage, GRPC)
    assert lease.heard_by is not None
    lease.heard_by.head(response_head(200, [field("content-type", "application/grpc")], None))
    lease.heard_by.failed(Reason.CONNECTION_RESET, "lost", Processed.YES)
    heads = stage.heads(stage.frames())
    assert (heads[0][":status"], heads[1]["grpc-status"]) == ("200", "14")


def test_a_client_that_takes_no_more_holds_its_upstream_alone() -> None:
    stage = Http2Stage()
    first, second = stage.upstream(), stage.upstream()
    stage.send(request(1))
    slow = first if first.names else second
    other = second if slow is first else first
    stage.answer_head(slow)
    for _ in range(10):
        stage.answer_data(slow, b"x" * 16_000)
    assert slow.names[-1] == "hold"
    stage.send(wire.window(0, 1_000_000) + request(3))
    stage.answer(other)
    assert other.fates
    stage.send(wire.window(1, 1_000_000))
    assert slow.names[-1] == "resume"
