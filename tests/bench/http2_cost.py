"""What HTTP/2's codec costs for one exchange: both sides of a proxy, without sockets, policies and a loop's turns.

    python -m tests.bench.http2_cost [--profile] [--floods]

Microseconds of this process's CPU time for each exchange, the best of several rounds. A client and an origin of
nghttp2 (`ngh2`) talk through the codec once, and what each of them wrote is recorded; each round plays that to a
fresh pair of connections. "repeated" is the same head each time, as h2load sends it; "traced" has a `traceparent`
of its own in each.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import time
from dataclasses import dataclass, field

import ngh2

from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import (
    DataReceived,
    Http2Event,
    RequestReceived,
    ResponseReceived,
    TrailersReceived,
)
from sidecar.http2.stream import Http2Stream
from tests.http2.test_floods import FLOODS, release_all
from tests.http2.wire import started

ROUNDS, EXCHANGES = 15, 1500
FLOOD_FRAMES, READ_BYTES = 20_000, 65_536
ADDED = ((b"x-request-id", b"8f14e45fceea167a5a36dedd4bea2543"), (b"x-mesh", b"a"))
"""What the proxy adds to each request."""
DROP = frozenset({b"connection", b"host", b"x-request-id", b"te"})
TRAILERS = ((b"te", b"trailers"),)
MESSAGE = b"\x00\x00\x00\x00\x20" + b"m" * 32

GET = (
    (b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"orders.test"), (b":path", b"/api/small?page=3"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)"), (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate"),
)  # fmt: skip
GRPC = (
    (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"orders.test"),
    (b":path", b"/pkg.Payments/Charge"),
    (b"te", b"trailers"), (b"content-type", b"application/grpc"), (b"user-agent", b"grpc-python/1.70 grpc-c/45.0"),
    (b"grpc-accept-encoding", b"identity, deflate, gzip"), (b"grpc-timeout", b"15S"),
)  # fmt: skip
ANSWER = (
    (b":status", b"200"), (b"server", b"origin"), (b"content-type", b"application/json"), (b"content-length", b"256"),
)  # fmt: skip
GRPC_ANSWER = (
    (b":status", b"200"), (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity, deflate, gzip"),
)  # fmt: skip
GRPC_TRAILERS = ((b"grpc-status", b"0"), (b"grpc-message", b""))


@dataclass
class Case:
    name: str
    is_grpc: bool
    is_traced: bool
    requests: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)


class Relay:
    """A proxy with nothing but codecs: one client's connection and one origin's."""

    def __init__(self) -> None:
        self.down = Connection(Role.SERVER)
        self.up = Connection(Role.CLIENT)

    def to_origin(self, data: bytes) -> bytes:
        down, up = self.down, self.up
        for event in down.receive(data, 0.0):
            kind = event.__class__
            if kind is RequestReceived:
                self._open(event)
            elif kind is DataReceived:
                size = len(event.data)
                down.credit_connection(size)
                stream: Http2Stream = event.stream.owner
                up.send_data(stream, event.data)
                down.credit_stream(event.stream, size)
                if event.is_end:
                    up.end(stream)
        return up.take()

    def _open(self, event: RequestReceived) -> None:
        pseudo = (
            (b":method", event.method), (b":scheme", event.scheme), (b":authority", event.authority),
            (b":path", event.path),
        )  # fmt: skip
        pairs = ADDED + TRAILERS if b"te" in event.lookup else ADDED
        stream = self.up.open_stream(
            pseudo, event.fields, DROP, pairs, never_indexed=event.never_indexed, is_end=event.is_end
        )
        stream.owner = event.stream
        event.stream.owner = stream

    def to_client(self, data: bytes) -> bytes:
        down = self.down
        for event in self.up.receive(data, 0.0):
            kind = event.__class__
            if kind is ResponseReceived:
                stream = event.stream.owner
                down.send_head(stream, event.status, event.fields, DROP, never_indexed=event.never_indexed)
            elif kind is DataReceived:
                self._pass_data(event)
            elif kind is TrailersReceived:
                down.end(event.stream.owner, event.fields)
                self._release(event)
        return down.take()

    def _pass_data(self, event: DataReceived) -> None:
        size = len(event.data)
        self.up.credit_connection(size)
        self.down.send_data(event.stream.owner, event.data)
        self.up.credit_stream(event.stream, size)
        if event.is_end:
            self.down.end(event.stream.owner)
            self._release(event)

    def _release(self, event: Http2Event) -> None:
        stream: Http2Stream = event.stream  # type: ignore[attr-defined]
        self.down.release(stream.owner)
        self.up.release(stream)
        stream.owner.owner = None
        stream.owner = None


def record(case: Case) -> None:
    """What a client and an origin of nghttp2 write for each exchange."""
    config = ngh2.Configuration(peer_max_concurrent_streams=1000)
    client, origin = ngh2.Connection(ngh2.Role.CLIENT, config), ngh2.Connection(ngh2.Role.SERVER, config)
    relay = Relay()
    client.initiate_connection()
    origin.initiate_connection()
    for number in range(EXCHANGES + 2):
        if number >= 2:  # first both sides say their settings
            _ask(client, case, number)
        case.requests.append(client.data_to_send())
        origin.receive_data(relay.to_origin(case.requests[-1]))
        for event in origin.events():
            if isinstance(event, ngh2.RequestReceived):
                _answer(origin, event.stream_id, case)
        case.answers.append(origin.data_to_send())
        client.receive_data(relay.to_client(case.answers[-1]))
        ended = [event for event in client.events() if isinstance(event, ngh2.StreamClosed)]
        assert number < 2 or len(ended) == 1, f"exchange {number} did not end"


def _ask(client: ngh2.Connection, case: Case, number: int) -> None:
    fields = list(GRPC if case.is_grpc else GET)
    if case.is_traced:
        fields.append((b"traceparent", b"00-%032x-%016x-01" % (number * 7919, number * 104729)))
    headers = fields
    stream_id = client.send_request(headers, end_stream=not case.is_grpc)
    if case.is_grpc:
        client.send_data(stream_id, MESSAGE, end_stream=True)


def _answer(origin: ngh2.Connection, stream_id: int, case: Case) -> None:
    fields = GRPC_ANSWER if case.is_grpc else ANSWER
    origin.send_response(stream_id, list(fields))
    if case.is_grpc:
        origin.send_data(stream_id, MESSAGE)
        origin.send_trailers(stream_id, list(GRPC_TRAILERS))
    else:
        origin.send_data(stream_id, b"s" * 256, end_stream=True)


def play(case: Case) -> float:
    """Microseconds for each exchange."""
    relay = Relay()
    to_origin, to_client = relay.to_origin, relay.to_client
    for step in range(2):
        to_origin(case.requests[step])
        to_client(case.answers[step])
    pairs = list(zip(case.requests[2:], case.answers[2:], strict=True))
    gc.collect()
    gc.disable()
    begin = time.process_time()
    for request, answer in pairs:
        to_origin(request)
        to_client(answer)
    took = time.process_time() - begin
    gc.enable()
    return took / len(pairs) * 1e6


def flood(name: str) -> float:
    """Milliseconds of CPU time until the connection has failed and all that still comes is thrown away."""
    _, _, first, each = FLOODS[name]
    connection = started(Role.SERVER)
    connection.receive(first, 0.0)
    data = b"".join(each(number) for number in range(FLOOD_FRAMES))
    begin = time.process_time()
    for start in range(0, len(data), READ_BYTES):
        release_all(connection, connection.receive(data[start : start + READ_BYTES], 0.0))
        connection.take()
    return (time.process_time() - begin) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--profile", action="store_true", help="where the time of one round goes, for each case"
    )
    parser.add_argument(
        "--floods", action="store_true", help="milliseconds for 20,000 frames of each flood instead"
    )
    arguments = parser.parse_args()
    if arguments.floods:
        for name in FLOODS:
            print(f"{name:40} {flood(name):6.2f} ms")
        return
    for is_grpc in (False, True):
        for is_traced in (False, True):
            name = ("gRPC with trailers" if is_grpc else "GET 256 B") + (
                ", traced" if is_traced else ", repeated"
            )
            case = Case(name, is_grpc, is_traced)
            record(case)
            print(f"{case.name:30} {min(play(case) for _ in range(ROUNDS)):6.1f} µs")
            if arguments.profile:
                profile = cProfile.Profile()
                profile.runcall(play, case)
                pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
