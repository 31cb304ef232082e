"""A nameserver on loopback for tests: UDP, a table of answers, and a record of what was asked.

Speaks as much of RFC 1035 as c-ares needs: one question, A, AAAA and CNAME records, response codes, silence.
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

A, CNAME, AAAA = 1, 5, 28
SERVFAIL, NXDOMAIN, REFUSED = 2, 3, 5
HEADER = struct.Struct("!HHHHHH")
RESPONSE_FLAGS = 0x8180
"""A response, recursion desired and available; the code is added."""


@dataclass(frozen=True)
class Reply:
    """What the server says of one name, to any type of question."""

    addresses: tuple[str, ...] = ()
    ttl: int = 0
    code: int = 0
    alias: str | None = None
    """A CNAME that the addresses belong to, with `alias_ttl`."""
    alias_ttl: int = 0
    is_silent: bool = False


class DnsServer(asyncio.DatagramProtocol):
    """Answers from `replies`, NXDOMAIN for any other name. Change `replies` at any time."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.questions: list[tuple[str, int]] = []
        """Name and type of all questions so far."""
        self._changed = asyncio.Event()
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> str:
        """`127.0.0.1:port`, as a nameserver is configured."""
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")
        return f"{host}:{port}"

    def count(self, name: str, record_type: int = A) -> int:
        """Return how often `name` was asked for; repeated packets of one query count too."""
        return self.questions.count((name, record_type))

    async def asked(self, name: str, times: int) -> None:
        """Wait until `name` was asked for `times` times in all."""
        while self.count(name) < times:
            self._changed.clear()
            await self._changed.wait()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        name, question_end = _read_name(data, HEADER.size)
        (record_type,) = struct.unpack_from("!H", data, question_end)
        self.questions.append((name, record_type))
        self._changed.set()
        reply = self.replies.get(name, Reply(code=NXDOMAIN))
        if not reply.is_silent:
            assert self._transport is not None
            self._transport.sendto(_response(data, question_end + 4, record_type, reply), addr)


@asynccontextmanager
async def dns_server() -> AsyncIterator[DnsServer]:
    """Serve on a free port of 127.0.0.1."""
    make: Callable[[], DnsServer] = DnsServer
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        make, local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()


def _response(query: bytes, question_end: int, record_type: int, reply: Reply) -> bytes:
    records = []
    owner = b"\xc0\x0c"  # a pointer to the question's name
    if reply.alias is not None:
        target = _write_name(reply.alias)
        records.append(owner + struct.pack("!HHIH", CNAME, 1, reply.alias_ttl, len(target)) + target)
        owner = target
    for text in reply.addresses:
        address = ipaddress.ip_address(text)
        if record_type == (A if address.version == 4 else AAAA):
            data = address.packed
            records.append(owner + struct.pack("!HHIH", record_type, 1, reply.ttl, len(data)) + data)
    (identity,) = struct.unpack_from("!H", query)
    header = HEADER.pack(identity, RESPONSE_FLAGS | reply.code, 1, len(records), 0, 0)
    return header + query[HEADER.size : question_end] + b"".join(records)


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    labels = []
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    return ".".join(labels).lower(), at + 1


def _write_name(name: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"
