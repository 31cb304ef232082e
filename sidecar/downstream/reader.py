"""Reads with llhttp every request that is not plain (`core/plain.py`): in pieces, chunked, old, odd or malformed.

Decides what is a well-framed request and how large a head may be. It knows nothing of answers and routes: it tells
its `Hearer`, the connection that owns it, of a head, of body bytes and of the end. Once llhttp has begun a request,
it must be fed all of it (`is_in_message`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import httptools

from sidecar.core.errors import Reason
from sidecar.core.plain import Field
from sidecar.downstream import parse

if TYPE_CHECKING:
    from sidecar.downstream.listener import ListenerSocket


class Hearer(Protocol):
    """Who hears of requests, in the order of their bytes."""

    def head_read(self) -> None:
        """The reader holds a whole head now. Raises: Refused."""

    def body_read(self, data: bytes) -> None: ...
    def message_read(self, trailers: list[Field]) -> None: ...


class RequestReader:
    """One connection's llhttp, and the head that it reads."""

    __slots__ = (
        "_framing_behind_upgrade", "_hearer", "_is_past_head", "_listener", "_parser", "_read_bytes", "_trailers",
        "fields", "head_bytes", "head_started", "is_in_head", "is_in_message", "lookup", "url",
    )  # fmt: skip

    def __init__(self, hearer: Hearer, listener: ListenerSocket) -> None:
        self._hearer = hearer
        self._listener = listener
        self._parser: Any = httptools.HttpRequestParser(self)
        self._framing_behind_upgrade: bytes | None = None
        self._is_past_head = True
        self._read_bytes = 0
        self.head_started = 0.0
        """When the head that is being read began, to about a second."""
        self.is_in_message = False
        self._begin_head()

    def _begin_head(self) -> None:
        self.url = b""
        self.fields: list[Field] = []
        self.lookup: dict[bytes, bytes] = {}
        """Values by key; those of fields that came more than once, joined (RFC 9110 5.3)."""
        self._trailers: list[Field] = []
        self.is_in_head = False
        self.head_bytes = 0
        """Since the request began or its body last moved: chunk extensions and trailers count as well."""

    def feed(self, data: bytes) -> bytes | None:
        """Read on. Returns what stands behind a request that asks for an upgrade, None where none ends here.

        Raises:
            Refused: nothing from here on can be trusted.
        """
        if not self.head_bytes:
            self.head_started = self._listener.now
        self._read_bytes = len(data)
        self.head_bytes += self._read_bytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._behind_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, parse.Refused):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError as error:
            raise parse.bad_request(str(error)) from None
        if not self.is_in_message:
            self.head_bytes = 0  # an empty line between requests begins none (RFC 9112 2.2)
        elif self.head_bytes > self._listener.limits.head_bytes:
            raise self._too_large()
        return None

    # What may be asked while a head is heard

    @property
    def method(self) -> bytes:
        method: bytes = self._parser.get_method()
        return method

    @property
    def version(self) -> str:
        version: str = self._parser.get_http_version()
        return version

    @property
    def keeps_alive(self) -> bool:
        return bool(self._parser.should_keep_alive())

    @property
    def asks_for_upgrade(self) -> bool:
        return bool(self._parser.should_upgrade())

    def check_limits(self) -> None:
        """Raises: Refused, if the head is larger than the listener allows."""
        small = self._listener.small_head_bytes
        if self.head_bytes <= small and self._read_bytes <= small:
            return
        size = sum(len(line) for _, line, _ in self.fields) + len(self.url)
        if self._listener.is_too_large(size, self.url, self.fields):
            raise self._too_large()

    def _too_large(self) -> parse.Refused:
        limits = self._listener.limits
        if len(self.url) > limits.url_bytes:
            return parse.Refused(Reason.URL_TOO_LONG, f"the target is longer than {limits.url_bytes} bytes")
        if len(self.fields) > limits.headers:
            return parse.Refused(Reason.HEAD_TOO_LARGE, f"more than {limits.headers} header fields")
        return parse.Refused(Reason.HEAD_TOO_LARGE, f"the head is larger than {limits.head_bytes} bytes")

    # Upgrades

    def read_body_behind_upgrade(self, *, is_chunked: bool) -> None:
        """The upgrade that the head asks for is ignored, since a body follows."""
        self._framing_behind_upgrade = parse.framing_head(self.lookup, is_chunked=is_chunked)

    def _behind_upgrade(self, rest: bytes) -> bytes | None:
        """llhttp stops behind a request that asks for an upgrade.

        It takes the body of such a request for the other protocol's. So where the upgrade is ignored, a fresh parser
        is first fed a head with the same framing, which nobody hears, and reads the body as any other.
        """
        framing, self._framing_behind_upgrade = self._framing_behind_upgrade, None
        self._parser = httptools.HttpRequestParser(self)
        if framing is None:
            return rest
        self._is_past_head = False
        self._parser.feed_data(framing)
        return self.feed(rest) if rest else None

    # What llhttp says

    def on_message_begin(self) -> None:
        self.is_in_message = True

    def on_url(self, url: bytes) -> None:
        if self._is_past_head:
            self.is_in_head = True
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_past_head:
            return
        key = name.lower()
        value = value.rstrip(b" \t")  # llhttp leaves what RFC 9112 5.1 does not count as part of the value
        field = (key, b"%b: %b\r\n" % (name, value), value)
        if not self.is_in_head:
            self._trailers.append(field)
            if len(self._trailers) > self._listener.limits.headers:
                raise parse.Refused(Reason.HEAD_TOO_LARGE, "too many trailer fields")
            return
        lookup = self.lookup
        lookup[key] = lookup[key] + b", " + value if key in lookup else value
        self.fields.append(field)

    def on_headers_complete(self) -> None:
        self.is_in_head = False
        if self._is_past_head:
            self._hearer.head_read()
        self._is_past_head = True

    def on_body(self, data: bytes) -> None:
        self.head_bytes = 0
        self._hearer.body_read(data)

    def on_message_complete(self) -> None:
        if self._framing_behind_upgrade is not None:
            return  # the body is yet to come
        self.is_in_message = False
        self._hearer.message_read(self._trailers)
        self._begin_head()
