"""Messages to begin with: the corpora of the tests, manifests and configurations among them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench.fuzz.pieces import BETWEEN
from tests.scenarios.corpus import requests_connection, requests_framing, requests_head, responses

TESTS: Final = Path(__file__).parents[2]
MAX_SEED_BYTES: Final = 1500
"""Longer ones are cases of limits, which tests hold to the byte."""

PLAIN_REQUESTS: Final = (
    b"GET /a?b=c HTTP/1.1\r\nHost: app\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: app\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\nCookie: a=b\r\n"
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX-A: b\r\n\r\n",
    b"POST /a HTTP/1.1\r\nhost: app\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    b"PUT /a HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-T: 1\r\n\r\n",
    b"GET /1 HTTP/1.1\r\nHost: app\r\n\r\nGET /2 HTTP/1.1\r\nHost: app\r\n\r\n",
)
PLAIN_RESPONSES: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: a\r\n\r\nok",
    b"HTTP/1.1 404 Not Found\r\nServer: a\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\n\r\nuntil it closes",
)


def request_seeds() -> Iterator[bytes]:
    yield from PLAIN_REQUESTS
    yield BETWEEN.join((PLAIN_REQUESTS[1],) * 4)  # the last ones are read by what the first ones taught
    for case in (*requests_head.CASES, *requests_framing.CASES, *requests_connection.CASES):
        if len(case.data) <= MAX_SEED_BYTES:
            yield case.data


def response_seeds() -> Iterator[bytes]:
    yield from PLAIN_RESPONSES
    for case in responses.CASES:
        if len(data := b"".join(case.parts)) <= MAX_SEED_BYTES:
            yield data


def files(folder: str, pattern: str = "*.yaml", max_bytes: int = 3000) -> Iterator[bytes]:
    """The content of the tests' own files, those that are not too long."""
    for path in sorted((TESTS / folder).glob(pattern)):
        if len(data := path.read_bytes()) <= max_bytes:
            yield data
