"""RFC 7541's Huffman code, written: the codec itself never does."""

from __future__ import annotations

from sidecar.http2.huffman_table import codes

CODES = codes()


def huffman(data: bytes) -> bytes:
    bits = length = 0
    for byte in data:
        code, size = CODES[byte]
        bits = bits << size | code
        length += size
    padding = -length % 8
    return (bits << padding | (1 << padding) - 1).to_bytes((length + padding) // 8, "big")
