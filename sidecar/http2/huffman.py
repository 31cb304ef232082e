"""Strings in RFC 7541's Huffman code → bytes, one look-up for each byte of input.

The code is a tree, and a byte leads from one of its 256 inner nodes to another and past some symbols. What each node
does with each byte is found out when it is first wanted: to fill all 65,536 places takes 60 ms and 8 MB, and texts
use a few hundred. We never write the code: it costs more than the bytes that it saves between neighbours.
"""

from __future__ import annotations

from typing import Final

from sidecar.http2.huffman_table import EOS, codes


class MalformedHuffman(Exception):
    """The string has EOS in it, or ends in something else than at most 7 bits of EOS's beginning (RFC 7541 5.2)."""


_UNKNOWN: Final[list[tuple[bytes, HuffmanNode] | None]] = [None] * 256
"""The steps of a node that no text has come to: one list for all, since each takes 2 KiB."""


class HuffmanNode:
    """An inner node of the tree."""

    __slots__ = ("is_end", "one", "steps", "zero")

    def __init__(self) -> None:
        self.zero: HuffmanNode | int = EOS
        """What a bit of 0 leads to: a node, or a symbol. EOS where nothing was put yet."""
        self.one: HuffmanNode | int = EOS
        self.is_end = False
        """A string may end here: the bits since the last symbol are padding."""
        self.steps = _UNKNOWN
        """By byte: the symbols that it ends, and the node that it leads to; as far as it was wanted."""


def _grow() -> HuffmanNode:
    root = HuffmanNode()
    for symbol, (code, length) in enumerate(codes()):
        node = root
        for place in range(length - 1, 0, -1):
            following = node.one if code >> place & 1 else node.zero
            if not isinstance(following, HuffmanNode):
                following = HuffmanNode()
                if code >> place & 1:
                    node.one = following
                else:
                    node.zero = following
            node = following
        if code & 1:
            node.one = symbol
        else:
            node.zero = symbol
    end: HuffmanNode | int = root
    for _ in range(8):  # no bits, up to 7 bits of one
        if isinstance(end, HuffmanNode):
            end.is_end = True
            end = end.one
    return root


_ROOT: Final = _grow()


def decode(data: bytes) -> bytes:
    """Raises: MalformedHuffman."""
    node = _ROOT
    out = []
    for byte in data:
        step = node.steps[byte]
        if step is None:
            step = _step(node, byte)
        symbols, node = step
        out.append(symbols)
    if not node.is_end:
        raise MalformedHuffman("a Huffman string ends in the middle of a symbol")
    return b"".join(out)


def _step(start: HuffmanNode, byte: int) -> tuple[bytes, HuffmanNode]:
    node = start
    symbols = []
    for place in range(7, -1, -1):
        following = node.one if byte >> place & 1 else node.zero
        if isinstance(following, HuffmanNode):
            node = following
        elif following == EOS:
            raise MalformedHuffman("a Huffman string has EOS in it")
        else:
            symbols.append(following)
            node = _ROOT
    if start.steps is _UNKNOWN:
        start.steps = _UNKNOWN.copy()
    step = start.steps[byte] = bytes(symbols), node
    return step
