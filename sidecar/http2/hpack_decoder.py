"""Header blocks → fields in the form that the forwarding has, and the dynamic table of one direction (RFC 7541).

An entry of the table *is* a field, so an index costs one look-up. Names and values are checked once, when they come
as literals (RFC 9113 8.2.1). A malformed one still enters the table, since the next block counts on it: its line is
empty, as a pseudo-field's is, and `is_clean` says that the block, or the table, has such.
"""

from __future__ import annotations

from typing import Final

from sidecar.core.plain import TOKEN_BYTES, VALUE_BYTES, Field
from sidecar.http2 import huffman
from sidecar.http2.hpack import ENTRY_BYTES, TABLE_BYTES, MalformedBlock, read_integer
from sidecar.http2.huffman import MalformedHuffman
from sidecar.http2.static_table import STATIC

PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol", b":status"})
MAX_NAMES: Final = 256
"""Names that are remembered as read, with their check; when they are so many, all are forgotten."""
MAX_NAME_BYTES: Final = 64
"""A longer one is not remembered."""

_NAME_BYTES: Final = bytes(byte for byte in TOKEN_BYTES if not 0x41 <= byte <= 0x5A)
_AS_VALUE: Final = bytes(byte if byte in VALUE_BYTES else byte ^ 1 for byte in range(256))
"""Translates bytes that a value may have to themselves, and all others to something else."""
_NONE: Final[frozenset[bytes]] = frozenset()


def make_field(key: bytes, value: bytes) -> Field:
    """The field; with an empty line if it is a pseudo-field or malformed."""
    if is_value(value) and is_name(key):
        return key, b"".join((key, b": ", value, b"\r\n")), value
    return key, b"", value


def is_name(key: bytes) -> bool:
    """A token in lower case (RFC 9113 8.2.1)."""
    return bool(key) and not key.translate(None, _NAME_BYTES)


def is_value(value: bytes) -> bool:
    """Without control characters, and without a space at either end."""
    return value.isalnum() or value.translate(_AS_VALUE) == value == value.strip(b" \t")


_START: Final[list[Field]] = [(b"", b"", b""), *(make_field(key, value) for key, value in STATIC)]
_FIRST: Final = len(_START)
"""The index of the newest dynamic entry."""
MAX_FIELDS: Final = 4096
"""In one block; 64 KiB of a list have 2,048 at most. What is longer is not read to its end, which ends its connection
(RFC 9113 4.3): 144 KiB of nothing but indices would take a loop 20 ms, and each is only answered by a 431."""


class HpackDecoder:
    """One for each connection. After MalformedBlock it is of no use any more."""

    __slots__ = (
        "_entries",
        "_is_table_clean",
        "_max_bytes",
        "_names",
        "is_clean",
        "is_update_due",
        "limit",
        "never_indexed",
        "table_bytes",
        "version",
    )  # fmt: skip

    def __init__(self, limit: int = TABLE_BYTES) -> None:
        self.limit = limit
        """What the peer may let its table grow to, in bytes: our HEADER_TABLE_SIZE."""
        self._max_bytes = limit
        """What it lets it grow to."""
        self._entries = _START.copy()
        """By index: the static ones, then the dynamic ones, newest first."""
        self.table_bytes = 0
        self._is_table_clean = True
        self._names: dict[bytes, bytes] = {}
        """Well-formed names that came as literals, by their form on the wire."""
        self.is_clean = True
        """No field of the last block is malformed."""
        self.never_indexed = _NONE
        """Keys of the last block's fields that no hop may index."""
        self.version = 0
        """Changes with the table: the same block means the same as long as this is the same."""
        self.is_update_due = False
        """The next block has to begin with a smaller size."""

    def set_limit(self, limit: int) -> None:
        """The peer has acknowledged our HEADER_TABLE_SIZE."""
        self.limit = limit
        self.is_update_due = limit < self._max_bytes

    def decode(self, block: bytes) -> list[Field]:
        """All fields, pseudo-fields among them, in order. Raises: MalformedBlock."""
        self.is_clean = self._is_table_clean
        self.never_indexed = _NONE
        entries = self._entries
        count = len(entries)
        fields: list[Field] = []
        never_indexed: list[bytes] = []
        position = 0
        end = len(block)
        try:
            if end and (block[0] & 0xE0 == 0x20 or self.is_update_due):
                position = self._update_size(block)
                count = len(entries)
            stop = min(end, MAX_FIELDS)  # a field takes a byte at least: to look here is enough
            while position < end:
                while position < stop:
                    byte = block[position]
                    position += 1
                    if byte >= 0x80:
                        index = byte & 0x7F
                        if index == 0x7F:
                            index, position = read_integer(block, position, 0x7F)
                        if not 0 < index < count:
                            raise MalformedBlock(f"header index {index} is not in the table")
                        fields.append(entries[index])
                        continue
                    if byte >= 0x40:
                        index = byte & 0x3F
                        if index == 0x3F:
                            index, position = read_integer(block, position, 0x3F)
                    elif byte >= 0x20:
                        raise MalformedBlock("a change of the table's size in the middle of a header block")
                    else:
                        index = byte & 0x0F
                        if index == 0x0F:
                            index, position = read_integer(block, position, 0x0F)
                    if index:
                        if index >= count:
                            raise MalformedBlock(f"header index {index} is not in the table")
                        key = entries[index][0]
                    else:
                        key, position = self._read_name(block, position)
                    start = position + 1
                    size = block[position]
                    if size & 0x7F == 0x7F:
                        size_left, start = read_integer(block, start, 0x7F)
                    else:
                        size_left = size & 0x7F
                    position = start + size_left
                    if position > end:
                        raise MalformedBlock("a string is longer than its header block")
                    value = block[start:position]
                    if size >= 0x80:
                        value = huffman.decode(value)
                    if (value.isalnum() or value.translate(_AS_VALUE) == value == value.strip(b" \t")) and (
                        not key.translate(None, _NAME_BYTES) and key
                    ):
                        field = key, key + b": " + value + b"\r\n", value
                    else:
                        field = key, b"", value
                        if key not in PSEUDO:
                            self.is_clean = False
                    fields.append(field)
                    if byte >= 0x40:
                        self._insert(field)
                        count = len(entries)
                    elif byte >= 0x10:
                        never_indexed.append(key)
                if position < end:
                    room = MAX_FIELDS - len(fields)
                    if room <= 0:
                        raise MalformedBlock(f"more than {MAX_FIELDS} fields in a header block")
                    stop = min(end, position + room)
        except IndexError:
            raise MalformedBlock("a header block ends in the middle of a field") from None
        except MalformedHuffman as error:
            raise MalformedBlock(str(error)) from None
        if never_indexed:
            self.never_indexed = frozenset(never_indexed)
        return fields

    def _read_name(self, block: bytes, position: int) -> tuple[bytes, int]:
        start = position + 1
        size = block[position]
        if size & 0x7F == 0x7F:
            left, start = read_integer(block, start, 0x7F)
        else:
            left = size & 0x7F
        end = start + left
        if end > len(block):
            raise MalformedBlock("a string is longer than its header block")
        raw = block[position:end]
        key = self._names.get(raw)
        if key is None:
            key = huffman.decode(block[start:end]) if size >= 0x80 else block[start:end]
            if len(raw) <= MAX_NAME_BYTES and is_name(key):
                if len(self._names) >= MAX_NAMES:
                    self._names.clear()
                self._names[raw] = key
        return key, end

    def _insert(self, field: Field) -> None:
        """Put it in front; entries at the end go until it fits, all of them if it never does (RFC 7541 4.4)."""
        self.version += 1
        key, line, value = field
        size = len(key) + len(value) + ENTRY_BYTES
        self._evict(self._max_bytes - size)
        if size <= self._max_bytes:
            self._entries.insert(_FIRST, field)
            self.table_bytes += size
            if not line and key not in PSEUDO:
                self._is_table_clean = False

    def _evict(self, allowed: int) -> None:
        entries = self._entries
        while self.table_bytes > allowed and len(entries) > _FIRST:
            key, _, value = entries.pop()
            self.table_bytes -= len(key) + len(value) + ENTRY_BYTES

    def _update_size(self, block: bytes) -> int:
        """Read the changes of size that a block may begin with (RFC 7541 4.2), and return where they end."""
        position = 0
        while position < len(block) and block[position] & 0xE0 == 0x20:
            size = block[position] & 0x1F
            position += 1
            if size == 0x1F:
                size, position = read_integer(block, position, 0x1F)
            if size > self.limit:
                raise MalformedBlock(f"a table of {size} bytes, where at most {self.limit} are allowed")
            self.version += 1
            self._max_bytes = size
            self._evict(size)
            self.is_update_due = False
        if self.is_update_due:
            raise MalformedBlock("the table did not become smaller, though HEADER_TABLE_SIZE did")
        return position
