"""A listener's `direction` says whose calls it takes, whatever its name: deadlines and cancellation go by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from sidecar.runtime.worker import Worker
from tests.scenarios.pod import hanging, head, instrumented, turns_until
from tests.scenarios.stage import OK
from tests.support.clean import Complaints, assert_clean
from tests.support.proxy import port, running
from tests.support.raw import RawPeer, RawUpstream, Request, Response, raw_client, raw_upstream

HEADER = """\
version: 1
listeners:
  {into}: {{address: "127.0.0.1:0"{into_direction}}}
  {out}: {{address: "127.0.0.1:0"{out_direction}}}
probes: {{address: "127.0.0.1:0"}}
admin: {{address: "127.0.0.1:0"}}
telemetry: {{access_log: {{format: "off"}}}}
"""
ROUTES = """\
upstreams:
  app: {{endpoints: ["127.0.0.1:{app}"]}}
  service: {{endpoints: ["127.0.0.1:{service}"]}}
routes:
- {{name: in, listener: {into}, upstream: app}}
- {{name: out, listener: {out}, upstream: service}}
"""
NAMES = pytest.mark.parametrize(
    ("into", "out"), [("inbound", "egress"), ("ingress", "outbound"), ("ingress", "egress"), ("a", "b")]
)


@dataclass
class Calling:
    """A sidecar around an app that calls a service for each request; the service never answers."""

    worker: Worker
    into: str
    service: RawUpstream
    answers: list[Response] = field(default_factory=list)
    """What the app's calls came to."""
    has_answer: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def calling(into: str, out: str) -> AsyncIterator[Calling]:
    stage: list[Calling] = []

    async def call(request: Request) -> None:
        async with raw_client(port(stage[0].worker, out)) as client:
            await client.send(head(b"GET", b"/call", instrumented(request)))
            stage[0].answers += await client.responses([b"GET"])
            stage[0].has_answer.set()

    async def serve(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            await call(request)
            await peer.send(OK)

    def direction(name: str, value: str) -> str:
        return "" if name == value else f", direction: {value}"

    header = HEADER.format(
        into=into,
        out=out,
        into_direction=direction(into, "inbound"),
        out_direction=direction(out, "outbound"),
    )
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with raw_upstream(serve) as app, raw_upstream(hanging) as service:
            routes = ROUTES.format(app=app.port, service=service.port, into=into, out=out)
            async with running(routes, header) as worker:
                stage.append(Calling(worker, into, service))
                yield stage[0]
                async with asyncio.timeout(60):
                    await stage[0].has_answer.wait()
                await assert_clean(worker)
        assert app.problems == service.problems == []
    assert complaints.found == []


@NAMES
async def test_a_call_has_what_is_left_of_its_callers_time(into: str, out: str) -> None:
    async with calling(into, out) as at, raw_client(port(at.worker, into)) as client:
        await client.send(head(b"GET", b"/", [b"x-request-timeout-ms: 1000"]))
        (answer,) = await client.responses([b"GET"])
    assert (answer.status, [one.status for one in at.answers]) == (200, [504])
    (call,) = at.service.requests
    assert 980 <= int(call.value(b"x-envoy-expected-rq-timeout-ms") or 0) <= 995


@NAMES
async def test_a_call_ends_with_its_caller(into: str, out: str) -> None:
    loop = asyncio.get_running_loop()
    async with calling(into, out) as at:
        async with raw_client(port(at.worker, into)) as client:
            await client.send(head(b"GET", b"/", []))
            await turns_until(lambda: bool(at.service.requests))
            assert at.service.requests
            left = loop.time()
        await at.has_answer.wait()
        assert loop.time() - left < 0.5
    (answer,) = at.answers
    assert (answer.status, answer.value(b"proxy-status")) == (
        503,
        b'sidecar; error=connection_terminated; details="caller gone"',
    )
