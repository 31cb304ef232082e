"""The far ends of a hostile conversation: bytes in, bytes out, and readings that forgive nothing.

The two readers below are written against RFC 9112 alone and share no code with the proxy or its parser. They are
stricter than any server or client: a message that could be read in two ways is a `Ambiguous`, not a best guess.
So whatever the proxy writes to either side is judged by somebody who never gives it the benefit of the doubt.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.ports import free_ports

PATIENCE_SECONDS = 200.0
"""Virtual: longer than any timeout of a listener, so what has not ended by then never will."""

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21\x23-\x7e]+) HTTP/1\.1")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) [\t\x20-\x7e]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\t\x20-\x7e\x80-\xff]*)")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])?(?::[0-9]{0,5})?")

_NEVER_FORWARDED = frozenset({b"keep-alive", b"proxy-connection", b"proxy-authorization", b"http2-settings"})
_FRAMING = frozenset({
    b"content-length", b"transfer-encoding", b"host", b"connection", b"te", b"trailer", b"upgrade", b"expect",
    b"authorization", b"set-cookie", b"content-type", b"content-encoding", b"traceparent", b"tracestate",
})  # fmt: skip
"""None of these may come as a trailer."""


class Ambiguous(AssertionError):
    """The proxy wrote something that two readers may read in two ways."""


class _Incomplete(Exception):
    """More bytes are needed."""


Fields = list[tuple[bytes, bytes]]
"""Lower-case name and value, in order."""


@dataclass
class Message:
    """What a request and a response have in common."""

    fields: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    is_chunked: bool = False

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]

    def value(self, name: bytes) -> bytes | None:
        """The only value of `name`, or None."""
        values = self.values(name)
        assert len(values) < 2, f"{name!r} stands there {len(values)} times"
        return values[0] if values else None

    @property
    def framing(self) -> str:
        if self.is_chunked:
            return "chunked"
        return "none" if self.value(b"content-length") is None else "length"


@dataclass
class Request(Message):
    method: bytes = b""
    target: bytes = b""


@dataclass
class Response(Message):
    status: int = 0
    interims: list[tuple[int, Fields]] = field(default_factory=list)
    is_cut: bool = False
    """The bytes ended before the message did."""


# Readers


def read_request(data: bytes) -> tuple[Request, bytes] | None:
    """The first request in `data` and what follows it; None while it is not complete.

    Raises:
        Ambiguous: it is not exactly one well-framed request for one host.
    """
    try:
        head, rest = _split_head(data)
        match = _must(_REQUEST_LINE.fullmatch(head[0]), "request line", head[0])
        fields = [_field(line) for line in head[1:]]
        request = Request(fields, method=match[1], target=match[2])
        _check_request_fields(request)
        request.body, request.trailers, rest = _read_body(request, rest)
    except _Incomplete:
        return None
    return request, rest


def read_responses(data: bytes, methods: Iterable[bytes], *, is_ended: bool) -> list[Response]:
    """The responses in `data` to requests with `methods`, in order.

    With `is_ended`, `data` is all there will ever be: a body may then end with it, and one that does not is
    marked `is_cut`. Without, an incomplete last response is left out.

    Raises:
        Ambiguous: one of them could be read in two ways, or there are bytes that answer nothing.
    """
    responses, _ = _read_whole(data, methods, is_ended)
    return responses


def _read_whole(data: bytes, methods: Iterable[bytes], is_ended: bool) -> tuple[list[Response], bytes]:
    """As `read_responses`, and the bytes of the response that is not whole."""
    responses = []
    for method in methods:
        if not data:
            break
        try:
            response, data = _read_response(data, method, is_ended)
        except _Incomplete:
            return responses, data
        responses.append(response)
    else:
        if data:
            raise Ambiguous(f"bytes behind the last response: {data[:200]!r}")
    return responses, data


def _read_response(data: bytes, method: bytes, is_ended: bool) -> tuple[Response, bytes]:
    interims: list[tuple[int, Fields]] = []
    while True:
        head, data = _split_head(data)
        match = _must(_STATUS_LINE.fullmatch(head[0]), "status line", head[0])
        status, fields = int(match[1]), [_field(line) for line in head[1:]]
        response = Response(fields, status=status, interims=interims)
        _check_framing(response)
        if not 100 <= status < 200 or status == 101:
            break
        if {key for key, _ in fields} & {b"content-length", b"transfer-encoding", b"connection"}:
            raise Ambiguous(f"framing in an interim response: {head!r}")
        interims.append((status, fields))
    if status in (101, 204) and response.framing != "none":
        raise Ambiguous(f"a length in a {status}: {head!r}")
    if method == b"HEAD" or status in (101, 204, 304):
        if response.is_chunked:
            raise Ambiguous(f"chunked without a body: {head!r}")
        return response, data
    return _read_response_body(response, data, is_ended)


def _read_response_body(response: Response, data: bytes, is_ended: bool) -> tuple[Response, bytes]:
    try:
        if response.framing == "none":
            if not is_ended:
                raise _Incomplete
            response.body = data
            return response, b""
        response.body, response.trailers, rest = _read_body(response, data)
        return response, rest
    except _Incomplete:
        if not is_ended:
            raise
        response.is_cut = True
        return response, b""


def _split_head(data: bytes) -> tuple[list[bytes], bytes]:
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        raise _Incomplete
    lines = head.split(b"\r\n")
    for line in lines:
        if b"\r" in line or b"\n" in line or b"\0" in line:
            raise Ambiguous(f"a bare CR or LF or a NUL in {line!r}")
    return lines, rest


def _field(line: bytes) -> tuple[bytes, bytes]:
    match = _must(_FIELD.fullmatch(line), "header field", line)
    return match[1].lower(), match[2]


def _check_framing(message: Message) -> None:
    lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Ambiguous(f"two framings: {lengths} {codings}")
    for length in lengths:
        _must(_LENGTH.fullmatch(length), "length", length)
    if codings not in ([], [b"chunked"]):
        raise Ambiguous(f"transfer coding {codings}")
    message.is_chunked = bool(codings)


def _check_request_fields(request: Request) -> None:
    _check_framing(request)
    hosts = request.values(b"host")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise Ambiguous(f"hosts {hosts}")
    names = {key for key, _ in request.fields}
    if names & _NEVER_FORWARDED:
        raise Ambiguous(f"hop-by-hop fields went on: {names & _NEVER_FORWARDED}")
    for name in (b"connection", b"te", b"upgrade", b"traceparent", b"tracestate", b"x-request-id"):
        if len(request.values(name)) > 1:
            raise Ambiguous(f"two fields {name!r}")
    options = {option.strip().lower() for option in (request.value(b"connection") or b"").split(b",")} - {b""}
    if options != names & {b"te", b"upgrade"}:
        raise Ambiguous(f"Connection: {options} beside {names}")


def _read_body(message: Message, data: bytes) -> tuple[bytes, Fields, bytes]:
    if message.is_chunked:
        return _read_chunks(data)
    size = int(message.value(b"content-length") or 0)
    if len(data) < size:
        raise _Incomplete
    return data[:size], [], data[size:]


def _read_chunks(data: bytes) -> tuple[bytes, Fields, bytes]:
    body = []
    while True:
        line, data = _line(data)
        size = int(_must(_CHUNK_SIZE.fullmatch(line), "chunk size", line)[0], 16)
        if not size:
            break
        if len(data) < size + 2:
            raise _Incomplete
        if data[size : size + 2] != b"\r\n":
            raise Ambiguous(f"no line end behind a chunk: {data[: size + 2]!r}")
        body.append(data[:size])
        data = data[size + 2 :]
    trailers: Fields = []
    while True:
        line, data = _line(data)
        if not line:
            return b"".join(body), trailers, data
        trailers.append(_field(line))
        if trailers[-1][0] in _FRAMING:
            raise Ambiguous(f"a trailer that means something in a head: {line!r}")


def _line(data: bytes) -> tuple[bytes, bytes]:
    line, end, rest = data.partition(b"\r\n")
    if not end:
        raise _Incomplete
    return line, rest


def _must(match: re.Match[bytes] | None, what: str, text: bytes) -> re.Match[bytes]:
    if match is None:
        raise Ambiguous(f"bad {what}: {text[:200]!r}")
    return match


# Writing


async def turns(count: int = 2) -> None:
    """Let the event loop go round, so that what was written is read on its own."""
    for _ in range(count):
        await asyncio.sleep(0)


MAX_PIECES = 10_000


async def write_bytewise(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Each byte is its own write, read by the other side before the next one; stops when nobody is there.

    Where that would be more than `MAX_PIECES`, the pieces are larger: nobody reads 300,000 bytes in one go either.
    """
    size = len(data) // MAX_PIECES + 1
    for at in range(0, len(data), size):
        if writer.transport.is_closing():
            return
        writer.write(data[at : at + size])
        await turns()


# The two ends


class RawClient:
    """One client connection; `received` is all that it was ever sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = b""
        self.is_ended = False
        self.is_reset = False

    async def send(self, data: bytes, *, is_bytewise: bool = False) -> None:
        if is_bytewise:
            await write_bytewise(self.writer, data)
        else:
            self.writer.write(data)
            await turns()

    async def read_some(self) -> None:
        """Wait for the next bytes, or for the end.

        Raises:
            TimeoutError: neither came.
        """
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                data = await self.reader.read(65536)
        except ConnectionError:
            self.is_ended = self.is_reset = True
            return
        self.received += data
        self.is_ended = not data

    async def read_to_end(self) -> None:
        while not self.is_ended:
            await self.read_some()

    async def responses(self, methods: list[bytes]) -> list[Response]:
        """Read until there is an answer to each of `methods`, or the end."""
        responses: list[Response] = []
        rest = self.received
        while True:
            # Each response is read once: four hundred come in as many pieces.
            whole, rest = _read_whole(rest, methods[len(responses) :], self.is_ended)
            responses += whole
            if self.is_ended or len(responses) == len(methods):
                return responses
            known = len(self.received)
            await self.read_some()
            rest += self.received[known:]


@asynccontextmanager
async def raw_client(port: int) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask(port: int, data: bytes) -> Response:
    """The answer to one request on a connection of its own."""
    async with raw_client(port) as client:
        await client.send(data)
        (response,) = await client.responses([data.partition(b" ")[0]])
        return response


Script = Callable[["RawPeer"], Awaitable[None]]


@dataclass(eq=False)
class RawPeer:
    """One connection that the proxy opened, with every byte that came over it."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    received: bytes = b""
    requests: list[Request] = field(default_factory=list)
    rest: bytes = b""
    """What came behind the last whole request."""
    is_open: bool = True

    async def request(self) -> Request | None:
        """The next whole request; None when the proxy has closed."""
        while True:
            found = read_request(self.rest)
            if found is not None:
                self.requests.append(found[0])
                self.rest = found[1]
                return found[0]
            if not await self.read_some():
                return None

    async def head(self) -> None:
        """Wait for the head of a request, and no more."""
        while b"\r\n\r\n" not in self.rest and await self.read_some():
            pass

    async def read_some(self) -> bool:
        try:
            data = await self.reader.read(65536)
        except ConnectionError:
            data = b""
        self.received += data
        self.rest += data
        return bool(data)

    async def send(self, data: bytes, *, is_bytewise: bool = False) -> None:
        if is_bytewise:
            await write_bytewise(self.writer, data)
        else:
            self.writer.write(data)
            await turns()

    async def echo(self) -> None:
        """Answer each request with its own method and target, until the proxy closes."""
        while (request := await self.request()) is not None:
            await self.send(echo_of(request.method, request.target))


def echo_of(method: bytes, target: bytes) -> bytes:
    """The one right answer to a request: nobody else's could be mistaken for it."""
    body = b"" if method == b"HEAD" else method + b" " + target
    size = len(method) + 1 + len(target)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, body)


@dataclass
class RawUpstream:
    """A listening script; `peers` are its connections in the order they came."""

    port: int = 0
    peers: list[RawPeer] = field(default_factory=list)
    problems: list[BaseException] = field(default_factory=list)
    """What the scripts raised, above all `Ambiguous`."""

    @property
    def received(self) -> bytes:
        return b"".join(peer.received for peer in self.peers)

    @property
    def requests(self) -> list[Request]:
        return [request for peer in self.peers for request in peer.requests]

    @property
    def open_count(self) -> int:
        return sum(peer.is_open for peer in self.peers)


@asynccontextmanager
async def raw_upstream(
    script: Script = RawPeer.echo, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[RawUpstream]:
    """Run `script` for each connection, on a free port of `host`; by TLS where a context is given."""
    upstream = RawUpstream()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: asyncio 3.11 reports the cancellation of a task that it made itself as an error.
        peer = RawPeer(len(upstream.peers), reader, writer)
        upstream.peers.append(peer)
        tasks.add(asyncio.create_task(run(peer)))

    async def run(peer: RawPeer) -> None:
        try:
            await script(peer)
        except ConnectionError:
            pass
        except (Exception, Ambiguous) as error:
            upstream.problems.append(error)
        finally:
            peer.is_open = False
            peer.writer.close()

    # Elsewhere than at loopback the kernel may choose the very port that a sidecar of the test gets at loopback,
    # and what is at a sidecar's own ports is closed to it.
    port = 0 if host == "127.0.0.1" else free_ports(1)[0]
    server = await asyncio.start_server(accept, host, port, ssl=tls)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
