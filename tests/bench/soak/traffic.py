"""Clients of every kind, well behaved and not, each for a moment: what one turn of the load may be."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.bench.soak import http2

PATIENCE_SECONDS = 20.0
"""Beyond it a client is told of as stuck."""
MOST_AT_ONCE = 400
"""Clients; beyond it a turn is left out, and counted."""
KEPT = 8
"""Connections that stay for many requests."""
TARGETS = (b"/", b"/flap", b"/gone", b"/slow", b"/stream", b"/nowhere", b"/flap", b"/")


@dataclass
class Clients:
    """The load on one listener for the app's callers and one for its own calls."""

    inbound: int
    outbound: int
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    most_at_once: int = MOST_AT_ONCE
    done: Counter[str] = field(default_factory=Counter)
    running: set[asyncio.Task[None]] = field(default_factory=set)
    _kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    def kinds(self) -> dict[str, tuple[int, Callable[[], Awaitable[None]]]]:
        """By name: how often, against the others, and what it does."""
        return {
            "get": (40, self.get),
            "again": (30, self.again),
            "post": (10, self.post),
            "chunked": (5, self.chunked),
            "pipelined": (3, self.pipelined),
            "leaves": (4, self.leaves),
            "leaves in its body": (2, self.leaves_in_body),
            "half a head": (2, self.half_a_head),
            "nonsense": (2, self.nonsense),
            "slow reader": (1, self.slow_reader),
            "tunnel": (1, self.tunnel),
            "in the mesh": (6, self.in_mesh),
            "impatient": (3, self.impatient),
            "http2": (4, self.http2),
            "http2 leaves": (2, self.http2_leaves),
        }

    async def load(self, rate: float, until: Callable[[], bool]) -> None:
        """So many turns a second, at random instants, whatever becomes of the earlier ones."""
        kinds = self.kinds()
        names, weights = list(kinds), [weight for weight, _ in kinds.values()]
        loop = asyncio.get_running_loop()
        at = loop.time()
        while not until():
            at += self.rng.expovariate(rate)
            await asyncio.sleep(max(0.0, at - loop.time()))
            (name,) = self.rng.choices(names, weights)
            if len(self.running) >= self.most_at_once:
                self.done["left out"] += 1
                continue
            task = asyncio.create_task(self.one(name, kinds[name][1]))
            self.running.add(task)
            task.add_done_callback(self.running.discard)

    async def end(self) -> None:
        """Wait for the last, then close what was kept."""
        if self.running:
            await asyncio.wait(set(self.running))
        for _, writer in self._kept:
            writer.close()
        self._kept.clear()

    async def one(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await act()
            self.done[name] += 1
        except TimeoutError:
            self.done[f"{name}: stuck"] += 1
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.done[f"{name}: cut"] += 1

    # The kinds

    async def get(self, target: bytes | None = None) -> None:
        async with self._open() as (reader, writer):
            writer.write(self._head(b"GET", target))
            await answer(reader)

    async def again(self) -> None:
        """On a connection that stays."""
        reader, writer = (
            self._kept.pop() if self._kept else await asyncio.open_connection("127.0.0.1", self.inbound)
        )
        try:
            writer.write(self._head(b"GET", b"/"))
            await answer(reader)
        except BaseException:
            writer.close()
            raise
        if len(self._kept) < KEPT and not writer.is_closing() and not reader.at_eof():
            self._kept.append((reader, writer))
        else:
            writer.close()

    async def post(self) -> None:
        body = b"b" * self.rng.randrange(1, 65_536)
        async with self._open() as (reader, writer):
            writer.write(self._head(b"POST", more=b"Content-Length: %d\r\n" % len(body)) + body)
            await answer(reader)

    async def chunked(self) -> None:
        async with self._open() as (reader, writer):
            writer.write(self._head(b"PUT", b"/", b"Transfer-Encoding: chunked\r\n"))
            for _ in range(5):
                writer.write(b"a\r\n0123456789\r\n")
                await asyncio.sleep(0.01)
            writer.write(b"0\r\n\r\n")
            await answer(reader)

    async def pipelined(self) -> None:
        async with self._open() as (reader, writer):
            writer.write(self._head(b"GET", b"/") * 4)
            for _ in range(4):
                await answer(reader)

    async def leaves(self) -> None:
        """In the middle of an answer, or before it."""
        async with self._open() as (reader, writer):
            writer.write(self._head(b"GET", self.rng.choice((b"/big", b"/slow", b"/stream"))))
            await asyncio.wait([asyncio.create_task(reader.read(1000))], timeout=self.rng.random() * 0.3)
            writer.transport.abort()

    async def leaves_in_body(self) -> None:
        async with self._open() as (_, writer):
            writer.write(self._head(b"POST", more=b"Content-Length: 100000\r\n") + b"b" * 5000)
            await asyncio.sleep(self.rng.random() * 0.2)
            writer.transport.abort()

    async def half_a_head(self) -> None:
        async with self._open() as (_, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: app\r\nX-Long: " + b"x" * self.rng.randrange(20_000))
            await asyncio.sleep(self.rng.random())

    async def nonsense(self) -> None:
        async with self._open() as (reader, writer):
            writer.write(self.rng.randbytes(40) + b"\r\n\r\n")
            await reader.read()

    async def slow_reader(self) -> None:
        async with self._open(limit=4096) as (reader, writer):
            writer.write(self._head(b"GET", b"/big"))
            for _ in range(10):
                await reader.read(4096)
                await asyncio.sleep(0.3)
            writer.transport.abort()

    async def tunnel(self) -> None:
        async with self._open() as (reader, writer):
            writer.write(self._head(b"GET", b"/tunnel", b"Connection: Upgrade\r\nUpgrade: echo\r\n"))
            await reader.readuntil(b"hello")
            writer.write(b"bytes")
            await reader.read()

    async def in_mesh(self) -> None:
        """An inbound request under way, and a call of the app that descends from it."""
        trace = b"traceparent: 00-%032x-%016x-01\r\n" % (
            self.rng.getrandbits(127) + 1,
            self.rng.getrandbits(63) + 1,
        )
        async with self._open() as (reader, writer), self._open(self.outbound) as (own_reader, own_writer):
            writer.write(self._head(b"GET", b"/slow", trace))
            own_writer.write(self._head(b"GET", b"/", trace))
            await answer(own_reader)
            await answer(reader)

    async def impatient(self) -> None:
        async with self._open() as (reader, writer):
            writer.write(
                self._head(b"GET", b"/slow", b"x-request-timeout-ms: %d\r\n" % self.rng.randrange(200))
            )
            await answer(reader)

    async def http2(self) -> None:
        """Some requests at once on one connection."""
        async with self._open() as (reader, writer):
            streams = http2.streams(self.rng.randrange(1, 8))
            writer.write(http2.requests({stream: self.rng.choice(TARGETS) for stream in streams}))
            await http2.answers(reader, writer, set(streams))

    async def http2_leaves(self) -> None:
        """One stream is reset, and a moment later the connection."""
        async with self._open() as (reader, writer):
            targets = (b"/slow", b"/big", b"/stream")
            writer.write(http2.requests(dict(zip(http2.streams(3), targets, strict=True))))
            await asyncio.wait([asyncio.create_task(reader.read(1000))], timeout=self.rng.random() * 0.2)
            writer.write(http2.reset(1))
            await asyncio.sleep(self.rng.random() * 0.1)
            writer.transport.abort()

    def _head(self, method: bytes, target: bytes | None = None, more: bytes = b"") -> bytes:
        target = target or self.rng.choice(TARGETS)
        number = self.rng.randrange(1000)
        return b"%b %b?n=%d HTTP/1.1\r\nHost: app\r\nX-Number: %d\r\n%b\r\n" % (
            method,
            target,
            number,
            number,
            more,
        )

    @contextlib.asynccontextmanager
    async def _open(self, port: int = 0, limit: int = 65_536):  # type: ignore[no-untyped-def]
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.inbound, limit=limit)
        try:
            yield reader, writer
        finally:
            writer.close()


async def answer(reader: asyncio.StreamReader) -> None:
    """Read one whole answer, framed by a length or by chunks."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"\r\ntransfer-encoding: chunked" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")
    elif b"\r\ncontent-length: " in head:
        await reader.readexactly(int(head.partition(b"\r\ncontent-length: ")[2].split(b"\r\n", 1)[0]))
