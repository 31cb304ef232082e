"""Fields → header blocks, and our dynamic table of one direction (RFC 7541).

An entry that is in the table stays, so its index moves only when another one enters, and from then on each field
costs one look-up. What enters is of few names (`hpack.INDEXED`), few values of each, and small. Strings are written
as they are: Huffman's code costs more than it saves between neighbours.

Fields that are remembered as a `Block`, and lines that many heads share, are remembered once more as they are
written, until another entry enters the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.core.block import Block
from sidecar.core.head import NOTHING, Added, Own, own_pairs
from sidecar.core.headers import HOP_BY_HOP
from sidecar.core.plain import Field
from sidecar.http2.hpack import (
    ALWAYS_NEVER_INDEXED,
    ENTRY_BYTES,
    INDEXED,
    LENGTHS,
    TABLE_BYTES,
    write_integer,
    write_string,
)
from sidecar.http2.layouts import LINE_END, MAX_LAYOUTS, Key, Layout, key_of, make_layout
from sidecar.http2.static_table import STATIC

MAX_VALUES_OF_A_NAME: Final = 8
"""That enter the table: callers who differ in one name leave room for the others."""
MAX_VALUE_BYTES: Final = 256
"""A longer one does not enter the table."""
MAX_LINES: Final = 512
"""Lines whose code is remembered; when they are so many, all are forgotten."""
MAX_WRITTEN: Final = 32
"""Blocks that are remembered as they are written; when they are so many, all are forgotten. So are as many groups of
lines, of at most `MAX_LINES_BYTES` each."""
MAX_LINES_BYTES: Final = 1024
MAX_NAMES: Final = 256
MAX_NAME_BYTES: Final = 64

Pair = tuple[bytes, bytes]

_LEFT_OUT: Final = HOP_BY_HOP - {b"te"} | {b"host"}
"""What HTTP/2 forbids (RFC 9113 8.2.2), and what `:authority` says. `te` goes where it says `trailers`."""
_COOKIE: Final = b"cookie"
_WITHOUT_INDEXING: Final = 0x00
_NEVER: Final = 0x10
_WITH_INDEXING: Final = 0x40

_STATIC_NAMES: Final[dict[bytes, int]] = {
    name: index for index, (name, _) in reversed([*enumerate(STATIC, 1)])
}
_STATIC_PAIRS: Final[dict[Pair, bytes]] = {
    pair: write_integer(index, 7, 0x80) for index, pair in enumerate(STATIC, 1)
}
STATUS_PAIRS: Final = tuple((b":status", b"%d" % status) for status in range(1000))


class WrittenBlock:
    """Remembered fields as they are written, with the first head that had them."""

    __slots__ = ("code", "drop", "fields", "head", "pseudo")

    def __init__(
        self, pseudo: Sequence[Pair], fields: Block, drop: frozenset[bytes], head: bytes, code: bytes
    ) -> None:
        self.pseudo = pseudo
        self.fields = fields
        """Kept, so that their `id` stays their own."""
        self.drop = drop
        """Keys that are left out."""
        self.head = head
        """`pseudo` and the fields."""
        self.code = code
        """The fields alone: other heads may have them too."""


class HpackEncoder:
    """One for each connection."""

    __slots__ = (
        "_blocks", "_entries", "_groups", "_layouts", "_lines", "_max_bytes", "_names", "_own_names", "_pairs",
        "_table_bytes", "_update", "_values_of", "_version",
    )  # fmt: skip

    def __init__(self) -> None:
        self._entries: list[Pair] = []
        """Of the dynamic table, the oldest first. None ever leaves, but for all of them at once."""
        self._table_bytes = 0
        self._max_bytes = TABLE_BYTES
        self._update = b""
        """What the next block begins with: the peer wants a smaller table."""
        self._pairs: dict[Pair, bytes] = dict(_STATIC_PAIRS)
        """What is in either table, with its code."""
        self._lines: dict[bytes, bytes] = {}
        """The same by lines as they came, in whatever case."""
        self._values_of: dict[bytes, int] = {}
        """How many values of a name are in the table."""
        self._names: dict[bytes, bytes] = {}
        """How literals of a name begin that are as they are usually."""
        self._own_names: dict[bytes, bytes] = {}
        """The same for lines of our own, by their names as these are written; of no name that enters the table."""
        self._layouts: dict[Key, Layout] = {}
        """What stands around that which differs in such lines from head to head."""
        self._blocks: dict[int, WrittenBlock] = {}
        """By the `id` of their fields."""
        self._groups: dict[bytes | Added, bytes] = {}
        """Lines that many heads share, as they are written."""
        self._version = 0
        """Changes with the table, and ends what the two remember."""

    def set_table_bytes(self, size: int) -> None:
        """The peer's HEADER_TABLE_SIZE. A change empties the table, which the next block says."""
        size = min(size, TABLE_BYTES)
        if size != self._max_bytes:
            self._max_bytes = size
            self._update = b"\x20" + write_integer(size, 5, 0x20)
            self._entries.clear()
            self._table_bytes = 0
            self._values_of.clear()
            self._change()
            self._pairs.clear()
            self._pairs.update(_STATIC_PAIRS)

    def encode(
        self,
        pseudo: Sequence[Pair],
        fields: Sequence[Field],
        drop: frozenset[bytes],
        pairs: Sequence[Pair],
        never_indexed: frozenset[bytes],
        added: Added = NOTHING,
        shared: bytes = b"",
        own: Own | tuple[()] = (),
    ) -> bytes:
        """One block of `pseudo`, `fields` but for the keys in `drop`, `added`, the lines in `shared`, which many
        heads have alike, those of `own`, and `pairs`. It must be sent: the peer's table follows it."""
        if never_indexed and not never_indexed <= ALWAYS_NEVER_INDEXED:
            pairs = [*added.pairs, *own_pairs([shared, *own]), *pairs]
            return self._encode_carefully(pseudo, fields, drop, pairs, never_indexed)
        out: list[bytes] = []
        if self._update:
            out.append(self._update)
            self._update = b""
        known = self._blocks.get(id(fields))
        if known is not None and known.drop is drop and known.pseudo == pseudo:
            out.append(known.head)
        else:
            self._encode_head(pseudo, fields, drop, out)
        if added is not NOTHING:
            out.append(self._groups.get(added) or self._encode_group(added, added.pairs))
        if shared:
            out.append(self._groups.get(shared) or self._encode_group(shared, own_pairs([shared])))
        if own:
            key = key_of(own)
            layout = self._layouts.get(key)
            if layout and own[-1] == LINE_END:
                if len(layout) == 1:  # as below, without two lists
                    out += (layout[0], own[1])
                else:
                    pieces = own[:-1]
                    pieces[::2] = layout
                    out += pieces
            else:
                self._encode_own(own, key, layout, out)
        for pair in pairs:
            out.append(self._pairs.get(pair) or self._encode_pair(pair))
        return b"".join(out)

    def _encode_pairs(self, pairs: Sequence[Pair], out: list[bytes]) -> None:
        known_pair = self._pairs.get
        for pair in pairs:
            out.append(known_pair(pair) or self._encode_pair(pair))

    def _encode_head(
        self, pseudo: Sequence[Pair], fields: Sequence[Field], drop: frozenset[bytes], out: list[bytes]
    ) -> None:
        """`pseudo` and fields that are not remembered together."""
        version, begin = self._version, len(out)
        self._encode_pairs(pseudo, out)
        if not isinstance(fields, Block):
            self._encode_fields(fields, drop, out)
            return
        known = self._blocks.get(
            id(fields)
        )  # now: one of `pseudo` that enters the table ends what was remembered
        if known is not None and known.drop is drop:
            out.append(known.code)
            return
        middle = len(out)
        self._encode_fields(fields, drop, out)
        if version == self._version:
            if len(self._blocks) >= MAX_WRITTEN:
                self._blocks.clear()
            head, code = b"".join(out[begin:]), b"".join(out[middle:])
            self._blocks[id(fields)] = WrittenBlock(pseudo, fields, drop, head, code)

    def _encode_fields(self, fields: Sequence[Field], drop: frozenset[bytes], out: list[bytes]) -> None:
        known_line = self._lines.get
        for key, line, value in fields:
            if key not in drop:
                out.append(known_line(line) or self._encode_line(key, line, value))

    def _encode_group(self, group: bytes | Added, pairs: Sequence[Pair]) -> bytes:
        """Pairs that many heads have alike."""
        version = self._version
        code = b"".join([self._encode_pair(pair) for pair in pairs])
        if version == self._version and len(code) <= MAX_LINES_BYTES:
            if len(self._groups) >= MAX_WRITTEN:
                self._groups.clear()
            self._groups[group] = code
        return code

    def _encode_own(self, own: Own, key: Key, layout: Layout | None, out: list[bytes]) -> None:
        """Lines whose values differ from head to head, where the layout is not known, or is not all of them."""
        if layout and own[-1][:2] == LINE_END:
            pieces = own[:-1]
            pieces[::2] = layout
            out += pieces
            out.append(self._encode_lines(own[-1][2:]))
            return
        out.append(self._encode_lines(b"".join(own)))
        if layout is None:
            if len(self._layouts) >= MAX_LAYOUTS:
                self._layouts.clear()
            self._layouts[key] = make_layout(own, self._own_names)

    def _encode_lines(self, text: bytes) -> bytes:
        """Lines of our own, whatever case their names are written in."""
        lines = text.split(LINE_END)
        lines.pop()  # behind the last line's end
        out: list[bytes] = []
        for line in lines:
            name, _, value = line.partition(b": ")
            begin, size = self._own_names.get(name), len(value)
            if begin is not None and size < 2048:
                out += (begin, LENGTHS[size], value)
                continue
            key = name.lower()
            out.append(self._encode_pair((key, value)))
            begin = self._names.get(key)
            if begin is not None and key not in INDEXED:
                if len(self._own_names) >= MAX_NAMES:
                    self._own_names.clear()
                self._own_names[name] = begin
        return b"".join(out)

    def _encode_carefully(
        self,
        pseudo: Sequence[Pair],
        fields: Sequence[Field],
        drop: frozenset[bytes],
        pairs: Sequence[Pair],
        never_indexed: frozenset[bytes],
    ) -> bytes:
        """The same where one more name is never indexed: each field is held against `never_indexed` before a
        table."""
        out = [self._update]
        self._update = b""
        kept = [(key, value) for key, _, value in fields if key not in drop]
        for key, value in (*pseudo, *kept, *pairs):
            if key in never_indexed and key not in _LEFT_OUT and (key != b"te" or value == b"trailers"):
                out.append(_begin(key, _NEVER, 4) + write_string(value))
            else:
                out.append(self._encode_pair((key, value)))
        return b"".join(out)

    def _encode_line(self, key: bytes, line: bytes, value: bytes) -> bytes:
        if key not in INDEXED:
            return self._encode_literal(key, value)
        code = self._pairs.get((key, value))
        if code is None:
            return self._insert(key, value)
        if len(self._lines) >= MAX_LINES:
            self._lines.clear()
        self._lines[line] = code
        return code

    def _encode_pair(self, pair: Pair) -> bytes:
        key, value = pair
        if key not in INDEXED:
            return self._encode_literal(key, value)
        return self._pairs.get(pair) or self._insert(key, value)

    def _encode_literal(self, key: bytes, value: bytes) -> bytes:
        begin = self._names.get(key)
        if begin is None:
            if key in _LEFT_OUT:
                return b""
            if key == _COOKIE:
                return b"".join([_NEVER_COOKIE + write_string(crumb) for crumb in value.split(b"; ")])
            begin = self._learn_name(key)
        size = len(value)
        return begin + LENGTHS[size] + value if size < 2048 else begin + write_string(value)

    def _learn_name(self, key: bytes) -> bytes:
        begin = _begin(key, _NEVER if key in ALWAYS_NEVER_INDEXED else _WITHOUT_INDEXING, 4)
        if len(key) <= MAX_NAME_BYTES:
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            self._names[key] = begin
        return begin

    def _insert(self, key: bytes, value: bytes) -> bytes:
        """Write a field that enters the table; one that must not, as a literal."""
        if key == b"te" and value != b"trailers":
            return b""
        size = len(key) + len(value) + ENTRY_BYTES
        count = self._values_of.get(key, 0)
        is_small = len(value) <= MAX_VALUE_BYTES and self._table_bytes + size <= self._max_bytes
        if not is_small or count >= MAX_VALUES_OF_A_NAME:
            return self._encode_literal(key, value)
        self._entries.append((key, value))
        self._table_bytes += size
        self._values_of[key] = count + 1
        self._change()
        index = len(STATIC) + len(self._entries)
        for pair in self._entries:
            self._pairs[pair] = write_integer(index, 7, 0x80)
            index -= 1
        return _begin(key, _WITH_INDEXING, 6) + write_string(value)

    def _change(self) -> None:
        """The table is another one: what was remembered as it is written means something else."""
        self._version += 1
        self._lines.clear()
        self._blocks.clear()
        self._groups.clear()


def _begin(key: bytes, pattern: int, bits: int) -> bytes:
    """The name of a literal, by its static index where it has one."""
    index = _STATIC_NAMES.get(key, 0)
    return write_integer(index, bits, pattern) + (b"" if index else write_string(key))


_NEVER_COOKIE: Final = _begin(_COOKIE, _NEVER, 4)
