"""Random frames that are mostly right: what a peer could send, bent in one place now and then.

Purely random bytes are a malformed frame nearly always. So this keeps what a peer would know (which streams are open,
what is in the table) and goes by it nine times of ten. Seeded, so that each run can be repeated.
"""

from __future__ import annotations

import struct
from random import Random

from sidecar.http2.static_table import STATIC
from tests.http2.huffman_code import huffman
from tests.http2.wire import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    SETTINGS,
    WITH_PRIORITY,
    frame,
    goaway,
    integer,
    ping,
    priority,
    rst,
    setting,
    window,
)

Pair = tuple[bytes, bytes]

REQUEST = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a.test")]
METHODS = [b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"PURGE", b"", b"G T"]
PATHS = [b"/", b"/index.html", b"/a?b=c", b"/pkg.Service/Call", b"*", b"", b"a", b"/a b", b"/\n"]
NAMES = [
    b"accept",
    b"x",
    b"x-request-id",
    b"content-type",
    b"te",
    b"cookie",
    b"user-agent",
    b"grpc-timeout",
    b"trailer",
]
ODD_NAMES = [
    b"X",
    b"",
    b"x y",
    b":x",
    b":path",
    b":status",
    b"connection",
    b"upgrade",
    b"transfer-encoding",
    b"a\0",
]
VALUES = [
    b"",
    b"a",
    b"trailers",
    b"application/grpc",
    b"0",
    b"*/*",
    b"text/html; q=0.9",
    b"\xc3\xa9",
    b"v" * 130,
    b"w" * 900,
]
ODD_VALUES = [b" a", b"a ", b"a\r\n", b"\0", b"\x7f", b"a\tb", b"\tb"]
STATUSES = [
    b"200",
    b"200",
    b"200",
    b"204",
    b"304",
    b"404",
    b"503",
    b"100",
    b"103",
    b"101",
    b"99",
    b"abc",
    b"",
]
LENGTHS = [b"0", b"4", b"8", b"100", b"x", b"-1"]
STATIC_INDEX = {pair: index for index, pair in reversed([*enumerate(STATIC, 1)])}
SURE = 8
"""So many of the newest entries are in the table for certain, with values as long as these may be."""


class GuidedFrames:
    """Of a client, or of a server that was asked on the streams `asked`."""

    def __init__(self, random: Random, *, is_server: bool, asked: tuple[int, ...] = ()) -> None:
        self.random = random
        self.is_server = is_server
        self.next_id = 1
        self.open = list(asked)
        """Streams on which this side may still send."""
        self.without_head = set(asked)
        self.table: list[Pair] = []
        """What has entered the table, the newest first; what has left it again is not followed."""

    def next(self) -> list[bytes]:
        """The next frames: one, or those of one header block."""
        pick = self.random.random()
        if pick < 0.42:
            frames = self.head()
        elif pick < 0.68:
            frames = [self.data()]
        elif pick < 0.74:
            frames = self.trailers()
        else:
            frames = [self.other(pick)]
        if self.random.random() < 0.012:
            index = self.random.randrange(len(frames))
            frames[index] = self.bend(frames[index])
        return frames

    # Messages

    def head(self) -> list[bytes]:
        if self.is_server:
            return self.answer()
        stream_id = self.next_id
        self.next_id += 2
        is_end = self.random.random() < 0.5
        if not is_end:
            self.open.append(stream_id)
        return self.block(stream_id, self.request_fields(is_end=is_end), is_end=is_end)

    def request_fields(self, *, is_end: bool) -> list[Pair]:
        random = self.random
        fields = list(REQUEST)
        if not is_end or random.random() < 0.2:
            fields[0] = (b":method", random.choice(METHODS) if random.random() < 0.3 else b"POST")
        if random.random() < 0.3:
            fields[2] = (b":path", random.choice(PATHS))
        if random.random() < 0.02:
            fields.append(random.choice(fields))
        if random.random() < 0.02:
            fields.pop(random.randrange(len(fields)))
        if random.random() < 0.02:
            fields.insert(random.randrange(len(fields)), (b":protocol", b"websocket"))
        fields += self.some_fields()
        if random.random() < 0.03:
            random.shuffle(fields)
        return fields

    def answer(self) -> list[bytes]:
        random = self.random
        waiting = [stream_id for stream_id in self.open if stream_id in self.without_head]
        stream_id = random.choice(waiting or self.open or [1])
        status = random.choice(STATUSES) if random.random() < 0.3 else b"200"
        is_end = random.random() < 0.4 and status[:1] != b"1"
        if status[:1] != b"1":
            self.without_head.discard(stream_id)
        fields = [(b":status", status), *self.some_fields()]
        if is_end:
            self.close(stream_id)
        return self.block(stream_id, fields, is_end=is_end)

    def trailers(self) -> list[bytes]:
        stream_id = self.pick_stream()
        self.close(stream_id)
        return self.block(
            stream_id, self.some_fields() or [(b"grpc-status", b"0")], is_end=self.random.random() < 0.95
        )

    def some_fields(self) -> list[Pair]:
        random = self.random
        fields = []
        for _ in range(random.randrange(6)):
            name = random.choice(NAMES if random.random() < 0.993 else ODD_NAMES)
            value = random.choice(VALUES if random.random() < 0.993 else ODD_VALUES)
            fields.append((name, b"trailers" if name == b"te" and random.random() < 0.95 else value))
        if random.random() < 0.15:
            fields.append((b"content-length", random.choice(LENGTHS)))
        return fields

    def data(self) -> bytes:
        random = self.random
        stream_id = self.pick_stream()
        payload = b"d" * random.choice((0, 1, 4, 4, 8, 100, 1000))
        flags = END_STREAM if random.random() < 0.3 else 0
        if flags:
            self.close(stream_id)
        if random.random() < 0.1:
            padding = random.choice((0, 1, 7, 255))
            payload = bytes([padding]) + payload + b"\0" * (padding if random.random() < 0.97 else 0)
            flags |= PADDED
        return frame(DATA, flags, stream_id, payload)

    def pick_stream(self) -> int:
        if self.open and self.random.random() < 0.99:
            return self.random.choice(self.open)
        return self.random.randrange(0, self.next_id + 4)

    def close(self, stream_id: int) -> None:
        if stream_id in self.open:
            self.open.remove(stream_id)

    # Frames of their own

    def other(self, pick: float) -> bytes:
        random = self.random
        stream_id = self.pick_stream()
        if pick < 0.79:
            self.close(stream_id)
            return rst(stream_id, random.choice((0, 7, 8, 8, 99)))
        if pick < 0.86:
            sizes = (1, 100, 65535, 2**20) if random.random() < 0.9 else (0, 2**31 - 1)
            return window(random.choice((0, stream_id)), random.choice(sizes))
        if pick < 0.90:
            key = random.randrange(1, 8)
            values = {
                1: (0, 100, 4096, 2**20),
                2: (0, 0, 0, 1, 2),
                4: (0, 65535, 2**20, 2**31),
                5: (16384, 2**20, 1),
            }
            return setting((key, random.choice(values.get(key, (0, 1, 100)))))
        if pick < 0.94:
            return ping(random.randbytes(8), random.choice((0, 0, 0, ACK)))
        if pick < 0.97:
            return priority(stream_id or 1, random.choice((0, 1, 2**31)), 3)
        if pick < 0.98:
            return frame(random.randrange(0x16, 256), random.randrange(256), random.randrange(9), b"unknown")
        if pick < 0.9815:
            return frame(SETTINGS, ACK, 0, b"")
        if pick < 0.983:
            return frame(CONTINUATION, END_HEADERS, stream_id, b"")
        if pick < 0.985 and self.is_server:
            return goaway(2**31 - 1, 0, b"bye")
        return ping(b"12345678")

    def bend(self, raw: bytes) -> bytes:
        """Change one thing: a byte, the flags, the stream, or the length with what it covers."""
        random = self.random
        kind, flags, stream_id = struct.unpack(">BBI", raw[3:9])
        payload = bytearray(raw[9:])
        match random.randrange(5):
            case 0 if payload:
                payload[random.randrange(len(payload))] = random.randrange(256)
            case 1:
                flags ^= 1 << random.randrange(8)
            case 2:
                stream_id = random.randrange(0, self.next_id + 4)
            case 3:
                del payload[random.randrange(len(payload) + 1) :]
            case _:
                payload += random.randbytes(random.randrange(1, 9))
        return frame(kind, flags, stream_id, bytes(payload))

    # Header blocks

    def block(self, stream_id: int, fields: list[Pair], *, is_end: bool) -> list[bytes]:
        random = self.random
        raw = b"".join(self.code(pair) for pair in fields)
        if random.random() < 0.02:
            raw = integer(random.choice((0, 100, 4096) if random.random() < 0.9 else (4097,)), 5, 0x20) + raw
            self.table.clear()
        flags = END_STREAM if is_end else 0
        parts = [raw]
        if random.random() < 0.1:
            cuts = sorted(random.randrange(len(raw) + 1) for _ in range(random.choice((1, 1, 2, 7))))
            parts = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
        first = parts[0]
        if random.random() < 0.05:
            flags |= WITH_PRIORITY
            first = struct.pack(">IB", random.choice((0, 2**31, 77)), 9) + first
        if random.random() < 0.05:
            flags |= PADDED
            first = b"\x03" + first + b"\0\0\0"
        if len(parts) == 1:
            flags |= END_HEADERS
        frames = [frame(HEADERS, flags, stream_id, first)]
        frames += [frame(CONTINUATION, 0, stream_id, part) for part in parts[1:-1]]
        if len(parts) > 1:
            frames.append(frame(CONTINUATION, END_HEADERS, stream_id, parts[-1]))
        return frames

    def code(self, pair: Pair) -> bytes:
        random = self.random
        name, value = pair
        if random.random() < 0.6:
            index = STATIC_INDEX.get(pair)
            if index is None and pair in self.table:
                index = 62 + self.table.index(pair)
            if index is not None and (index < 62 + SURE or random.random() < 0.02):
                return integer(index, 7, 0x80)
        bits, pattern = random.choice(((6, 0x40), (4, 0x00), (4, 0x10)))
        named = next((index for index, (known, _) in enumerate(STATIC, 1) if known == name), 0)
        if random.random() < 0.3:
            named = 0
        begin = integer(named, bits, pattern) + (b"" if named else self.string(name))
        if bits == 6:
            self.table.insert(0, pair)
        return begin + self.string(value)

    def string(self, raw: bytes) -> bytes:
        if self.random.random() < 0.5:
            coded = huffman(raw)
            return integer(len(coded), 7, 0x80) + coded
        return integer(len(raw), 7) + raw
