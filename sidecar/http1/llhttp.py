"""Reads with llhttp (strict) every head that is not plain (`core/plain.py`): old, odd or malformed.

A whole head goes in, fields come out. Bodies are not read here: where a message ends must be known to the byte, and
llhttp reads on. While a head is still in pieces, `Scout` lets llhttp look at them, so that what can never become a
head is refused at once; it keeps nothing of them.
"""

from __future__ import annotations

from typing import Any, Final

import httptools

from sidecar.core.plain import Field

HEAD_END: Final = b"\r\n\r\n"
RESPONSE_BEGINS: Final = (b"HTTP/", b"\r\nHTTP/")
"""One empty line in front is read past (RFC 9112 2.2); llhttp would read past any number of CR and LF."""


class MalformedHead(Exception):
    """No head, or one that could be read in two ways; the text says what is wrong with it."""


class _Collector:
    """What llhttp calls for each field of one head."""

    __slots__ = ("fields", "is_whole")

    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.is_whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        value = value.rstrip(b" \t")  # llhttp leaves what RFC 9112 5.1 does not count as part of the value
        self.fields.append((name.lower(), b"%b: %b\r\n" % (name, value), value))

    def on_headers_complete(self) -> None:
        self.is_whole = True


class _Ears:
    """Nothing is kept of what a scout reads."""


def read_request_fields(head: bytes) -> list[Field]:
    """The fields of a whole request head. Raises: MalformedHead."""
    collector = _Collector()
    _feed(httptools.HttpRequestParser(collector), head)
    if not collector.is_whole:
        raise MalformedHead("the head ends where it should not")
    return collector.fields


def read_response(head: bytes) -> tuple[int, str, list[Field]]:
    """Status, version and fields of a whole response head. Raises: MalformedHead."""
    if not head.startswith(RESPONSE_BEGINS):
        raise MalformedHead("Expected HTTP/")
    collector = _Collector()
    parser: Any = httptools.HttpResponseParser(collector)
    _feed(parser, head)
    if not collector.is_whole:
        raise MalformedHead("the head ends where it should not")
    return parser.get_status_code(), parser.get_http_version(), collector.fields


class Scout:
    """Looks at a head that is still in pieces."""

    __slots__ = ("_parser",)

    def __init__(self, *, is_request: bool) -> None:
        ears = _Ears()
        self._parser: Any = (
            httptools.HttpRequestParser(ears) if is_request else httptools.HttpResponseParser(ears)
        )

    def look(self, piece: bytes) -> None:
        """The next piece, up to the head's end at most. Raises: MalformedHead."""
        _feed(self._parser, piece)


def _feed(parser: Any, data: bytes) -> None:
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # the head is whole, and asks for an upgrade
    except httptools.HttpParserError as error:
        raise MalformedHead(str(error)) from None
