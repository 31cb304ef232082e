"""HTTP/2 is imported when somebody speaks it: nobody who does, in whatever moment, is served less for it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.core.contract import IS_COMPILED
from sidecar.http2 import events
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.transport.tls.files import server_context
from tests.process.test_late_imports import TELLING
from tests.support.certificates import Certificates
from tests.support.http2_ends import Http2End, Stream, http2_client, http2_end
from tests.support.ports import free_ports
from tests.support.process import Running, admin, http_get, sidecar
from tests.support.raw import RawPeer, raw_upstream
from tests.support.workers import CLIENTS, pod

pytestmark = pytest.mark.process

CODEC = "sidecar.http2.connection"
CLIENT_SIDE, SERVER_SIDE = "sidecar.upstream.http2_pool", "sidecar.downstream.http2"
COMMAND = ("-c", TELLING, "run")
CONFIG = """\
version: 1
workers: {workers}
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"{listener}}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
drain: {{delay: 0s}}
upstreams: {{app: {{endpoints: ["127.0.0.1:{app}"]{upstream}}}}}
routes: [{{name: {name}, upstream: app}}]
"""


@dataclass
class Late:
    """A sidecar that tells which thread imports what."""

    running: Running
    file: Path
    ports: dict[str, int]

    def imported(self, module: str) -> list[str]:
        """By whom, each time."""
        lines = self.running.log.read_text().splitlines()
        return [line.partition(":")[0] for line in lines if line.endswith(f": {module}")]

    async def reload(self, **changed: str) -> None:
        self.file.write_text(written(self.ports, **changed))
        status, text = await admin(self.ports["admin"], "POST", "/reload")
        assert (status, json.loads(text)["is_success"]) == (200, True), text


def written(
    ports: dict[str, int], listener: str = "", upstream: str = "", name: str = "app", workers: str = "1"
) -> str:
    return CONFIG.format(listener=listener, upstream=upstream, name=name, workers=workers, **ports)


@asynccontextmanager
async def late(folder: Path, app: int, **changed: str) -> AsyncIterator[Late]:
    inbound, probes, admin_port = free_ports(3)
    ports = {"inbound": inbound, "probes": probes, "admin": admin_port, "app": app}
    file = folder / "sidecar.yaml"
    file.write_text(written(ports, **changed))
    async with sidecar(file, probes, folder / "log", COMMAND) as running:
        await running.logged('"process.started"')
        yield Late(running, file, ports)
    assert running.process.returncode == 0, running.log.read_text()


def seen(by: str) -> list[str]:
    """What is told of a module that a module of the data path has imported once. Compiled ones tell nobody."""
    return [] if IS_COMPILED else [by]


def asked(end: Http2End, path: bytes) -> Stream:
    """A GET that is on its way."""
    pseudo = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"))
    stream = Stream(end, end.codec.open_stream(pseudo, ()))
    end.codec.end(stream._stream)
    end.flush()
    return stream


async def answered(stream: Stream) -> tuple[int, bytes]:
    return await stream.head(), await stream.read_to_end()


async def test_those_who_are_first_to_speak_it_are_served_in_the_same_moment(tmp_path: Path) -> None:
    async with raw_upstream() as app, late(tmp_path, app.port) as one:
        assert (await http_get(one.ports["inbound"], "/1"))[0] == 200
        assert one.imported(CODEC) == []
        async with AsyncExitStack() as stack:
            ends = [await stack.enter_async_context(http2_client(one.ports["inbound"])) for _ in range(2)]
            streams = [asked(end, b"/%d" % number) for number, end in enumerate(ends)]
            assert [await answered(stream) for stream in streams] == [(200, b"GET /0"), (200, b"GET /1")]
            assert await answered(asked(ends[0], b"/2")) == (200, b"GET /2")
        assert one.imported(CODEC) == seen("by the loop")
        assert one.imported(CLIENT_SIDE) == []
        assert (await http_get(one.ports["inbound"], "/2"))[0] == 200


async def test_the_first_is_served_whose_preface_comes_in_pieces(tmp_path: Path) -> None:
    async with raw_upstream() as app, late(tmp_path, app.port) as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.ports["inbound"])
        codec = Connection(Role.CLIENT)
        begin = codec.take()
        for at in range(len(begin) - 1):
            writer.write(begin[at : at + 1])
            await writer.drain()
        async with http2_end(codec, reader, writer) as end:
            writer.write(begin[-1:])
            assert await answered(asked(end, b"/")) == (200, b"GET /")


async def test_the_first_is_served_behind_a_reload_and_stays_through_one(tmp_path: Path) -> None:
    async with raw_upstream() as app, late(tmp_path, app.port) as one:
        await one.reload(name="second")
        assert one.imported(CODEC) == []
        async with http2_client(one.ports["inbound"]) as end:
            assert await answered(asked(end, b"/1")) == (200, b"GET /1")
            await one.reload(name="third")
            assert await answered(asked(end, b"/2")) == (200, b"GET /2")
        async with http2_client(one.ports["inbound"]) as end:
            assert await answered(asked(end, b"/3")) == (200, b"GET /3")
        assert one.imported(CODEC) == seen("by the loop")


async def test_a_reload_that_asks_for_it_imports_it_in_a_thread(tmp_path: Path) -> None:
    async with raw_upstream() as app, late(tmp_path, app.port) as one:
        await one.reload(listener=", protocol: http2")
        assert one.imported(SERVER_SIDE) == ["by a thread"]
        assert one.imported(CODEC) == seen("by a thread")
        async with http2_client(one.ports["inbound"]) as end:
            assert await answered(asked(end, b"/1")) == (200, b"GET /1")
        await one.reload(upstream=", protocol: http2")
        assert one.imported(CLIENT_SIDE) == ["by a thread"]


@pytest.mark.parametrize("is_there_from_the_start", [True, False])
async def test_an_upstream_that_agrees_on_it_is_served_from_the_first_request_on(
    tmp_path: Path, is_there_from_the_start: bool
) -> None:
    made = Certificates(tmp_path)
    tls = f', protocol: auto, tls: {{ca: "{made.ca}", server_name: a.test}}'
    async with raw_upstream(by_http2, tls=agreeing(made)) as app:
        begins = {"upstream": tls} if is_there_from_the_start else {}
        async with late(tmp_path, app.port, **begins) as one:
            if is_there_from_the_start:
                assert one.imported(CLIENT_SIDE) == ["by the loop"], "before anybody was served"
            else:
                assert one.imported(CODEC) == []
                await one.reload(upstream=tls)
                assert one.imported(CLIENT_SIDE) == ["by a thread"]
            both = [http_get(one.ports["inbound"], "/") for _ in range(2)]
            assert await asyncio.gather(*both) == [(200, ""), (200, "")]
            assert one.imported(SERVER_SIDE) == [], "no client has spoken it"
        assert not app.problems


def agreeing(made: Certificates) -> ssl.SSLContext:
    pair = made.pair("server", "a.test")
    context = server_context()
    context.load_cert_chain(pair.chain, pair.key)
    context.set_alpn_protocols(["h2"])
    return context


async def by_http2(peer: RawPeer) -> None:
    """Answers each request by 200."""
    codec = Connection(Role.SERVER)
    while data := await peer.reader.read(65536):
        for event in codec.receive(data, 0.0):
            if isinstance(event, events.RequestReceived):
                codec.send_head(event.stream, 200, ())
                codec.end(event.stream)
        peer.writer.write(codec.take())


@pytest.mark.parametrize("clients", [", protocol: http2", "TLS"])
async def test_where_clients_will_speak_it_it_is_there_before_they_connect(
    tmp_path: Path, clients: str
) -> None:
    if clients == "TLS":
        pair = Certificates(tmp_path).pair("server", "a.test")
        clients = f', tls: {{certificates: [{{chain: "{pair.chain}", key: "{pair.key}"}}]}}'
    async with raw_upstream() as app, late(tmp_path, app.port, listener=clients) as one:
        assert one.imported(SERVER_SIDE) == ["by the loop"]


async def test_several_workers_each_serve_who_is_the_first(tmp_path: Path) -> None:
    async with pod(tmp_path, command=COMMAND) as one, AsyncExitStack() as stack:
        assert CODEC not in one.running.log.read_text()
        ends = [await stack.enter_async_context(http2_client(one.inbound)) for _ in range(CLIENTS)]
        streams = [asked(end, b"/") for end in ends]
        assert [await answered(stream) for stream in streams] == [(200, b"ok")] * CLIENTS
        imported = one.running.log.read_text().count(f"by the loop: {CODEC}\n")
        assert imported == 2 * len(seen("by the loop")), "once in each"


async def test_several_workers_have_it_from_before_the_fork_where_it_will_be_spoken(tmp_path: Path) -> None:
    async with (
        raw_upstream() as app,
        late(tmp_path, app.port, listener=", protocol: http2", workers="2") as one,
        http2_client(one.ports["inbound"]) as end,
    ):
        assert await answered(asked(end, b"/")) == (200, b"GET /")
        assert one.imported(SERVER_SIDE) == ["by the loop"], "once for all"
