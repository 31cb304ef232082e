"""A whole connection of the server beside the data path (`sidecar/serving/`): whole against pieces."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

from sidecar.serving.connection import Connection, Door
from sidecar.serving.message import BadBody, Request, Response
from tests.bench.fuzz.pieces import cuttings
from tests.bench.fuzz.seeds import request_seeds
from tests.bench.fuzz.targets import Target, same
from tests.bench.fuzz.words import HTTP_WORDS

_STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_REFUSALS: Final = frozenset({b"400", b"405", b"431", b"501", b"505"})
MOST_TURNS: Final = 5000
"""More than the largest input needs, with a request in every few bytes."""


class Wire(asyncio.Transport):
    """A transport without a socket: what is received while it is paused waits."""

    def __init__(self, protocol: Connection) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = b""
        self.is_over = False
        self._is_paused = False
        self._waiting: list[bytes] = []

    def receive(self, data: bytes) -> None:
        self._waiting.append(data)
        self._flow()

    def _flow(self) -> None:
        while self._waiting and not self._is_paused and not self.is_over:
            self.protocol.data_received(self._waiting.pop(0))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_over
        self.written += data

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_over

    def close(self) -> None:
        if not self.is_over:
            self.is_over = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            asyncio.get_running_loop().call_soon(self._flow)


class Recorder(Door):
    """Reads every body, and keeps what it was asked."""

    tls = None
    fields: dict[str, str] = {}  # noqa: RUF012  (never changed)
    is_ending = False

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.connections = 0

    def admit(self, connection: Connection) -> bool:
        self.connections += 1
        return True

    async def turn(self) -> None:
        await asyncio.sleep(0)

    async def answer(self, request: Request) -> Response | None:
        body = b""
        try:
            while piece := await request.client.read():
                body += piece
        except BadBody:
            response = Response(400)
            response.closes = True
            return response
        asked = (request.method, request.version, request.path, *request.query.items())
        self.seen.append((asked, list(request.headers.items()), body))
        return Response()

    def waits(self, connection: Connection) -> None: ...
    def works(self, connection: Connection) -> None: ...

    def forget(self, connection: Connection) -> None:
        self.connections = 0


async def conversation(pieces: Sequence[bytes]) -> tuple[Any, ...]:
    """What was asked and answered, when the client has ended its side behind them."""
    server = Recorder()
    connection = Connection(server)
    wire = Wire(connection)
    connection.connection_made(wire)
    for piece in pieces:
        wire.receive(piece)
        await settled(connection, wire)
    if not wire.is_over and not connection.eof_received():
        wire.close()
    await settled(connection, wire)
    wire.close()
    await settled(connection, wire)
    same("what is left behind", (0, None), (server.connections, connection.task))
    found = _STATUS.findall(wire.written)
    # Whether somebody is told to go on depends on what has come by then.
    statuses = [b"refused" if one in _REFUSALS else one for one in found if one != b"100"]
    return server.seen, statuses


async def settled(connection: Connection, wire: Wire) -> None:
    """Nothing more comes of what has come."""
    quiet = 0
    for _ in range(MOST_TURNS):
        before = (len(wire.written), connection.task)
        await asyncio.sleep(0)
        quiet = quiet + 1 if before == (len(wire.written), connection.task) else 0
        if quiet > 5:
            return
    raise AssertionError("it never settles")


@cache
def _runner() -> asyncio.Runner:
    return asyncio.Runner()


def run(pieces: Sequence[bytes]) -> tuple[Any, ...]:
    """A conversation on a loop whose every complaint is an error."""
    errors: list[dict[str, Any]] = []
    runner = _runner()
    runner.get_loop().set_exception_handler(lambda _, context: errors.append(context))
    found = runner.run(conversation(pieces))
    if errors:
        raise errors[0].get("exception") or AssertionError(errors[0]["message"])
    return found


def server(data: bytes) -> None:
    whole = run([data])
    for pieces in cuttings(data):
        same("a server's client in pieces", whole, run(pieces))


TARGETS: Final = [Target("server", server, request_seeds, HTTP_WORDS, share=0.3)]
"""One of its inputs takes as long as three of others: each is a loop's turns."""
