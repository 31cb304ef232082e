"""Every rule of RFC 9113 and RFC 7541 that a peer can break: what each case sends, whole, in pieces and byte by
byte."""

from __future__ import annotations

import struct

import pytest

from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import Http2Event
from tests.http2.corpus import compression, connections, messages, streams
from tests.http2.corpus.case import Case, Fails, Resets, Takes
from tests.http2.wire import (
    ACK,
    GOAWAY,
    PING,
    RST_STREAM,
    Frame,
    answer,
    frames_of,
    names,
    ping,
    request,
    started,
)

CASES = [*connections.CASES, *streams.CASES, *messages.CASES, *compression.CASES]
RUNS = [
    pytest.param(case, role, id=f"{role.name.lower()} {case.rule}") for case in CASES for role in case.roles
]
GET = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.test"), (b":path", b"/"))
UNTOLD = {"PeerSettings", "SettingsAcknowledged"}


def connection_for(case: Case, role: Role) -> Connection:
    if not case.has_begun:
        connection = Connection(role)
    else:
        connection = started(role)
        if role is Role.CLIENT:
            connection.open_stream(GET, (), is_end=True)
            connection.open_stream(GET, (), is_end=False)
    connection.take()
    return connection


def run(case: Case, role: Role, size: int) -> tuple[Connection, list[Http2Event], list[Frame]]:
    """Fed in pieces of `size` bytes."""
    connection = connection_for(case, role)
    events = []
    for start in range(0, len(case.data), size):
        events += connection.receive(case.data[start : start + size], 0.0)
    return connection, events, frames_of(connection.take())


def told(events: list[Http2Event]) -> list[str]:
    return [name for name in names(events) if name not in UNTOLD]


def test_there_are_as_many_cases_as_a_generic_suite_has() -> None:
    assert len(RUNS) >= 146
    assert len({case.rule + repr(case.data) + repr(case.roles) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("size", [2**20, 7, 1])
@pytest.mark.parametrize(("case", "role"), RUNS)
def test_each_rule_is_kept(case: Case, role: Role, size: int) -> None:
    connection, events, written = run(case, role, size)
    match case.then:
        case Fails(code):
            assert told(events)[-1] == "ConnectionFailed"
            assert events[-1].code == code  # type: ignore[attr-defined]
            assert written[-1].kind == GOAWAY
            assert struct.unpack(">I", written[-1].payload[4:8]) == (code,)
            assert connection.receive(ping(), 0.0) == []
            assert connection.take() == b""
        case Resets(stream_id, code):
            resets = [one for one in written if one.kind == RST_STREAM]
            assert [(one.stream_id, one.payload) for one in resets] == [(stream_id, struct.pack(">I", code))]
            assert told(events)[-1] in ("StreamReset", "RequestMalformed")
            check_goes_on(connection, role)
        case Takes(expected):
            assert told(events) == list(expected)
            assert all(one.kind not in (GOAWAY, RST_STREAM) for one in written)
            if case.has_begun:
                check_goes_on(connection, role)


def check_goes_on(connection: Connection, role: Role) -> None:
    """It answers a PING, and takes one message more."""
    more = request(99) if role is Role.SERVER else answer(3)
    events = connection.receive(ping(b"go on!!!") + more, 0.0)
    assert Frame(PING, ACK, 0, b"go on!!!") in frames_of(connection.take())
    if role is Role.SERVER:
        assert names(events) == ["RequestReceived"]
    else:
        assert names(events) in (["ResponseReceived"], [])  # stream 3 may be the one that has ended


@pytest.mark.parametrize(("case", "role"), RUNS)
def test_what_is_told_does_not_depend_on_how_the_bytes_arrive(case: Case, role: Role) -> None:
    _, whole, _ = run(case, role, 2**20)
    for size in (1, 3, 10, 1000):
        _, events, _ = run(case, role, size)
        assert [describe(event) for event in events] == [describe(event) for event in whole]


def describe(event: Http2Event) -> tuple[object, ...]:
    """All that an event says."""
    said = [name for name in dir(event) if not name.startswith("_") and name not in ("stream", "head")]
    return type(event).__name__, *(repr(getattr(event, name)) for name in said)
