"""Servers of gRPC that end a call at its deadline without a status, by RST_STREAM: Java's and Go's do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sidecar.core.plain import Field
from sidecar.core.transition import State
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import RequestReceived, TrailersReceived
from sidecar.runtime.worker import Worker
from tests.scenarios.websockets import http2_app
from tests.support.clean import assert_clean
from tests.support.http2_ends import Http2End, Pairs, Stream, http2_client
from tests.support.proxy import port, running

GRPC: Pairs = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
PSEUDO = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C"), (b":authority", b"x"))
UNITS = {b"n": 1e9, b"u": 1e6, b"m": 1e3}
DEADLINE_EXCEEDED, UNAVAILABLE = b"4", b"14"


class Call(Stream):
    """With its trailers."""

    trailers: Sequence[Field] = ()

    def told(self, event: Any) -> None:
        if isinstance(event, TrailersReceived):
            self.trailers = event.fields
        super().told(event)


@asynccontextmanager
async def before_a_server(share: float, *, has_head: bool = False, route: str = "") -> AsyncIterator[Worker]:
    """A sidecar before a server that resets each stream after this share of its `grpc-timeout`."""
    tasks: set[asyncio.Task[None]] = set()

    async def end(event: RequestReceived, stream: Stream) -> None:
        told = event.head.lookup[b"grpc-timeout"]
        if has_head:
            stream._connection.codec.send_head(stream._stream, 200, (), pairs=GRPC[:1])
            stream._connection.flush()
        await asyncio.sleep(int(told[:-1]) / UNITS[told[-1:]] * share)
        await stream.cut()

    def begin(event: RequestReceived, stream: Stream) -> None:
        tasks.add(asyncio.create_task(end(event, stream)))

    async with http2_app(lambda: Connection(Role.SERVER), begin, lambda _: None) as app:
        text = f"""\
upstreams: {{app: {{endpoints: ["127.0.0.1:{app}"], protocol: http2}}}}
routes: [{{name: app, upstream: app{route}}}]
"""
        async with running(text) as worker:
            yield worker
            await assert_clean(worker)
        await asyncio.gather(*tasks)


async def called(client: Http2End, within: bytes) -> Call:
    pairs = (*GRPC, (b"grpc-timeout", within))
    stream = Call(client, client.codec.open_stream(PSEUDO, (), pairs=pairs, is_end=True))
    client.flush()
    assert await stream.head() == 200
    return stream


def state(worker: Worker) -> State:
    return worker.assembly.breakers["app", "app"].state


@pytest.mark.parametrize("milliseconds", [50, 2000])
async def test_its_reset_at_the_deadline_is_the_callers_deadline(milliseconds: int) -> None:
    async with before_a_server(1.0) as worker, http2_client(port(worker)) as client:
        begun = worker.service.clock()
        stream = await called(client, b"%dm" % milliseconds)
        assert stream.fields[b"grpc-status"] == DEADLINE_EXCEEDED
        assert stream.fields[b"grpc-message"].startswith(b"timeout: ")
        assert worker.service.clock() - begun < milliseconds / 1000.0


async def test_it_is_judged_as_a_timeout_is() -> None:
    """Callers in a hurry open nothing; one second does, as for a server that hangs."""
    async with before_a_server(1.0) as worker, http2_client(port(worker)) as client:
        for _ in range(10):
            await called(client, b"100m")
        assert state(worker) is State.CLOSED
        for _ in range(5):
            await called(client, b"1S")
        assert state(worker) is State.OPEN


async def test_its_reset_before_the_deadline_is_a_reset() -> None:
    async with before_a_server(0.9) as worker, http2_client(port(worker)) as client:
        for _ in range(5):
            stream = await called(client, b"100m")
            assert stream.fields[b"grpc-status"] == UNAVAILABLE
        assert state(worker) is State.OPEN


async def test_behind_a_head_the_trailers_say_it() -> None:
    async with before_a_server(1.0, has_head=True) as worker, http2_client(port(worker)) as client:
        stream = await called(client, b"500m")
        assert await stream.read_to_end() == b""
        assert {key: value for key, _, value in stream.trailers}[b"grpc-status"] == DEADLINE_EXCEEDED
        assert stream.was_cut == ""
