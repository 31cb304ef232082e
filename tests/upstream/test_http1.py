"""One connection to an upstream: what its sink hears, when it is used again, and that nothing comes afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from math import inf

import pytest

from sidecar.core.block import Filled
from sidecar.core.errors import Reason
from sidecar.core.head import NOTHING, RequestHead
from sidecar.core.head_template import HeadTemplate
from sidecar.core.plain import Field
from sidecar.core.request import Request, Traits
from sidecar.core.snapshot import UpstreamLimits
from sidecar.transport.turns import SLICE_UNITS, TURN_UNITS
from sidecar.upstream.http1 import KEEP_MARGIN, MAX_FIELDS, MAX_HEAD_BYTES, MAX_INTERIM, UpstreamConnection
from sidecar.upstream.lease import Fate
from sidecar.upstream.streams import Processed
from tests.support.by_hand import (
    HERE,
    Handle,
    HandLoop,
    HandTransport,
    Hearing,
    Note,
    Waiting,
    connected,
    hand_cluster,
    request,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = CHUNKED_HEAD + b"1\r\na\r\n2\r\nbc\r\n0\r\nX-Sum: 3\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nabc"
TRAILERS: list[Field] = [(b"x-sum", b"X-Sum: 3\r\n", b"3")]
MALFORMED = ("failed", Reason.PROTOCOL_ERROR, Processed.YES)


def request_head(
    asked: Request, target: bytes, authority: bytes, drop: frozenset[bytes], own: list[bytes]
) -> RequestHead:
    head = RequestHead()
    head.request, head.target, head.authority = asked, target, authority
    head.drop, head.added, head.own = drop, NOTHING, own
    return head


class Stage:
    """A connection that carries a request, and what its sink hears."""

    def __init__(self, asked: Request | None = None) -> None:
        self.loop = HandLoop()
        self.cluster = hand_cluster(self.loop)
        self.cluster.idle_timer = Handle()  # type: ignore[assignment]  # armed: idle times are the cluster's own test
        self.pool = self.cluster.pools[0]
        self.connection = UpstreamConnection(self.pool)
        self.transport = connected(self.connection)
        self.pool.add(self.connection)
        self.cluster.connections = 1
        self.sink = Hearing()
        self.begin(asked)

    def begin(self, asked: Request | None = None) -> None:
        asked = asked or request()
        head = request_head(asked, b"/", b"app", frozenset(), [])
        self.connection.begin(self.sink).send_head(head)

    def hear(self, *reads: bytes) -> list[Note]:
        for data in reads:
            self.connection.data_received(data)
        return self.sink.notes

    def release(self, fate: Fate = Fate.REUSABLE) -> None:
        self.connection.release(fate, self.loop.now)

    @property
    def is_kept(self) -> bool:
        return list(self.pool.idle) == [self.connection]

    def assert_closed(self) -> None:
        assert (self.transport.is_aborted, self.pool.idle, self.pool.open_count) == (True, {}, 0)
        assert self.cluster.connections == 0


# Responses


def test_a_response_that_comes_whole_is_told_in_one() -> None:
    stage = Stage()
    assert stage.hear(OK) == [("answered", 200, b"ok")]


def test_what_one_read_brings_is_told_joined_and_at_its_end() -> None:
    stage = Stage()
    assert stage.hear(CHUNKED) == [("head", 200), ("data", b"abc"), ("end", TRAILERS)]


@pytest.mark.parametrize("data", [OK, CHUNKED, CHUNKED.replace(b"\r\nT", b"\r\nX-A: b\r\nT")])
def test_wherever_it_is_cut_it_is_the_same_response(data: bytes) -> None:
    body = b"ok" if data is OK else b"abc"
    trailers: list[Field] = [] if data is OK else TRAILERS
    for cut in range(1, len(data)):
        stage = Stage()
        stage.hear(data[:cut], data[cut:])
        if stage.sink.names == ["answered"]:
            assert stage.sink.notes == [("answered", 200, body)]
        else:
            assert (stage.sink.notes[0], stage.sink.body) == (("head", 200), body)
            assert stage.sink.notes[-1] == ("end", trailers)
        stage.release()
        assert stage.is_kept


def test_byte_by_byte_nothing_is_told_before_it_is_there() -> None:
    stage = Stage()
    stage.hear(*(OK[at : at + 1] for at in range(len(OK))))
    assert stage.sink.notes == [("head", 200), ("flush",), ("data", b"o"), ("data", b"k"), ("end", [])]


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    stage = Stage()
    stage.hear(UNTIL_CLOSE, b"def")
    stage.connection.connection_lost(None)
    assert stage.sink.body == b"abcdef"
    assert stage.sink.notes[-1] == ("end", [])


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_a_response_without_a_body_ends_with_its_head(status: bytes) -> None:
    stage = Stage()
    stage.hear(b"HTTP/1.1 %b\r\nETag: x\r\n\r\n" % status)
    assert stage.sink.names[0] in ("head", "answered")
    assert stage.sink.names[-1] in ("end", "answered")
    stage.release()
    assert stage.is_kept


def test_the_answer_to_head_has_a_length_and_no_body() -> None:
    stage = Stage(request(b"HEAD"))
    assert stage.hear(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") == [("head", 200), ("end", [])]
    stage.release()
    assert stage.is_kept


def test_interim_heads_come_before_the_final_one() -> None:
    stage = Stage()
    stage.hear(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\n" + OK)
    assert stage.sink.notes == [
        ("interim", 100),
        ("interim", 103),
        ("head", 200),
        ("data", b"ok"),
        ("end", []),
    ]


# Ends that come too early


@pytest.mark.parametrize(
    ("data", "reason", "processed"),
    [
        (b"", Reason.CONNECTION_RESET, Processed.MAYBE),
        (b"HTTP/1.1 2", Reason.INCOMPLETE_RESPONSE, Processed.YES),
        (b"HTTP/1.1 103 Early\r\n\r\n", Reason.INCOMPLETE_RESPONSE, Processed.YES),
        (OK[:-1], Reason.INCOMPLETE_RESPONSE, Processed.YES),
        (CHUNKED[:-2], Reason.INCOMPLETE_RESPONSE, Processed.YES),
    ],
    ids=["nothing", "in the head", "behind an interim head", "in the body", "in the trailers"],
)
@pytest.mark.parametrize("error", [None, ConnectionResetError()], ids=["closed", "reset"])
def test_an_early_end_says_what_the_upstream_may_have_done(
    data: bytes, reason: Reason, processed: Processed, error: Exception | None
) -> None:
    stage = Stage()
    if data:
        stage.hear(data)
    stage.connection.connection_lost(error)
    assert stage.sink.notes[-1] == ("failed", reason, processed)
    assert (stage.pool.open_count, stage.cluster.connections) == (0, 0)


def test_a_body_without_a_length_that_ends_with_a_reset_is_not_whole() -> None:
    stage = Stage()
    stage.hear(UNTIL_CLOSE)
    stage.connection.connection_lost(ConnectionResetError())
    assert stage.sink.notes[-1] == ("failed", Reason.INCOMPLETE_RESPONSE, Processed.YES)


# Afterwards


EVENTS: dict[str, Callable[[UpstreamConnection], object]] = {
    "data": lambda connection: connection.data_received(OK),
    "end": lambda connection: connection.eof_received(),
    "pause": lambda connection: connection.pause_writing(),
    "resume": lambda connection: connection.resume_writing(),
    "closed": lambda connection: connection.connection_lost(None),
    "reset": lambda connection: connection.connection_lost(ConnectionResetError()),
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
@pytest.mark.parametrize("fate", [Fate.REUSABLE, Fate.BROKEN])
@pytest.mark.parametrize(
    "sent", [b"", OK, OK[:-1], CHUNKED[:-9]], ids=["nothing", "whole", "cut", "cut chunks"]
)
def test_after_its_release_a_sink_hears_nothing_more(
    event: Callable[[UpstreamConnection], object], fate: Fate, sent: bytes
) -> None:
    stage = Stage()
    if sent:
        stage.hear(sent)
    heard = list(stage.sink.notes)
    stage.release(fate)
    event(stage.connection)
    stage.loop.settle()
    assert stage.sink.notes == heard


def test_what_comes_when_nobody_has_asked_closes_the_connection() -> None:
    """It must not be read as the next answer."""
    stage = Stage()
    stage.hear(OK)
    stage.release()
    stage.hear(OK)
    stage.assert_closed()


def test_what_was_put_off_is_not_read_for_the_next_request() -> None:
    stage = Stage()
    stage.hear(CHUNKED_HEAD + b"1\r\na\r\n" * (SLICE_UNITS + 10))
    assert stage.transport.is_paused
    heard = list(stage.sink.notes)
    stage.release(Fate.BROKEN)
    stage.loop.settle()
    assert stage.sink.notes == heard
    stage.assert_closed()


@pytest.mark.parametrize("fate", [Fate.REUSABLE, Fate.BROKEN])
def test_what_is_sent_once_it_is_closed_goes_nowhere(fate: Fate) -> None:
    stage = Stage(request(b"POST", length=2))
    stage.connection.abort()
    stage.transport.take()
    stage.connection.send_data(b"ab")
    stage.connection.end(())
    stage.connection.hold()
    stage.connection.resume()
    stage.connection.reset(Reason.CLIENT_GONE)
    stage.release(fate)
    assert stage.transport.written == b""
    stage.assert_closed()


# Used again, or not


@pytest.mark.parametrize(
    "data",
    [
        OK + b"x",
        CHUNKED + b"x",
        b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\nx",
        OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        CHUNKED.replace(b"X-Sum: 3", b"Connection: close"),
        OK.replace(b"1.1", b"1.0"),
    ],
    ids=["behind a length", "behind chunks", "behind a head", "close", "close in a trailer", "HTTP/1.0"],
)
def test_a_connection_that_cannot_be_trusted_or_ends_is_not_used_again(data: bytes) -> None:
    stage = Stage()
    stage.hear(data)
    assert stage.sink.names[-1] in ("end", "answered")
    stage.release()
    stage.assert_closed()


def test_bytes_past_the_end_are_never_told() -> None:
    stage = Stage()
    stage.hear(OK[:-1], b"kGARBAGE")
    assert stage.sink.body == b"ok"
    stage.release()
    stage.assert_closed()


@pytest.mark.parametrize(
    ("field", "seconds"),
    [(b"", inf), (b"Keep-Alive: timeout=10\r\n", 10 * KEEP_MARGIN), (b"Keep-Alive: max=5\r\n", inf)],
)
def test_a_connection_expires_before_its_upstream_closes_it(field: bytes, seconds: float) -> None:
    stage = Stage()
    stage.hear(OK.replace(b"\r\n\r\n", b"\r\n%b\r\n" % field))
    stage.loop.now += 5.0
    stage.release()
    assert stage.connection.expires == stage.loop.now + seconds
    assert stage.connection.idle_since == stage.loop.now


def test_each_answer_says_anew_how_long_it_is_kept() -> None:
    stage = Stage()
    stage.hear(OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=10\r\n\r\n"))
    stage.release()
    stage.pool.idle.clear()
    stage.begin()
    stage.hear(OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=20\r\n\r\n"))
    stage.release()
    assert stage.connection.expires == stage.loop.now + 20 * KEEP_MARGIN


def test_a_connection_that_is_used_again_says_so() -> None:
    stage = Stage()
    assert not stage.connection.is_reused
    stage.hear(OK)
    stage.release()
    assert stage.connection.is_reused


def test_a_connection_that_comes_free_goes_to_who_waits_and_else_lies_idle() -> None:
    stage = Stage()
    told: list[Note] = []
    stage.cluster.adopt(replace(stage.cluster.policy, limits=UpstreamLimits(max_connections=1)))
    stage.cluster.wait_for(stage.pool, Waiting("a", told))
    stage.hear(OK)
    stage.release()
    assert told == [("a", "leased", stage.connection)]
    assert stage.pool.idle == {}


def test_what_comes_while_the_upstream_takes_no_more_is_charged() -> None:
    """A client that speaks HTTP/2 has a whole window under way."""
    stage = Stage(request(b"POST", length=300_000))
    memory = stage.cluster.memory
    stage.transport.unsent = 64 * 1024
    stage.connection.pause_writing()
    before = memory.used_bytes
    stage.transport.unsent += 192 * 1024
    stage.connection.send_data(bytes(192 * 1024))
    assert memory.used_bytes - before == 192 * 1024


def test_a_connection_that_still_holds_the_request_is_not_used_again() -> None:
    stage = Stage(request(b"POST", length=100))
    stage.connection.pause_writing()
    stage.hear(OK)
    assert stage.sink.names == ["blocked", "answered"]
    stage.release()
    stage.assert_closed()


def test_a_connection_whose_client_took_no_more_is_read_again_when_it_is_used_again() -> None:
    stage = Stage()
    stage.hear(OK[:-1])
    stage.connection.hold()
    stage.hear(OK[-1:])
    stage.release()
    assert (stage.is_kept, stage.transport.is_paused) == (True, False)


def test_a_connection_whose_endpoint_has_left_is_not_kept() -> None:
    stage = Stage()
    stage.pool.retire()
    stage.hear(OK)
    stage.release()
    stage.assert_closed()


# Limits


def head_of(size: int, fields: int = 1) -> bytes:
    """A response head of so many bytes."""
    start = b"HTTP/1.1 204 No Content\r\n" + b"A: b\r\n" * (fields - 1) + b"X: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize("cut", [0, 30, 40_000])
@pytest.mark.parametrize("extra", [0, 1])
def test_a_response_head_has_a_limit_to_the_byte(cut: int, extra: int) -> None:
    head = head_of(MAX_HEAD_BYTES + extra)
    stage = Stage()
    stage.hear(*((head[:cut], head[cut:]) if cut else (head,)))
    assert (stage.sink.notes == [MALFORMED]) is bool(extra)
    assert stage.transport.is_aborted is bool(extra)


def test_a_head_without_an_end_is_refused_at_its_limit() -> None:
    stage = Stage()
    stage.hear(head_of(MAX_HEAD_BYTES + 100)[:MAX_HEAD_BYTES])
    assert stage.sink.notes == []
    stage.hear(b"x")
    assert stage.sink.notes == [MALFORMED]
    stage.assert_closed()


@pytest.mark.parametrize("extra", [0, 1])
def test_interim_heads_count_with_the_final_one(extra: int) -> None:
    interim = b"HTTP/1.1 103 Early\r\nX: 1\r\n\r\n"
    stage = Stage()
    stage.hear(interim, head_of(MAX_HEAD_BYTES - len(interim) + extra))
    assert stage.sink.names[0] == "interim"
    assert (stage.sink.notes[-1] == MALFORMED) is bool(extra)


@pytest.mark.parametrize("extra", [0, 1])
def test_header_fields_have_a_limit(extra: int) -> None:
    stage = Stage()
    stage.hear(head_of(8000, fields=MAX_FIELDS + extra))
    assert (stage.sink.notes == [MALFORMED]) is bool(extra)


@pytest.mark.parametrize("is_one_read", [True, False])
@pytest.mark.parametrize("extra", [0, 1])
def test_interim_heads_have_a_limit(extra: int, *, is_one_read: bool) -> None:
    reads = [b"HTTP/1.1 103 Early\r\n\r\n"] * (MAX_INTERIM + extra)
    stage = Stage()
    stage.hear(*([b"".join(reads)] if is_one_read else reads), b"" if extra else OK)
    assert stage.sink.names.count("interim") == MAX_INTERIM
    assert (stage.sink.notes[-1] == MALFORMED) is bool(extra)


@pytest.mark.parametrize(
    "bad",
    [b"zz\r\n", b"1\r\nab", b"1\r\na\r\n0\r\nContent-Length: 1\r\n\r\n"],
    ids=["size", "end", "trailer"],
)
def test_a_malformed_body_in_the_read_of_its_head_is_told_before_the_head(bad: bytes) -> None:
    stage = Stage()
    assert stage.hear(CHUNKED_HEAD + bad) == [MALFORMED]
    stage.assert_closed()


def test_a_malformed_body_behind_a_head_that_was_told_is_a_failure() -> None:
    stage = Stage()
    assert stage.hear(CHUNKED_HEAD, b"zz\r\n") == [("head", 200), ("flush",), MALFORMED]


# Tiny pieces


@pytest.mark.parametrize("is_read_paused", [False, True])
def test_many_tiny_chunks_take_several_turns_and_arrive_whole(*, is_read_paused: bool) -> None:
    """Reading is paused meanwhile, and stays so where the client takes no more."""
    count = 3 * SLICE_UNITS
    stage = Stage()
    stage.hear(CHUNKED_HEAD + b"1\r\na\r\n" * count + b"0\r\n\r\n")
    assert (len(stage.sink.body), stage.transport.is_paused) == (SLICE_UNITS, True)
    if is_read_paused:
        stage.connection.hold()
    stage.loop.settle()
    assert stage.sink.body == b"a" * count
    assert stage.sink.notes[-1] == ("end", [])
    assert stage.transport.is_paused is is_read_paused


def test_where_a_turn_is_used_up_the_body_waits_for_the_next() -> None:
    stage = Stage()
    stage.cluster.turns.take(TURN_UNITS)
    stage.hear(CHUNKED)
    assert stage.sink.names == ["head", "flush"]
    stage.loop.settle()
    assert stage.sink.notes == [("head", 200), ("flush",), ("data", b"abc"), ("end", TRAILERS)]


def test_an_error_in_a_sink_ends_its_connection_and_attempt_alone() -> None:
    class Broken(Hearing):
        def data(self, data: bytes) -> None:
            raise LookupError("broken")

    stage = Stage()
    stage.sink = Broken()
    stage.begin()
    errors: list[BaseException] = []
    stage.hear(OK[:-2])
    run_in_loop(lambda: stage.hear(b"ok"), errors)
    assert [type(error) for error in errors] == [LookupError]
    assert stage.sink.names == ["head", "flush", "broken"]
    stage.assert_closed()


def run_in_loop(call: Callable[[], object], errors: list[BaseException]) -> None:
    """Within a running loop, whose exception handler fills `errors`."""

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: errors.append(context["exception"])
        )
        call()

    asyncio.run(run())


# Switches


SWITCH = b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"


def test_a_switch_gives_the_connection_away_and_only_its_place_comes_free() -> None:
    stage = Stage(request(traits=Traits(upgrade=b"x")))
    assert stage.hear(SWITCH + b"rest") == [("switched", 101, b"rest")]
    tunnel = object()
    link = stage.connection.hand_over(tunnel)
    assert stage.transport.protocol is tunnel
    assert stage.pool.open_count == 1
    stage.release(Fate.HANDED_OVER)
    assert (stage.pool.open_count, stage.cluster.connections, stage.transport.calls) == (0, 0, [])
    assert not link.is_closing


def test_a_switch_that_nobody_has_asked_for_is_malformed() -> None:
    stage = Stage()
    assert stage.hear(SWITCH) == [MALFORMED]
    stage.assert_closed()


# Requests


def sent(asked: Request, *, held: tuple[bytes, ...] = (), drop: frozenset[bytes] = frozenset()) -> bytes:
    stage = Stage()
    stage.transport = HandTransport()
    stage.connection.connection_made(stage.transport)
    head = request_head(asked, b"/new", b"host", drop, [b"own: 1\r\n"])
    stage.connection.send_head(head, held)
    return stage.transport.written


FIELD: Field = (b"a", b"A: 1\r\n", b"1")
NAMED = tuple(enumerate((b"a", b"b", b"c", b"d")))
START = b"POST /new HTTP/1.1\r\nHost: host\r\n"


def test_a_head_has_the_fields_that_go_on_and_its_own() -> None:
    asked = request(b"POST")
    asked.fields = [FIELD, (b"b", b"B: 2\r\n", b"2")]
    assert sent(asked, drop=frozenset({b"b"})) == START + b"A: 1\r\nown: 1\r\n\r\n"


@pytest.mark.parametrize("places", [(0,), (3,), (0, 1, 2, 3), (1, 2), (0, 3), (2, 3)])
@pytest.mark.parametrize("drop", [b"", b"a", b"b", b"d", b"ab", b"bc", b"ad", b"cd", b"abcd"])
def test_of_fields_that_fill_in_a_template_the_same_go_on(places: tuple[int, ...], drop: bytes) -> None:
    whole = [(name, b"%b: %d\r\n" % (name.upper(), number), b"%d" % number) for number, name in NAMED]
    known = [None if place in places else field for place, field in enumerate(whole)]
    template = HeadTemplate(known, b"", [(place, whole[place][0], b"", b"") for place in places])
    dropped = frozenset(bytes([letter]) for letter in drop)
    for start in (0, 5):
        others = [(name, line[:3] + b"%d\r\n" % start, b"") for name, line, _ in whole]
        asked = request(b"POST")
        asked.fields = fields = Filled(others[n] if n in places else field for n, field in enumerate(whole))
        fields.template = template
        for gone in (dropped, frozenset[bytes](), dropped):
            lines = b"".join([line for key, line, _ in fields if key not in gone])
            assert sent(asked, drop=gone) == START + lines + b"own: 1\r\n\r\n"


def test_what_was_held_of_a_body_goes_with_the_head() -> None:
    asked = request(b"POST", length=4)
    assert sent(asked, held=(b"ab", b"cd")) == START + b"own: 1\r\n\r\nabcd"


def test_a_body_without_a_length_goes_in_chunks_and_ends_with_its_trailers() -> None:
    asked = request(b"POST", length=-1, traits=Traits(is_chunked=True))
    lines = b"Transfer-Encoding: chunked\r\n"
    assert sent(asked, held=(b"ab",)) == START + lines + b"own: 1\r\n\r\n2\r\nab\r\n"
    stage = Stage(asked)
    stage.transport.take()
    stage.connection.send_data(b"abc")
    stage.connection.send_data(bytes(5000))
    stage.connection.end(TRAILERS)
    assert stage.transport.take() == b"3\r\nabc\r\n1388\r\n%b\r\n0\r\nX-Sum: 3\r\n\r\n" % bytes(5000)


def test_hop_by_hop_fields_are_made_anew() -> None:
    asked = request(b"POST", traits=Traits(upgrade=b"x/1"))
    asked.lookup[b"te"] = b"gzip, trailers"
    lines = b"Upgrade: x/1\r\nTE: trailers\r\nConnection: Upgrade, TE\r\n"
    assert sent(asked) == START + lines + b"own: 1\r\n\r\n"


def test_an_operator_sees_what_a_connection_does() -> None:
    stage = Stage()
    seen = [repr(stage.connection)]
    stage.hear(OK)
    stage.release()
    seen.append(repr(stage.connection))
    stage.connection.abort()
    seen.append(repr(stage.connection))
    assert seen == [f"<UpstreamConnection {HERE} {state}>" for state in ("busy", "idle", "closed")]


# Held back for want of memory


def test_an_upstream_that_is_held_is_read_again_unless_its_client_holds_it_too() -> None:
    stage = Stage()
    stage.connection.hold_for_memory()
    assert stage.transport.is_paused
    stage.connection.go_on()
    assert not stage.transport.is_paused
    stage.connection.hold_for_memory()
    stage.connection.hold()
    stage.connection.go_on()
    assert stage.transport.is_paused
    stage.connection.resume()
    assert not stage.transport.is_paused
    stage.connection.hold_for_memory()
    stage.connection.resume()
    assert stage.transport.is_paused


def test_one_that_is_held_is_read_once_it_is_idle_or_somebody_elses() -> None:
    stage = Stage()
    stage.connection.hold_for_memory()
    stage.hear(OK)
    stage.release()
    assert (stage.is_kept, stage.transport.is_paused) == (True, False)
    stage.connection.hold_for_memory()
    assert not stage.transport.is_paused, "an idle one brings nothing but its end"
    other = Stage()
    other.connection.hold_for_memory()
    other.connection.hand_over(object())
    assert not other.transport.is_paused


def test_one_that_was_held_and_has_closed_stays_closed() -> None:
    stage = Stage()
    stage.connection.hold_for_memory()
    stage.connection.abort()
    stage.connection.go_on()
    assert stage.transport.calls[-1] == "abort"
    stage.assert_closed()
