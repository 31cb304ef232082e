"""The upstream of the comparison: cheap, fixed answers over HTTP/1.1 keep-alive.

It decides nothing and checks little: its clients are this bench's proxies and load generators, so a request
that is not plain (chunked, or without a blank line within the limit) ends the connection and thus shows up as
an error of the round. Answers:

| request | answer |
| --- | --- |
| `/api/large` | 64 KiB |
| `/api/headers` | the head of the request as it arrived, to see what a proxy sent |
| everything else | 256 B, once the whole body has been read |
"""

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import cast

import uvloop

SMALL_BYTES = 256
LARGE_BYTES = 64 * 1024
MAX_HEAD_BYTES = 32 * 1024


def answer(body: bytes) -> bytes:
    """A complete 200 response with the given body."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


SMALL = answer(b"s" * SMALL_BYTES)
LARGE = answer(b"l" * LARGE_BYTES)


def content_length(head: bytes) -> int:
    """The length announced by a lower-cased head; 0 without the field."""
    start = head.find(b"\r\ncontent-length:")
    if start < 0:
        return 0
    start += 17
    return int(head[start : head.find(b"\r\n", start)])


class Upstream(asyncio.Protocol):
    """One connection. `pending` holds an incomplete head, `missing` counts body bytes still to come."""

    __slots__ = ("missing", "pending", "response", "write")

    def __init__(self) -> None:
        self.pending = b""
        self.missing = 0
        self.response = SMALL
        self.write: Callable[[bytes], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast(asyncio.Transport, transport).write

    def data_received(self, data: bytes) -> None:
        while data:
            if self.missing:
                rest = data[self.missing :]
                self.missing -= len(data) - len(rest)
                data = rest
                if not self.missing:
                    self.write(self.response)
                continue
            data = self.pending + data
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self.pending = data
                if len(data) > MAX_HEAD_BYTES:
                    raise ValueError("the head of a request does not end")
                return
            self.pending = b""
            self.read_head(data[:end])
            data = data[end:]

    def read_head(self, head: bytes) -> None:
        """Choose the answer, and send it unless a body has to be read first."""
        target = head[: head.find(b"\r\n")].split(b" ")[1]
        lowered = head.lower()
        if b"\r\ntransfer-encoding:" in lowered:
            raise ValueError("a chunked request is no part of this bench")
        if target == b"/api/large":
            self.response = LARGE
        elif target == b"/api/headers":
            self.response = answer(head)
        else:
            self.response = SMALL
        self.missing = content_length(lowered)
        if not self.missing:
            self.write(self.response)


async def serve(port: int) -> None:
    """Serve on loopback until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=512)
    gc.disable()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
