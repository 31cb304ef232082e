"""Floods of tiny pieces from a client or an upstream, and how much each turn of the sidecar's loop does for them.

All far ends are plain sockets that are looked after once a turn, from one callback of the loop itself: so whatever
else happens between two of these calls is the sidecar's own work for what has arrived. It can be counted in calls of
functions, which no other load on the machine changes, or measured as CPU time of the loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sidecar.core.websocket import accept_of
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import RequestReceived
from sidecar.http2.stream import Http2Stream
from sidecar.runtime.worker import Worker
from tests.http2 import wire
from tests.support.clean import Complaints
from tests.support.proxy import port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
QUICK = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
READ_BYTES = 262_144
QUIET_TURNS = 300
"""Without a byte either way: the flood is over, whatever became of it."""
MAX_TURNS = 300_000


@dataclass(frozen=True)
class Kind:
    """One way to make many pieces of few bytes. A client's `opening` asks for `/flood` or for no route."""

    opening: bytes
    piece: bytes
    is_upstream: bool = False
    lines: bytes = b""
    """Of the request that asks an upstream for its flood."""
    version: bytes = b"1.1"
    """Of that request as well."""
    asks: bytes = b""
    """In the place of that request, if there is to be another one."""
    streams: int = 0
    """How many streams of HTTP/2 the upstream floods, by `piece`s of one byte; 0 where it speaks HTTP/1.1."""
    numbered: Callable[[int], bytes] | None = None
    """The pieces, where no two are the same."""

    @property
    def upstream(self) -> str:
        """What is said of the upstream in the configuration."""
        return "protocol: http2" if self.streams else ""

    def flood(self, size: int) -> bytes:
        """So many bytes of pieces."""
        if self.numbered is None:
            return self.piece * (size // len(self.piece))
        return b"".join(self.numbered(number) for number in range(size // len(self.numbered(0))))


def _post(target: bytes, *lines: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (target, b"".join(line + b"\r\n" for line in lines))


_CHUNKED = b"Transfer-Encoding: chunked"
_UPGRADE = b"Connection: upgrade\r\nUpgrade: echo\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
_HANDSHAKE = b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: %b\r\n" % _KEY
_HTTP2 = wire.PREFACE + wire.setting()
_ONE = wire.frame(wire.DATA, 0, 1, b"x")
_THREE = wire.frame(wire.DATA, 0, 3, b"x")


def _head(stream_id: int, path: str, method: str = "POST", *, is_end: bool = False) -> bytes:
    pseudo = ((":method", method), (":scheme", "http"), (":path", path), (":authority", "x"))
    protocol = ((":protocol", "websocket"),) if method == "CONNECT" else ()
    flags = wire.END_HEADERS | (wire.END_STREAM if is_end else 0)
    return wire.headers(stream_id, wire.block(*pseudo, *protocol), flags)


VARYING = b"x-varying"
_NO_ROUTE = b"GET /n HTTP/1.1\r\nHost:x\r\n\r\n"

KINDS = {
    "client: chunks": Kind(_post(b"/flood", _CHUNKED), b"1\r\nx\r\n"),
    "client: chunks with an extension": Kind(_post(b"/flood", _CHUNKED), b"1;a\r\nx\r\n"),
    "client: chunks with zeros in their size": Kind(_post(b"/flood", _CHUNKED), b"0001\r\nx\r\n"),
    "client: chunks of two sizes": Kind(_post(b"/flood", _CHUNKED), b"1\r\nx\r\n2\r\nyz\r\n"),
    "client: chunks that no route takes": Kind(_post(b"/n", _CHUNKED), b"1\r\nx\r\n"),
    "client: chunks behind an upgrade": Kind(
        _post(b"/flood", _UPGRADE.rstrip(b"\r\n"), _CHUNKED), b"1\r\nx\r\n"
    ),
    "client: heads that no route takes": Kind(b"", _NO_ROUTE),
    "client: HEADs that no route takes": Kind(b"", _NO_ROUTE.replace(b"GET", b"HEAD")),
    "client: heads of HTTP/1.0": Kind(b"", b"GET /n HTTP/1.0\r\nHost:x\r\nConnection:keep-alive\r\n\r\n"),
    "client: heads without time left": Kind(
        b"", b"GET /flood HTTP/1.1\r\nHost:x\r\nx-request-timeout-ms:0\r\n\r\n"
    ),
    "client: heads that the app answers": Kind(b"", b"GET /flood HTTP/1.1\r\nHost:x\r\n\r\n"),
    "client: heads with many fields": Kind(b"", _NO_ROUTE[:-2] + b"a:b\r\n" * 80 + b"\r\n"),
    "client: heads with many fields of a name that varies": Kind(
        b"", _NO_ROUTE[:-2] + b"%b:b\r\n" % VARYING * 80 + b"\r\n"
    ),
    "client: heads with an upgrade": Kind(b"", _NO_ROUTE[:-2] + _UPGRADE + b"\r\n"),
    "client: bodies of a byte": Kind(b"", _post(b"/n", b"Content-Length:1") + b"x"),
    "client: bodies of a chunk": Kind(b"", _post(b"/n", _CHUNKED) + b"1\r\nx\r\n0\r\n\r\n"),
    "client: trailers": Kind(b"", _post(b"/n", _CHUNKED) + b"0\r\n" + b"a:b\r\n" * 40 + b"\r\n"),
    "client: trailers without an end": Kind(_post(b"/flood", _CHUNKED) + b"0\r\n", b"a:b\r\n"),
    "client: fields without an end": Kind(b"GET /n HTTP/1.1\r\nHost: x\r\n", b"a:b\r\n"),
    "client: empty lines": Kind(b"", b"\r\n"),
    "client: a tunnel": Kind(b"GET /tunnel HTTP/1.1\r\nHost: x\r\n%b\r\n" % _UPGRADE, b"x"),
    "client: HTTP/2, DATA of a byte": Kind(_HTTP2 + _head(1, "/flood"), _ONE),
    "client: HTTP/2, DATA on two streams in turns": Kind(
        _HTTP2 + _head(1, "/flood") + _head(3, "/flood"), _ONE + _THREE
    ),
    "client: HTTP/2, DATA behind an answer": Kind(_HTTP2 + _head(1, "/n"), _ONE),
    "client: HTTP/2, heads that no route takes": Kind(
        _HTTP2, b"", numbered=lambda number: _head(2 * number + 1, "/n", "GET", is_end=True)
    ),
    "client: HTTP/2, a tunnel": Kind(_HTTP2 + _head(1, "/tunnel", "CONNECT"), _ONE),
    "upstream: HTTP/2, DATA of a byte": Kind(b"", _ONE, is_upstream=True, streams=1),
    "upstream: HTTP/2, DATA on two streams in turns": Kind(
        b"",
        _ONE,
        is_upstream=True,
        asks=_HTTP2 + _head(1, "/flood", "GET", is_end=True) + _head(3, "/flood", "GET", is_end=True),
        streams=2,
    ),
    "upstream: HTTP/2, a tunnel": Kind(b"", _ONE, is_upstream=True, lines=_HANDSHAKE, streams=1),
    "upstream: chunks": Kind(_ANSWER, b"1\r\nx\r\n", is_upstream=True),
    "upstream: chunks with an extension": Kind(_ANSWER, b"1;a\r\nx\r\n", is_upstream=True),
    "upstream: chunks of two sizes": Kind(_ANSWER, b"1\r\nx\r\n2\r\nyz\r\n", is_upstream=True),
    "upstream: events": Kind(
        _ANSWER.replace(b"Transfer", b"Content-Type: text/event-stream\r\nTransfer"),
        b"9\r\ndata: 1\n\n\r\n",
        is_upstream=True,
    ),
    "upstream: chunks for a client of HTTP/1.0": Kind(
        _ANSWER, b"1\r\nx\r\n", is_upstream=True, version=b"1.0"
    ),
    "upstream: 103s": Kind(b"", b"HTTP/1.1 103 X\r\n\r\n", is_upstream=True),
    "upstream: fields": Kind(b"HTTP/1.1 200 OK\r\n", b"a:b\r\n", is_upstream=True),
    "upstream: trailers": Kind(_ANSWER + b"0\r\n", b"a:b\r\n", is_upstream=True),
    "upstream: a body up to its end": Kind(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x", is_upstream=True
    ),
    "upstream: a tunnel": Kind(_SWITCHED, b"x", is_upstream=True, lines=_UPGRADE),
}


def _switched(asked: bytes) -> bytes:
    """101 to whatever was asked for."""
    _, has_key, rest = asked.partition(b"Sec-WebSocket-Key: ")
    if not has_key:
        return _SWITCHED
    accept = b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_of(rest.partition(b"\r\n")[0])
    return _SWITCHED.replace(b"echo\r\n\r\n", b"websocket\r\n" + accept)


# The far ends


@dataclass(eq=False)
class End:
    """A socket with what is still to be sent, and what came last."""

    sock: socket.socket
    out: bytes = b""
    sent: int = 0
    """Of `out`."""
    taken: int = 0
    """Sent in all."""
    received: int = 0
    last: bytes = b""
    """The bytes of the last look."""
    is_open: bool = True
    codec: Connection | None = None
    """Of an upstream that speaks HTTP/2."""
    asked: list[Http2Stream] = field(default_factory=list)
    """Its streams that wait for their flood."""
    is_flooding: bool = False

    def say(self, data: bytes) -> None:
        self.out = self.out[self.sent :] + data
        self.sent = 0

    def look(self) -> bool:
        """Send and receive what the kernel lets through now; whether anything moved."""
        before = self.sent + self.received
        self.last = b""
        try:
            with contextlib.suppress(BlockingIOError):
                while self.sent < len(self.out):
                    size = self.sock.send(memoryview(self.out)[self.sent : self.sent + 65536])
                    self.sent += size
                    self.taken += size
            with contextlib.suppress(BlockingIOError):
                while self.is_open:
                    data = self.sock.recv(READ_BYTES)
                    self.is_open = bool(data)
                    self.last += data
        except ConnectionError:
            self.is_open = False
        self.received += len(self.last)
        return self.sent + self.received != before

    def close(self) -> None:
        self.sock.close()


def _connected(address: int) -> End:
    sock = socket.create_connection(("127.0.0.1", address))
    sock.setblocking(False)
    return End(sock)


class App:
    """Answers `/quick` and a client's `/flood` at once, and floods whoever asks it to."""

    def __init__(self, kind: Kind, flood: bytes) -> None:
        self._kind = kind
        self._flood = flood
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._server.setblocking(False)
        self.port: int = self._server.getsockname()[1]
        self.ends: list[End] = []
        self._waited_turns = 0

    def look(self) -> bool:
        """Whether anything moved but for the neighbour."""
        has_moved = False
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._server.accept()
                sock.setblocking(False)
                self.ends.append(End(sock, codec=Connection(Role.SERVER) if self._kind.streams else None))
        for end in self.ends:
            if end.is_open and (end.look() or end.asked):
                has_moved = has_moved or (b" /quick " not in end.last and end.codec is None)
                if end.codec is None:
                    self._answer(end)
                else:
                    has_moved = self._answer_frames(end, end.codec) or has_moved
        return has_moved

    def _answer_frames(self, end: End, codec: Connection) -> bool:
        """The flood waits until there is a second connection: a neighbour on the same one would stand behind it.
        Returns whether the flood moves. Without one it begins all the same, in the end."""
        for event in codec.receive(end.last, 0.0):
            if isinstance(event, RequestReceived):
                codec.send_head(event.stream, 200, ())
                if event.path == b"/quick":
                    codec.send_data(event.stream, b"ok")
                    codec.end(event.stream)
                    codec.release(event.stream)
                else:
                    end.asked.append(event.stream)
        end.say(codec.take())
        self._waited_turns += bool(end.asked)
        is_time = len(self.ends) > 1 or self._waited_turns > QUIET_TURNS
        if len(end.asked) == self._kind.streams and is_time:
            frames = [wire.frame(wire.DATA, 0, one.stream_id, b"x") for one in end.asked]
            end.say(b"".join(frames) * (len(self._flood) // len(b"".join(frames))))
            end.asked.clear()
            end.is_flooding = True
        return bool(end.asked) or (end.is_flooding and end.sent < len(end.out))

    def _answer(self, end: End) -> None:
        asked = end.last
        if b" /quick " in asked:
            end.say(OK)
            end.look()
        elif b"GET /tunnel " in asked:
            end.say(_switched(asked))
        elif b" /flood " in asked and self._kind.is_upstream:
            end.say(self._kind.opening + self._flood)
        elif b"GET /flood " in asked:
            end.say(OK)

    def close(self) -> None:
        for end in (*self.ends, self._server):
            end.close()


# The turns


@dataclass
class Work:
    """What the loop did in each turn, in the meter's unit, and how the neighbour fared."""

    most: float = 0.0
    """In the turn with most."""
    total: float = 0.0
    turns: int = 0
    neighbour_answers: int = 0
    neighbour_turns: int = 0
    """The most turns between a neighbour's request and its answer."""
    read_bytes: int = 0
    """Of the flood, that the sidecar has taken."""
    passed_bytes: int = 0
    """To the other side of it."""
    problems: list[str] = field(default_factory=list)
    """What went wrong here, and what the sidecar complained about, which is nothing at all."""


class Calls:
    """Counts calls of functions, in Python and in C. They do not depend on the machine, nor on its load."""

    unit = "calls"

    def __init__(self) -> None:
        self._count = 0

    def start(self) -> None:
        self._count = 0
        sys.setprofile(self._called)

    def stop(self) -> float:
        sys.setprofile(None)
        return self._count

    def _called(self, _: object, event: str, __: object) -> None:
        if event in ("call", "c_call"):
            self._count += 1


class Milliseconds:
    """CPU time of this thread: what other programs do meanwhile is left out."""

    unit = "ms"

    def __init__(self) -> None:
        self._began = 0.0

    def start(self) -> None:
        self._began = time.thread_time()

    def stop(self) -> float:
        return (time.thread_time() - self._began) * 1000


class Turns:
    """Looks after all far ends once a turn, and takes the measure of what is in between."""

    def __init__(self, hostile: End, neighbour: End, app: App, meter: Calls | Milliseconds) -> None:
        self._hostile = hostile
        self._neighbour = neighbour
        self._app = app
        self._meter = meter
        self._quiet_turns = 0
        self._waits_since: int | None = None
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()
        self.work = Work()

    async def run(self) -> Work:
        """Until nothing of the flood moves any more."""
        self._loop.call_soon(self._turn, False)
        await self._done
        return self.work

    def _turn(self, is_measured: bool) -> None:
        work = self.work
        if is_measured:
            amount = self._meter.stop()
            work.total += amount
            work.most = max(work.most, amount)
        try:
            is_over = self._look()
        except Exception as error:
            work.problems.append(repr(error))
            is_over = True
        if is_over:
            self._done.set_result(None)
            return
        work.turns += 1
        self._loop.call_soon(self._turn, True)
        self._meter.start()

    def _look(self) -> bool:
        hostile, app = self._hostile, self._app
        has_moved = app.look()
        has_moved = (hostile.is_open and hostile.look()) or has_moved
        self._look_at_neighbour()
        self._quiet_turns = 0 if has_moved else self._quiet_turns + 1
        return self._quiet_turns >= QUIET_TURNS or self.work.turns >= MAX_TURNS

    def _look_at_neighbour(self) -> None:
        """One request at a time, at once the next one while the flood lasts."""
        neighbour, work = self._neighbour, self.work
        neighbour.look()
        if neighbour.last:
            assert neighbour.last.startswith(b"HTTP/1.1 200 "), neighbour.last[:200]
            assert self._waits_since is not None
            work.neighbour_answers += 1
            work.neighbour_turns = max(work.neighbour_turns, work.turns - self._waits_since)
            self._waits_since = None
        if self._waits_since is None and self._quiet_turns < QUIET_TURNS // 2:
            neighbour.say(QUICK)
            neighbour.look()
            self._waits_since = work.turns


@contextmanager
def app_for(name: str, flood_bytes: int) -> Iterator[App]:
    """The app behind the sidecar, for a flood of that kind and size."""
    kind = KINDS[name]
    app = App(kind, kind.flood(flood_bytes))
    try:
        yield app
    finally:
        app.close()


def _have_no_overload(worker: Worker) -> None:
    """To count calls makes each take several times as long: what is late by that is not the loop's own doing."""
    worker.service.sweep.pace.heard = lambda _seconds, _now: False
    worker.service.shut.crowded = lambda _listener, _now: None


async def flooded(
    worker: Worker, name: str, app: App, flood_bytes: int, meter: Callable[[], Any] = Calls
) -> Work:
    """Let one flood run through the sidecar while a neighbour asks for one thing after the other."""
    kind = KINDS[name]
    if meter is Calls:
        _have_no_overload(worker)
    address = port(worker)
    hostile, neighbour = _connected(address), _connected(address)
    try:
        if kind.is_upstream:
            plain = b"GET /flood HTTP/%b\r\nHost: x\r\n%b\r\n" % (kind.version, kind.lines)
            hostile.say(kind.asks or plain)
        else:
            hostile.say(kind.opening + kind.flood(flood_bytes))
        with Complaints(asyncio.get_running_loop()) as complaints:
            work = await Turns(hostile, neighbour, app, meter()).run()
        work.problems += complaints.found
        work.passed_bytes = hostile.received if kind.is_upstream else sum(end.received for end in app.ends)
        work.read_bytes = (
            max((end.taken for end in app.ends), default=0) if kind.is_upstream else hostile.taken
        )
        return work
    finally:
        hostile.close()
        neighbour.close()
