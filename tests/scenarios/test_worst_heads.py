"""No head within the limits makes anybody work for long: counted in calls, and by how the work grows."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from sidecar.config.load import load_text
from sidecar.core import (
    deadline,
    forwarded,
    headers,
    hosts,
    max_forwards,
    path,
    question,
    secrets,
    tracecontext,
)
from sidecar.core.chunked import ChunkedBody, MalformedChunk
from sidecar.core.deadline import Form
from sidecar.core.snapshot import DeadlinePolicy, Forwarded
from sidecar.core.tracecontext import IdSource
from sidecar.http1 import llhttp, parse
from sidecar.runtime.worker import Worker
from sidecar.upstream.framing import read_framing
from tests.support.heads_by_hand import HeadDriver
from tests.support.worst import FILE, HEADER, filled, heads, noise

MOST_CALLS = 16_000
"""Of functions, Python's own included, in one exchange: each takes some 0.1 µs. A plain GET makes 250 here."""
MOST_GROWTH = 3.0
"""Of the time, where the text is twice as long: 2 is linear, 4 quadratic."""
ATTEMPTS = 12


def calls(exchange: Callable[[], None]) -> int:
    count = 0

    def one(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(one)
    try:
        exchange()
    finally:
        sys.setprofile(None)
    return count


@asynccontextmanager
async def working(limits: str = "") -> AsyncIterator[Worker]:
    """`limits`: those of the first listener."""
    header = HEADER.replace("direction: inbound}", f"direction: inbound, limits: {{{limits}}}}}", 1)
    log = os.open(os.devnull, os.O_WRONLY)
    worker = Worker(load_text(header + FILE).snapshot, {}, log_fd=log, clock=asyncio.get_running_loop().time)
    await worker.start()
    try:
        yield worker
    finally:
        worker.service.exchanges.clear()
        await worker.stop()
        os.close(log)


@pytest.mark.parametrize("listener", ["mesh", "street"])
async def test_no_head_makes_many_calls(listener: str) -> None:
    async with working() as worker:
        driver = HeadDriver(worker, listener)
        for name, head in heads().items():
            count, status = driver.send(head, calls)
            assert status, name
            assert count < MOST_CALLS, name
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("limit", "head"),
    [
        ("options of Connection", b"Connection: " + b",".join([b"a"] * 33)),
        ("cookies", b"Cookie: " + b";".join([b"a=b"] * 257)),
        ("header fields", b"\r\n".join([b"a: b"] * 100)),
    ],
)
async def test_one_more_than_a_limit_allows_is_431(limit: str, head: bytes) -> None:
    async with working() as worker:
        driver = HeadDriver(worker, "mesh")
        for line, status in (
            (head, 431),
            (head[: max(head.rfind(one) for one in (b",", b";", b"\r\n"))], 200),
        ):
            request = b"GET / HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n"
            assert driver.send(request, calls)[1] == status, limit


async def test_limits_hold_for_a_head_that_is_no_longer_small() -> None:
    """Between the number of cookies that are allowed and that of parameters, where most traced heads lie."""
    async with working("headers: 90, parameters: 400, cookies: 20") as worker:
        driver = HeadDriver(worker, "mesh")
        traced = b"traceparent: 00-%032x-%016x-01\r\n" % (1, 1)
        for line, target, status in (
            (b"", b"/", 200),
            (b"", b"/?" + b"&" * 20, 200),
            (b"", b"/?" + b"&" * 400, 431),
            (b"Cookie: a" + b";" * 19 + b"\r\n", b"/", 200),
            (b"Cookie: a" + b";" * 20 + b"\r\n", b"/", 431),
            (b"".join(b"%d: \r\n" % number for number in range(10, 98)), b"/", 200),
            (b"".join(b"%d: \r\n" % number for number in range(10, 99)), b"/", 431),
        ):
            for _ in range(2):  # read, and read again as it is remembered
                head = b"GET %b HTTP/1.1\r\nHost: x\r\n%b%b\r\n" % (target, traced, line)
                assert driver.send(head, calls)[1] == status, head


@pytest.mark.parametrize("separator", [b"&", b";"])
async def test_one_parameter_more_than_the_limit_is_431(separator: bytes) -> None:
    async with working() as worker:
        driver = HeadDriver(worker, "mesh")
        for count, status in ((1025, 431), (1024, 200)):
            request = b"GET /?" + separator.join([b"a"] * count) + b" HTTP/1.1\r\nHost: x\r\n\r\n"
            assert driver.send(request, calls)[1] == status


async def test_limits_that_a_file_sets_hold_for_small_heads_too() -> None:
    async with working("parameters: 2, cookies: 2, connection_options: 1") as worker:
        driver = HeadDriver(worker, "mesh")
        for line, target, status in (
            (b"", b"/?a&b", 200), (b"", b"/?a&b&c", 431),
            (b"Cookie: a;b\r\n", b"/", 200), (b"Cookie: a;b;c\r\n", b"/", 431),
            (b"Connection: keep-alive\r\n", b"/", 200), (b"Connection: keep-alive, a\r\n", b"/", 431),
        ):  # fmt: skip
            head = b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (target, line)
            assert driver.send(head, calls)[1] == status, head


async def test_a_text_too_long_for_many_expressions_is_431() -> None:
    """Its worst order of letters would take 95 ms; a usual length is compared."""
    async with working() as worker:
        driver = HeadDriver(worker, "mesh")
        for size, status in ((60_000, 431), (60, 200)):
            head = b"GET / HTTP/1.1\r\nHost: x\r\nx-a: " + noise(b"ab", size) + b"c\r\n\r\n"
            assert driver.send(head, calls)[1] == status


# Each parser alone, by how its time grows

IDS = IdSource()
TRACEPARENT = b"00-%032x-%016x-01" % (7, 7)


def chunked(data: bytes) -> None:
    body, at = ChunkedBody(), 0
    with suppress(MalformedChunk):
        while not body.is_done and at < len(data):
            at = body.feed(data, at, 64)
            body.take()


def budget(name: bytes) -> Callable[[bytes], object]:
    policy = DeadlinePolicy()
    return lambda value: deadline.budget({name: value}, policy, 15.0, None)


def response(name: bytes) -> Callable[[bytes], object]:
    def read(value: bytes) -> None:
        with suppress(llhttp.MalformedHead):
            read_framing(200, "1.1", [(name, b"", value)], is_head_request=False)

    return read


def forwarded_after(name: bytes) -> Callable[[bytes], object]:
    peer = ("10.0.0.1", 1)
    return lambda value: forwarded.forwarded_lines(Forwarded.APPEND, {name: value}, peer, False, b"x")


def refused(read: Callable[[bytes], object]) -> Callable[[bytes], object]:
    def call(value: bytes) -> None:
        with suppress(parse.Refused):
            read(value)

    return call


COMMAS = (b"a,", b",", b" ,", b"a=b,", b"a;b=c,")
SPACES = (b" ", b"\t")
PARSERS: dict[str, tuple[Callable[[bytes], object], tuple[bytes, ...]]] = {
    "traceparent": (lambda value: tracecontext.read(value, None, IDS), (b"0", b"00-", b"-", *SPACES)),
    "tracestate": (lambda value: tracecontext.read(TRACEPARENT, value, IDS), (*COMMAS, *SPACES, b"a")),
    "baggage": (budget(b"baggage"), (*COMMAS, b"deadline-ms=1,", b"deadline-ms ", b",deadline-ms=,")),
    "baggage, written": (
        lambda value: deadline.with_baggage_deadline(value, 1.0), (b"deadline-ms=1,", b",deadline-ms ", *COMMAS),
    ),
    "grpc-timeout": (budget(b"grpc-timeout"), (b"1", b"1S,", *COMMAS, *SPACES)),
    "x-request-timeout-ms": (budget(b"x-request-timeout-ms"), (b"1", b"-1,", *COMMAS, *SPACES)),
    "l5d-timeout": (budget(b"l5d-timeout"), (b"1h", b"1.5ms,", b"0", *COMMAS, *SPACES)),
    "a timeout alone": (lambda value: deadline.parse_timeout(value, Form.DURATION), (b"1h", b"0", *SPACES)),
    "Forwarded": (forwarded_after(b"forwarded"), (*COMMAS, *SPACES, b'for="', b"\\a", b"for=a;")),
    "X-Forwarded-For": (forwarded_after(b"x-forwarded-for"), (*COMMAS, *SPACES)),
    "Max-Forwards": (lambda value: max_forwards.after_hop(b"TRACE", value), (b"1", b"0", b"1,")),
    "Connection": (headers.listed_in_connection, COMMAS),
    "Connection, for this hop": (lambda value: parse.keeps_alive({b"connection": value}, "1.1"), COMMAS),
    "Transfer-Encoding": (
        refused(lambda value: parse.check_framing({b"transfer-encoding": value}, "1.1")), COMMAS,
    ),
    "Transfer-Encoding, refused": (
        refused(lambda value: parse.check_known_coding(b"Transfer-Encoding: " + value)), COMMAS,
    ),
    "Content-Length": (refused(lambda value: parse.body_length({b"content-length": value})), (b"0", b"1")),
    "Upgrade": (lambda value: parse.tunnelled(value, "1.1"), (*COMMAS, b"h2c,")),
    "x-request-id": (headers.is_valid_request_id, (b"a", b"\xff")),
    "Host": (hosts.is_valid_host, (b"a.", b"1.", b"0:", b"~", b".")),
    "query": (question.parse_query, (b"%41&", b"&", b"+&", b"a=%41&", b"=", b"%")),
    "path": (path.unescape, (b"%41", b"%2f", b"%", b"%2")),
    "path, read eagerly": (path.other_reading, (b"/..", b"//", b"/;a", b";", b"\\", b"%2F", b"/.")),
    "path, its dots": (path.has_dot_segment, (b"/..", b"%2e", b"/;", b"\\")),
    "query, redacted": (secrets.redacted_query, (b"a=b&", b"a=b;", b"token=1&")),
    "chunk sizes": (chunked, (b"1\r\nx\r\n", b"1;a=b\r\nx\r\n")),
    "trailers": (lambda value: chunked(b"0\r\n" + value), (b"a: b\r\n",)),
    "Keep-Alive of an answer": (response(b"keep-alive"), (*COMMAS, *SPACES, b"timeout=1,")),
    "Connection of an answer": (response(b"connection"), COMMAS),
    "Content-Length of an answer": (response(b"content-length"), (b"0",)),
    "fields": (lambda value: llhttp.read_request_fields(b"GET / HTTP/1.1\r\n%b\r\n" % value), (b"a: b\r\n",)),
}  # fmt: skip


BEGINS = {
    "one long value": b"GET / HTTP/1.1\r\nx: " + b"a" * 60_000,
    "many fields": b"GET / HTTP/1.1\r\n" + b"".join(b"x-%d: %b\r\n" % (n, b"a" * 460) for n in range(99)),
    "one long target": b"GET /" + b"a" * 16_000,
}


@pytest.mark.parametrize("name", BEGINS)
async def test_a_head_byte_by_byte_costs_each_byte_the_same(name: str) -> None:
    """What was looked at is not looked at again: the second half of the bytes takes no longer than the first."""
    async with working() as worker:
        driver, begin = HeadDriver(worker, "mesh"), BEGINS[name]
        for _ in range(ATTEMPTS):
            first, second = await asyncio.sleep(0, driver.halves(begin))
            if second < MOST_GROWTH * first:
                return
    pytest.fail(f"{second / first:.1f} times as long")


@pytest.mark.parametrize("name", PARSERS)
def test_the_time_of_a_parser_grows_no_faster_than_its_text(name: str) -> None:
    parser, pieces = PARSERS[name]
    for piece in pieces:
        assert any(growth(parser, piece) < MOST_GROWTH for _ in range(ATTEMPTS)), piece


def growth(parser: Callable[[bytes], object], piece: bytes) -> float:
    """How many times longer the double text takes; texts of some are refused after a first look, and say nothing."""
    short, long = filled(piece, 100_000), filled(piece, 200_000)
    one = best(parser, short)
    return best(parser, long) / max(one, 20_000)


def best(parser: Callable[[bytes], object], text: bytes) -> int:
    """Nanoseconds of CPU."""
    found = []
    for _ in range(3):
        before = time.process_time_ns()
        parser(text)
        found.append(time.process_time_ns() - before)
    return min(found)
