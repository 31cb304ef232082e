"""Bodies of a megabyte and many streams at once, with nghttp2 at the other end, in both roles."""

from __future__ import annotations

import ngh2

from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import DataReceived, RequestReceived, ResponseReceived, TrailersReceived

BODY = bytes(range(256)) * 4096
POST = ((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a.test"), (b":path", b"/"))
MAX_ROUNDS = 500


def test_a_client_of_nghttp2_gets_its_bodies_back() -> None:
    client, server = ngh2.Connection(ngh2.Role.CLIENT), Connection(Role.SERVER)
    client.initiate_connection()
    ids = [client.send_request([*POST, (b"x-number", b"%d" % number)]) for number in range(20)]
    for stream_id in ids:
        client.send_data(stream_id, BODY, end_stream=True)
    got = dict.fromkeys(ids, b"")
    ended: set[int] = set()
    for _ in range(MAX_ROUNDS):
        for event in server.receive(client.data_to_send(), 0.0):
            echo(server, event)
        client.receive_data(server.take())
        for told in client.events():
            if isinstance(told, ngh2.DataReceived):
                got[told.stream_id] += told.data
            elif isinstance(told, ngh2.TrailersReceived):
                ended.add(told.stream_id)
        if len(ended) == len(ids):
            break
    assert ended == set(ids)
    assert set(got.values()) == {BODY}
    assert server.load.open_streams == 0


def echo(server: Connection, event: object) -> None:
    """Send back what comes, with trailers behind it."""
    if isinstance(event, RequestReceived):
        server.send_head(event.stream, 200, event.fields)
    elif isinstance(event, DataReceived):
        server.credit_connection(len(event.data))
        server.credit_stream(event.stream, len(event.data))
        server.send_data(event.stream, event.data)
        if event.is_end:
            server.end(event.stream, pairs=((b"grpc-status", b"0"),))
            server.release(event.stream)


def test_a_server_of_nghttp2_takes_and_sends_bodies() -> None:
    client, server = Connection(Role.CLIENT), ngh2.Connection(ngh2.Role.SERVER)
    server.initiate_connection()
    streams = [client.open_stream(POST, (), pairs=((b"te", b"trailers"),)) for _ in range(20)]
    for stream in streams:
        client.send_data(stream, BODY)
        client.end(stream)
    sent: dict[int, bytes] = {}
    got: dict[int, bytes] = {stream.stream_id: b"" for stream in streams}
    statuses, trailers = [], []
    for _ in range(MAX_ROUNDS):
        server.receive_data(client.take())
        for told in server.events():
            if isinstance(told, ngh2.DataReceived):
                sent[told.stream_id] = sent.get(told.stream_id, b"") + told.data
                if told.end_stream:
                    server.send_response(told.stream_id, [(b":status", b"200")])
                    server.send_data(told.stream_id, sent[told.stream_id])
                    server.send_trailers(told.stream_id, [(b"grpc-status", b"0")])
        for event in client.receive(server.data_to_send(), 0.0):
            if isinstance(event, ResponseReceived):
                statuses.append(event.status)
            elif isinstance(event, DataReceived):
                got[event.stream.stream_id] += event.data
                client.credit_connection(len(event.data))
                client.credit_stream(event.stream, len(event.data))
            elif isinstance(event, TrailersReceived):
                trailers.append(event.fields)
        if len(trailers) == len(streams):
            break
    assert statuses == [200] * 20
    assert trailers == [[(b"grpc-status", b"grpc-status: 0\r\n", b"0")]] * 20
    assert set(got.values()) == {BODY}
