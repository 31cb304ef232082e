"""Writes OTLP spans in protobuf's wire format (opentelemetry/proto/trace/v1/trace.proto), from bytes to
bytes.

The SDK's `ReadableSpan` and its encoder cost 37 µs a span, these functions 2.4, which is what makes sampling
every exchange affordable. What is before a value depends on the attribute's name and the value's size alone,
so it is encoded once for each pair and cached. Text must be valid UTF-8: a receiver refuses the whole batch
otherwise, so `text` cleans it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache, partial
from math import floor
from typing import TypeVar

from sidecar.core.protobuf import LENGTHS as _LENGTHS
from sidecar.core.protobuf import field, varint

K = TypeVar("K", bound=Hashable)

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Span kinds."""
ERROR = 2
"""Status code."""

_SAMPLED, _HAS_IS_REMOTE, _IS_REMOTE = 0x01, 0x100, 0x200
_MOST = 1024
"""Values, or lengths of values, that are known of one attribute."""
_IDS = struct.Struct("<2s16s2s8s").pack  # trace_id, span_id
TIMES = struct.Struct("<BQBQ").pack
"""The fields of a span's start (0x39) and end (0x41), in nanoseconds."""


class Memo(dict[K, bytes]):
    """What `make` makes of each key, kept for up to `most` of them: then it begins anew.

    For what is asked for with each span: `lru_cache` takes five times as long to ask.
    """

    def __init__(self, make: Callable[[K], bytes], most: int = _MOST) -> None:
        super().__init__()
        self._make = make
        self._most = most

    def __missing__(self, key: K) -> bytes:
        if len(self) >= self._most:
            self.clear()
        made = self[key] = self._make(key)
        return made


_FRAMES = Memo[int](lambda size: b"\x12" + varint(size), 2048)
"""What is before a span of so many bytes, in `ScopeSpans`. As a table it would take 90 KiB without a single span."""


@lru_cache(maxsize=1024)
def key(name: str) -> bytes:
    """The name of an attribute, encoded. Keep it where an attribute is written for each exchange."""
    return field(b"\x0a", name.encode())


def text(name: str, value: bytes) -> bytes:
    """A span attribute with a string value."""
    value = clean(value)
    return _before(key(name), len(value)) + value


@lru_cache(maxsize=1024)
def _before(name: bytes, size: int) -> bytes:
    """All of a string attribute that is before its value."""
    inner = b"\x0a" + varint(size)
    outer = name + b"\x12" + varint(len(inner) + size) + inner
    return b"\x4a" + varint(len(outer) + size) + outer


def before_text(name: str) -> Memo[int]:
    """By the length of its value, all of a string attribute that is before it: a call less for each. The value has to
    be `clean`."""
    return Memo(partial(_before, key(name)))


def clean(value: bytes) -> bytes:
    """As valid UTF-8."""
    return value if value.isascii() else value.decode("utf-8", "replace").encode()


def number(name: str, value: int) -> bytes:
    """A span attribute with an integer value."""
    return number_of(key(name), value)


def number_of(name: bytes, value: int) -> bytes:
    """The same with an encoded name."""
    digits = _LENGTHS[value] if 0 <= value < 2048 else varint(value)
    size = len(digits) + 1
    return b"\x4a%c%b\x12%c\x18%b" % (len(name) + size + 2, name, size, digits)


def numbers(name: str) -> Memo[int]:
    """An integer attribute by its value. Durations and budgets in milliseconds are much the same."""
    return Memo(partial(number_of, key(name)))


_FRACTION = struct.Struct("<d").pack


def seconds(name: str, value: float) -> bytes:
    """A span attribute with a fraction for its value: a duration, to the microsecond."""
    return before_seconds(name) + fraction(value)


def before_seconds(name: str) -> bytes:
    """All of such an attribute that is before its `fraction`."""
    encoded = key(name)
    return b"\x4a%c%b\x12\x09\x21" % (len(encoded) + 11, encoded)


def fraction(seconds: float) -> bytes:
    """To the microsecond. By way of an integer, as `round` goes by way of a text and takes four times as long."""
    return _FRACTION(floor(seconds * 1e6 + 0.5) / 1e6)


def flag(name: str, *, value: bool) -> bytes:
    """A span attribute with a boolean value."""
    return field(b"\x4a", key(name) + field(b"\x12", b"\x10" + (b"\x01" if value else b"\x00")))


def name_and_kind(name: str, kind: int) -> bytes:
    return field(b"\x2a", name.encode()) + b"\x30" + bytes((kind,))


def status(code: int, message: bytes = b"") -> bytes:
    if not message.isascii():
        message = message.decode("utf-8", "replace").encode()
    return field(b"\x7a", (field(b"\x12", message) if message else b"") + b"\x18" + bytes((code,)))


def flags(*, is_remote: bool) -> bytes:
    """The flags of a sampled span, with whether its parent is in another process."""
    return b"\x85\x01" + (_SAMPLED | _HAS_IS_REMOTE | (_IS_REMOTE if is_remote else 0)).to_bytes(4, "little")


def span(
    trace_id: bytes, span_id: bytes, parent_id: bytes, start_ns: int, end_ns: int, rest: Iterable[bytes]
) -> bytes:
    """One span as a field of `ScopeSpans`. Ids are raw; an empty `parent_id` makes a root.

    `rest` holds the other fields, in any order; `flags` must be among them.
    """
    ids = _IDS(b"\x0a\x10", trace_id, b"\x12\x08", span_id)
    parent = b"\x22\x08" + parent_id if parent_id else b""
    return framed(b"".join((ids, parent, TIMES(0x39, start_ns, 0x41, end_ns), *rest)))


def framed(payload: bytes) -> bytes:
    """The same of all its fields in one."""
    return _FRAMES[len(payload)] + payload


def request(resource: bytes, scope: bytes, spans: Sequence[bytes], schema_url: bytes = b"") -> bytes:
    """An `ExportTraceServiceRequest` of encoded parts."""
    of_resource, of_scope = field(b"\x0a", resource), field(b"\x0a", scope)
    if schema_url:
        of_scope += field(b"\x1a", schema_url)
    size = len(of_scope) + sum(map(len, spans))
    head = b"".join((of_resource, b"\x12", varint(size), of_scope))
    whole = len(head) - len(of_scope) + size
    return b"".join((b"\x0a", varint(whole), head, *spans))  # one copy of what may be a megabyte


def event(name: str, at_ns: int, attributes: Sequence[bytes]) -> bytes:
    """An event; `attributes` as `text` and `number` make them."""
    renumbered = b"".join(b"\x1a" + attribute[1:] for attribute in attributes)
    return field(b"\x5a", b"\x09" + struct.pack("<Q", at_ns) + field(b"\x12", name.encode()) + renumbered)


def link(
    trace_id: bytes,
    span_id: bytes,
    attributes: Sequence[bytes] = (),
    *,
    is_remote: bool = False,
    is_sampled: bool = False,
) -> bytes:
    """A link to another span; ids are raw. `is_sampled`: it is recorded, as far as anybody here knows."""
    renumbered = b"".join(b"\x22" + attribute[1:] for attribute in attributes)
    bits = _HAS_IS_REMOTE | (_IS_REMOTE if is_remote else 0) | (_SAMPLED if is_sampled else 0)
    ids = _IDS(b"\x0a\x10", trace_id, b"\x12\x08", span_id)
    return field(b"\x6a", ids + renumbered + b"\x35" + bits.to_bytes(4, "little"))


def trace_state(value: bytes) -> bytes:
    return field(b"\x1a", value) if value and value.isascii() else b""
