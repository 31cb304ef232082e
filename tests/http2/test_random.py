"""Random frames: no exception escapes, pieces change nothing, nothing is kept beyond bounds, and nghttp2 agrees."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.errors import ErrorCode
from sidecar.http2.events import (
    DataReceived,
    Http2Event,
    RequestReceived,
    StreamReset,
    StreamSent,
    StreamWritable,
    TrailersReceived,
)
from sidecar.http2.stream import Http2Stream
from tests.http2.guided import GuidedFrames
from tests.http2.oracle import ASKED, BEGIN, describe, run
from tests.http2.wire import PREFACE, started

GET = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.test"), (b":path", b"/"))


def fresh(role: Role) -> Connection:
    connection = started(role)
    if role is Role.CLIENT:
        for _ in ASKED:
            connection.open_stream(GET, (), is_end=False)
    connection.take()
    return connection


def guided(role: Role, seed: int, steps: int = 30) -> bytes:
    peer = GuidedFrames(
        Random(seed), is_server=role is Role.CLIENT, asked=ASKED if role is Role.CLIENT else ()
    )
    return b"".join(frame for _ in range(steps) for frame in peer.next())


@pytest.mark.parametrize("role", Role)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_nghttp2_makes_the_same_of_the_same_frames(role: Role, seed: int) -> None:
    _, difference = run(seed, role, 40)
    assert difference == ""


@pytest.mark.parametrize("role", Role)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 40), min_size=1, max_size=20))
@settings(max_examples=80, deadline=None)
def test_pieces_change_nothing(role: Role, seed: int, cuts: list[int]) -> None:
    data = guided(role, seed)
    whole, parts = fresh(role), fresh(role)
    expected = [described(event) for event in whole.receive(data, 0.0)]
    found = []
    position = step = 0
    while position < len(data):
        size = cuts[step % len(cuts)]
        found += parts.receive(data[position : position + size], 0.0)
        position += size
        step += 1
    assert [described(event) for event in found] == expected
    assert parts.take() == whole.take()


def described(event: Http2Event) -> object:
    return describe(event) or type(event).__name__


@pytest.mark.parametrize("role", Role)
@given(data=st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_read_or_refused(role: Role, data: bytes) -> None:
    for begin in (b"", PREFACE, PREFACE + BEGIN if role is Role.SERVER else BEGIN):
        Connection(role).receive(begin + data, 0.0)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_a_connection_that_remembers_heads_reads_as_one_that_does_not(seed: int) -> None:
    remembers, forgets = fresh(Role.SERVER), fresh(Role.SERVER)
    random = Random(seed)
    peer = GuidedFrames(random, is_server=False)
    steps = [peer.next() for _ in range(8)]
    for _ in range(30):
        data = b"".join(random.choice(steps))
        mine = remembers.receive(data, 0.0)
        forgets._inbox._arrivals.heads._forget()
        assert [described(event) for event in forgets.receive(data, 0.0)] == [
            described(event) for event in mine
        ]


class TwoEnds(RuleBasedStateMachine):
    """A client and a server of ours, with bytes on their way, against bookkeeping of what each has sent.

    Whatever the order of sending, credit, resets and delivery: what arrives is what was sent, in order; neither
    breaks a rule of the protocol; and in the end nothing is left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.client = Connection(Role.CLIENT)
        self.server = Connection(Role.SERVER)
        self.asked: dict[int, Http2Stream] = {}
        self.taken: dict[int, Http2Stream] = {}
        self.sent: dict[tuple[Connection, int], bytes] = {}
        self.came: dict[tuple[Connection, int], bytes] = {}
        self.ended: set[tuple[Connection, int]] = set()
        self.reset: set[int] = set()
        self.owed: list[tuple[Connection, Http2Stream, int]] = []

    @initialize()
    def begin(self) -> None:
        self.deliver()

    # Delivery

    @rule()
    def deliver(self) -> None:
        for _ in range(2):
            self.hear(self.server, self.server.receive(self.client.take(), 0.0))
            self.hear(self.client, self.client.receive(self.server.take(), 0.0))

    def hear(self, side: Connection, events: list[Http2Event]) -> None:
        for event in events:
            assert type(event).__name__ != "ConnectionFailed", event.detail  # type: ignore[attr-defined]
            if isinstance(event, RequestReceived):
                self.taken[event.stream.stream_id] = event.stream
            elif isinstance(event, StreamReset):
                assert event.is_by_peer
                self.reset.add(event.stream.stream_id)
            elif isinstance(event, DataReceived):
                key = side, event.stream.stream_id
                assert key not in self.ended
                self.came[key] = self.came.get(key, b"") + event.data
                side.credit_connection(len(event.data))
                self.owed.append((side, event.stream, len(event.data)))
            if isinstance(event, TrailersReceived) or getattr(event, "is_end", False):
                self.ended.add((side, event.stream.stream_id))  # type: ignore[attr-defined]
            assert isinstance(event, Http2Event)

    # What both do

    @rule(is_end=st.booleans())
    def ask(self, is_end: bool) -> None:
        if self.client.can_open() and len(self.asked) < 20:
            stream = self.client.open_stream(GET, (), pairs=((b"x-n", b"1"),), is_end=is_end)
            self.asked[stream.stream_id] = stream

    @rule(pick=st.integers(0, 100), is_end=st.booleans())
    def answer(self, pick: int, is_end: bool) -> None:
        stream = self.pick(self.taken, pick)
        if stream is not None:
            self.server.send_head(stream, 200, (), pairs=((b"server", b"s"),), is_end=is_end)

    @rule(
        pick=st.integers(0, 100),
        by_server=st.booleans(),
        size=st.sampled_from([1, 100, 16_384, 50_000, 400_000]),
    )
    def send(self, pick: int, by_server: bool, size: int) -> None:
        side, streams = (self.server, self.taken) if by_server else (self.client, self.asked)
        stream = self.pick(streams, pick)
        if stream is not None and stream.sending.name == "BODY" and stream.unsent_bytes < 500_000:
            key = side, stream.stream_id
            body = bytes([len(self.sent.get(key, b"")) % 251]) * size
            self.sent[key] = self.sent.get(key, b"") + body
            side.send_data(stream, body)

    @rule(pick=st.integers(0, 100), by_server=st.booleans(), has_trailers=st.booleans())
    def finish(self, pick: int, by_server: bool, has_trailers: bool) -> None:
        side, streams = (self.server, self.taken) if by_server else (self.client, self.asked)
        stream = self.pick(streams, pick)
        if stream is not None:
            side.end(stream, pairs=((b"grpc-status", b"0"),) if has_trailers else ())

    @rule(pick=st.integers(0, 100), by_server=st.booleans())
    def give_up(self, pick: int, by_server: bool) -> None:
        side, streams = (self.server, self.taken) if by_server else (self.client, self.asked)
        stream = self.pick(streams, pick)
        if stream is not None and not stream.is_over:
            self.reset.add(stream.stream_id)
            side.reset(stream, ErrorCode.CANCEL)

    @rule(count=st.integers(1, 30))
    def pay(self, count: int) -> None:
        for side, stream, size in self.owed[:count]:
            side.credit_stream(stream, size)
        del self.owed[:count]

    @rule(by_server=st.booleans())
    def hold_and_resume(self, by_server: bool) -> None:
        side = self.server if by_server else self.client
        side.hold_data()
        self.deliver()
        for event in side.resume_data():
            assert isinstance(event, (StreamSent, StreamWritable))

    def pick(self, streams: dict[int, Http2Stream], number: int) -> Http2Stream | None:
        return list(streams.values())[number % len(streams)] if streams else None

    # What must hold

    @invariant()
    def what_came_is_the_beginning_of_what_was_sent(self) -> None:
        for (side, stream_id), body in self.came.items():
            other = self.client if side is self.server else self.server
            assert self.sent.get((other, stream_id), b"").startswith(body)

    def teardown(self) -> None:
        """Everything is delivered and released: whole, where nobody gave up, and nothing is open any more."""
        for side, streams in ((self.client, self.asked), (self.server, self.taken)):
            self.deliver()
            for stream in streams.values():
                if side is self.server:
                    side.send_head(stream, 200, ())
                side.end(stream)
        for _ in range(60):
            self.pay(len(self.owed))
            self.deliver()
        for (side, stream_id), body in self.sent.items():
            other = self.client if side is self.server else self.server
            if stream_id not in self.reset:
                assert self.came.get((other, stream_id), b"") == body
                assert (other, stream_id) in self.ended
        for side, streams in ((self.client, self.asked), (self.server, self.taken)):
            for stream in streams.values():
                side.release(stream)
            assert side.load.open_streams == 0


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
