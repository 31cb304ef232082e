"""Chunked bodies: whole against pieces and against few chunks a turn, and against llhttp."""

from __future__ import annotations

from typing import Final

import httptools

from tests.bench.fuzz import memories
from tests.bench.fuzz.pieces import cuttings
from tests.bench.fuzz.seeds import request_seeds, response_seeds
from tests.bench.fuzz.targets import Target, same
from tests.bench.fuzz.words import CHUNK_WORDS
from tests.core.test_chunked import PARSERS, heard, outcome

_MALFORMED: Final = ("malformed",)


def chunked(data: bytes) -> None:
    memories.forget()
    whole = outcome([data])
    same("a body, chunk by chunk", whole, outcome([data], 1))
    for pieces in cuttings(data):
        same("a body in pieces", whole, outcome(pieces))
    if whole == _MALFORMED:
        return
    body, trailers, is_done, taken = whole
    if not is_done:
        return
    for kind, head in PARSERS:
        try:
            read = heard(kind, head, data[:taken])  # type: ignore[index]  # it is a number
        except httptools.HttpParserError as error:
            raise AssertionError(f"llhttp refuses what was read: {error}") from error
        same("the body by llhttp", (body, trailers, True), (read.body, read.trailers, read.is_whole))


def _seeds() -> list[bytes]:
    found = [
        data.partition(b"\r\n\r\n")[2] for data in (*request_seeds(), *response_seeds()) if b"hunked" in data
    ]
    return [
        b"1\r\nx\r\n0\r\n\r\n",
        b'3;a="b"\r\nabc\r\n0;c\r\nX-Sum: 1\r\n\r\nGET',
        *(body for body in found if body),
    ]


TARGETS: Final = [Target("chunked", chunked, _seeds, CHUNK_WORDS, share=2)]
