"""Heads of requests and of responses: plain reader, cold plain reader, llhttp, and the same in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple
from typing import Any, Final

from sidecar.core import plain
from sidecar.core.snapshot import ListenerLimits
from sidecar.downstream import reader
from sidecar.downstream.terms import ListenerTerms
from sidecar.http1 import llhttp
from sidecar.http1.llhttp import HEAD_END, MalformedHead
from sidecar.http1.parse import Refused
from sidecar.http1.unfinished import UnfinishedHead
from sidecar.upstream.framing import read_framing
from tests.bench.fuzz import memories
from tests.bench.fuzz.pieces import BETWEEN, cuttings, messages
from tests.bench.fuzz.seeds import request_seeds, response_seeds
from tests.bench.fuzz.targets import Target, same
from tests.bench.fuzz.words import HTTP_WORDS
from tests.core.test_plain import agrees_on_request, agrees_on_response
from tests.support.terms import HandTerms

LIMITS: Final = ListenerLimits(head_bytes=700, headers=16, url_bytes=200)


TERMS: Final = HandTerms(LIMITS, small_head_bytes=64)
STRANGERS: Final = HandTerms(LIMITS, small_head_bytes=64, is_trusted=False)


def request_heads(data: bytes) -> None:
    """Each message is a request's head; what the earlier ones taught must change nothing."""
    memories.forget()
    for message in messages(data):
        found = plain.read_request(message)
        same("a request by a reader that has learned", memories.cold().read_request(message), found)
        if found is not None:
            agrees_on_request(message, found)
        _read_with_llhttp(message, found)


def _read_with_llhttp(message: bytes, found: plain.PlainRequest | None) -> None:
    end = message.find(HEAD_END)
    whole: Any = None
    if end >= 0:
        head = message[: end + len(HEAD_END)]
        whole = _request(TERMS, head)
        if found is not None and whole[0] == "request":
            same("a plain head by llhttp", (found[0], found[1], found[2], found[3]), whole[1:5])
        _request(STRANGERS, head)
    if message[:2] == b"\r\n" or message == b"\r":
        return  # empty lines in front are taken away by the connection
    for pieces in cuttings(message):
        same("a request's head in pieces", whole[0] if whole else None, _request_in_pieces(pieces))


def _request(terms: ListenerTerms, head: bytes) -> tuple[Any, ...]:
    try:
        request, keeps = reader.read_request(terms, head)
    except Refused as refused:
        return ("refused", refused.reason)
    traits = astuple(request.traits)
    return (
        "request", request.method, request.target, request.fields, request.lookup, request.host, request.length,
        traits, keeps,
    )  # fmt: skip


def _request_in_pieces(pieces: list[bytes]) -> str | None:
    """As a client's connection reads it; None if it is not whole at the end."""
    unfinished = UnfinishedHead(is_request=True)
    for piece in pieces:
        try:
            used = unfinished.add(piece)
            if used is None:
                reader.check_unfinished(TERMS, unfinished)
                continue
        except (MalformedHead, Refused):
            return "refused" if HEAD_END in b"".join(pieces) else None
        return str(_request(TERMS, unfinished.whole())[0])
    return None


def response_heads(data: bytes) -> None:
    """Each message is a response's head; what the earlier ones taught must change nothing."""
    memories.forget()
    for message in messages(data):
        found = plain.read_response(message)
        same("a response by a reader that has learned", memories.cold().read_response(message), found)
        if found is not None:
            agrees_on_response(message, found)
        end = message.find(HEAD_END)
        head = message[: end + len(HEAD_END)]
        whole = _response(head) if end >= 0 else None
        if found is not None:
            assert whole is not None
            same("a plain head by llhttp", ("response", found[0], "1.1", found[1]), whole[:4])
            same("the length of a plain body", found[2], whole[4][1])
        for pieces in cuttings(message):
            same("a response's head in pieces", whole, _response_in_pieces(pieces))


def _response(head: bytes) -> tuple[Any, ...]:
    try:
        status, version, fields = llhttp.read_response(head)
        framing = read_framing(status, version, fields, is_head_request=False)
    except MalformedHead:
        return ("malformed",)
    return ("response", status, version, fields, framing)


def _response_in_pieces(pieces: list[bytes]) -> tuple[Any, ...] | None:
    unfinished = UnfinishedHead(is_request=False)
    for piece in pieces:
        try:
            if unfinished.add(piece) is None:
                continue
        except MalformedHead:
            return ("malformed",) if HEAD_END in b"".join(pieces) else None
        return _response(unfinished.whole())
    return None


def _pairs(seeds: Iterator[bytes]) -> Iterator[bytes]:
    """Each alone, and twice with another one between: a memory shows when something comes again."""
    before = b""
    for seed in seeds:
        yield seed
        yield BETWEEN.join((seed, before, seed))
        before = seed


TARGETS: Final = [
    Target("request_heads", request_heads, lambda: _pairs(request_seeds()), (*HTTP_WORDS, BETWEEN), share=3),
    Target(
        "response_heads", response_heads, lambda: _pairs(response_seeds()), (*HTTP_WORDS, BETWEEN), share=2
    ),
]
