"""A nameserver on loopback for tests: UDP and TCP, a table of answers, and a record of what was asked.

Speaks as much of RFC 1035 and 2782 as c-ares needs: one question, A, AAAA, CNAME, PTR and SRV records,
response codes, truncation, silence.
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

A, CNAME, PTR, AAAA, SRV = 1, 5, 12, 28, 33
SERVFAIL, NXDOMAIN, REFUSED = 2, 3, 5
HEADER = struct.Struct("!HHHHHH")
TRUNCATED = 0x0200
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
    services: tuple[tuple[int, int, int, str], ...] = ()
    """Priority, weight, port and host of SRV records."""
    pointer: str | None = None
    """The host of a PTR record."""
    sent_along: tuple[tuple[str, str, int], ...] = ()
    """Hosts, with an IPv4 address each and its TTL, in the additional section."""
    is_truncated: bool = False
    """By UDP: nothing is sent but the mark that there is more."""


class DnsServer(asyncio.DatagramProtocol):
    """Answers from `replies`, NXDOMAIN for any other name. Change `replies` at any time."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.questions: list[tuple[str, int]] = []
        """Name and type of all questions so far."""
        self.tcp_questions: list[tuple[str, int]] = []
        """Those of them that came by TCP."""
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

    async def asked(self, name: str, times: int, record_type: int = A) -> None:
        """Wait until `name` was asked for `times` times in all."""
        while self.count(name, record_type) < times:
            self._changed.clear()
            await self._changed.wait()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        answer = self._answer(data, is_udp=True)
        if answer is not None:
            assert self._transport is not None
            self._transport.sendto(answer, addr)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection (RFC 1035 4.2.2)."""
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                answer = self._answer(await reader.readexactly(length), is_udp=False)
                if answer is not None:
                    writer.write(struct.pack("!H", len(answer)) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, data: bytes, *, is_udp: bool) -> bytes | None:
        name, question_end = _read_name(data, HEADER.size)
        (record_type,) = struct.unpack_from("!H", data, question_end)
        self.questions.append((name, record_type))
        if not is_udp:
            self.tcp_questions.append((name, record_type))
        self._changed.set()
        reply = self.replies.get(name, Reply(code=NXDOMAIN))
        if reply.is_silent:
            return None
        return _response(data, question_end + 4, record_type, reply, is_cut=is_udp and reply.is_truncated)


@asynccontextmanager
async def dns_server() -> AsyncIterator[DnsServer]:
    """Serve on a port of 127.0.0.1 that is free for UDP and for TCP."""
    make: Callable[[], DnsServer] = DnsServer
    loop = asyncio.get_running_loop()
    for tries_left in reversed(range(10)):
        transport, server = await loop.create_datagram_endpoint(make, local_addr=("127.0.0.1", 0))
        try:
            by_tcp = await asyncio.start_server(server.serve, *transport.get_extra_info("sockname"))
            break
        except OSError:
            transport.close()
            if not tries_left:
                raise
    try:
        yield server
    finally:
        transport.close()
        by_tcp.close()


def _response(
    query: bytes, question_end: int, record_type: int, reply: Reply, *, is_cut: bool = False
) -> bytes:
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
    if reply.pointer is not None and record_type == PTR:
        data = _write_name(reply.pointer)
        records.append(owner + struct.pack("!HHIH", PTR, 1, reply.ttl, len(data)) + data)
    for priority, weight, port, host in reply.services if record_type == SRV else ():
        data = struct.pack("!HHH", priority, weight, port) + _write_name(host)
        records.append(owner + struct.pack("!HHIH", SRV, 1, reply.ttl, len(data)) + data)
    more = [
        _write_name(host) + struct.pack("!HHIH", A, 1, ttl, 4) + ipaddress.ip_address(address).packed
        for host, address, ttl in (reply.sent_along if record_type == SRV else ())
    ]
    if is_cut:
        records, more = [], []
    (identity,) = struct.unpack_from("!H", query)
    flags = RESPONSE_FLAGS | reply.code | (TRUNCATED if is_cut else 0)
    header = HEADER.pack(identity, flags, 1, len(records), 0, len(more))
    return header + query[HEADER.size : question_end] + b"".join(records) + b"".join(more)


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    labels = []
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    return ".".join(labels).lower(), at + 1


def _write_name(name: str) -> bytes:
    labels = name.rstrip(".").split(".") if name.rstrip(".") else []
    return b"".join(bytes((len(label),)) + label.encode() for label in labels) + b"\0"
