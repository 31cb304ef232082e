"""Records of fixed size in memory that several processes have mapped: one process writes them, all read them.

**Owner.** A table has one writer at a time. Its worker is it from its fork until its death; between that death, as
`waitpid` reported it, and the next fork, whoever forks is. Readers change nothing, and no one waits for anybody.

**What makes a record whole.** Neither CPython nor the processor promises that 32 bytes are stored or loaded in one
piece, or in order (arm64 may do both otherwise). So a reader copies a record and believes the copy only if its last
8 bytes are the hash of the 24 before. That is SipHash, 64 bits, under a key that is drawn when the first process
starts and that every fork inherits: a mixture of two records passes once in 2^64 times, also for those who choose
what stands in them. No order of stores is relied on. A copy that fails is read again, `READS` times in all: a store
takes nanoseconds, but its process may be stopped, or die, in the middle of it. Then the record counts as unknown.

**What happens before what.** Whoever learns of a key by a message (a request through the app, a datagram) finds what
was stored before that message was sent: both processes pass through the locks of the same sockets in the kernel,
which order memory on every processor (tools/memory-model of Linux). A reader without such a message may see an
earlier state for as long as a store is on its way.

**Where a record lies.** The first level has `FIRST_BUCKETS` buckets of 8 records, each further one four times as
many. A record goes into its bucket of the lowest level that has a free place there, and does not move. So a lookup
costs one copy of 256 bytes for each level in use, and memory is touched as it is needed. How many levels are in use
stands in one byte, which cannot be torn.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final, Protocol

BODY_BYTES: Final = 24
RECORD_BYTES: Final = 32
WAYS: Final = 8
BUCKET_BYTES: Final = WAYS * RECORD_BYTES
FIRST_BUCKETS: Final = 128
GROWTH: Final = 4
READS: Final = 8
"""Of one record, before it counts as unknown."""

_CHECK = Struct("=q")
_EMPTY = bytes(RECORD_BYTES)
_FULL: Final = (1 << WAYS) - 1
_PLACES: Final = tuple(
    next(((way, used | 1 << way) for way in range(WAYS) if not used >> way & 1), (0, used))
    for used in range(1 << WAYS)
)
"""For each set of places that are taken: the first free one, and the set with it."""
_OTHERS: Final = tuple(_FULL & ~(1 << way) for way in range(WAYS))
TORN: Final = b"torn"
"""No record: shorter than any."""
_BUCKET_SHIFT: Final = 8
_RECORD_SHIFT: Final = 5


class Memory(Protocol):
    """What is used of `mmap`."""

    def __getitem__(self, at: slice, /) -> bytes: ...

    def __setitem__(self, at: slice, value: bytes, /) -> None: ...


class Layout:
    """Where one table lies."""

    __slots__ = ("buckets", "end", "in_use_at", "levels", "start")

    def __init__(self, in_use_at: int, start: int, capacity: int) -> None:
        """`in_use_at`: of the byte that says how many levels are in use beside the first. Room for a quarter more
        than `capacity`, as not every bucket of the last level fills."""
        self.in_use_at = in_use_at
        self.start = start
        self.levels: tuple[tuple[int, int], ...] = ()
        """Of each: the number of its first bucket, and the mask that makes a hash the number of a bucket in it."""
        self.buckets, more = 0, FIRST_BUCKETS
        while self.buckets * WAYS < capacity + capacity // 4:
            self.levels += ((self.buckets, more - 1),)
            self.buckets += more
            more *= GROWTH
        self.end = start + self.buckets * BUCKET_BYTES

    def in_use(self) -> slice:
        return slice(self.in_use_at, self.in_use_at + 1)


class RecordReader:
    """Another worker's table."""

    __slots__ = ("_in_use", "_levels", "_memory", "_start", "torn")

    def __init__(self, memory: Memory, layout: Layout) -> None:
        self._memory = memory
        self._start = layout.start
        self._levels = layout.levels
        self._in_use = layout.in_use()
        self.torn = 0
        """Lookups that gave up, as the record was not whole at any of `READS` looks."""

    def find(self, name: bytes, key: bytes) -> bytes | None:
        """The whole record (24 bytes) that begins with `key`, and was stored under `name`; None if there is none."""
        memory, hashed = self._memory, hash(name)
        more = memory[self._in_use][0]
        for first, mask in self._levels:
            at = self._start + ((first + (hashed & mask)) << _BUCKET_SHIFT)
            found = whole_in(memory[at : at + BUCKET_BYTES], key)
            if found is not None:
                return found if len(found) == BODY_BYTES else self._again(at, key)
            if not more:
                break
            more -= 1
        return None

    def _again(self, at: int, key: bytes) -> bytes | None:
        for _ in range(READS - 1):
            found = whole_in(self._memory[at : at + BUCKET_BYTES], key)
            if found is None or len(found) == BODY_BYTES:
                return found
        self.torn += 1
        return None


def whole_in(bucket: bytes, key: bytes) -> bytes | None:
    """The record of this key in the copy of a bucket; `TORN` if it is there and not whole."""
    at = bucket.find(key)
    while at >= 0:
        if not at % RECORD_BYTES:
            body = bucket[at : at + BODY_BYTES]
            if bucket[at + BODY_BYTES : at + RECORD_BYTES] == _CHECK.pack(hash(body)):
                return body
            return TORN
        at = bucket.find(key, at + 1)
    return None


class RecordWriter:
    """The table of this worker. A record is stored under a name, whose hash says where; it begins with its key."""

    __slots__ = ("_at", "_in_use", "_levels", "_memory", "_start", "_upper", "_used", "refused")

    def __init__(self, memory: Memory, layout: Layout, key_bytes: int) -> None:
        """Go on with what is there, such as the records of a worker that died; what is not whole is cleared. Their
        names are their keys in hex, of `key_bytes` each."""
        self._memory = memory
        self._start = layout.start
        self._levels = layout.levels
        self._in_use = layout.in_use()
        self._at: dict[bytes, int] = {}
        """Where the record of each name begins."""
        self._used = bytearray(layout.buckets)
        """Of each bucket: a bit for each place that is taken."""
        self._upper = [0] * len(layout.levels)
        """Records in each level; those of the first are not counted."""
        self.refused = 0
        """Records that found no place."""
        for at, body in list(self._remains()):
            name = body[:key_bytes].hex().encode()
            if name in self._at:
                memory[at : at + RECORD_BYTES] = _EMPTY
                continue
            bucket = (at - self._start) >> _BUCKET_SHIFT
            self._used[bucket] |= 1 << ((at >> _RECORD_SHIFT) & (WAYS - 1))
            self._at[name] = at
            self._upper[self._level_of(bucket)] += 1
        self._tell_in_use()

    def __len__(self) -> int:
        return len(self._at)

    def __repr__(self) -> str:
        return f"<RecordWriter {len(self)} records, {self.refused} refused>"

    def bodies(self) -> list[tuple[bytes, bytes]]:
        """All records with their names."""
        return [(name, self._memory[at : at + BODY_BYTES]) for name, at in self._at.items()]

    def put(self, name: bytes, body: bytes) -> None:
        """Store a record (24 bytes), or another one in its place. Counted as `refused` if there is no place."""
        at = self._at.get(name)
        if at is None:
            used = self._used
            bucket = hash(name) & (FIRST_BUCKETS - 1)
            if used[bucket] == _FULL:
                bucket = self._bucket_above(hash(name))
                if not bucket:
                    self.refused += 1
                    return
            way, used[bucket] = _PLACES[used[bucket]]
            at = self._at[name] = self._start + (bucket << _BUCKET_SHIFT) + (way << _RECORD_SHIFT)
        self._memory[at : at + RECORD_BYTES] = body + _CHECK.pack(hash(body))

    def clear(self, name: bytes) -> None:
        """Take a record out; harmless if there is none."""
        at = self._at.pop(name, 0)
        if not at:
            return
        self._memory[at : at + RECORD_BYTES] = _EMPTY
        bucket = (at - self._start) >> _BUCKET_SHIFT
        self._used[bucket] &= _OTHERS[(at >> _RECORD_SHIFT) & (WAYS - 1)]
        if bucket >= FIRST_BUCKETS:
            level = self._level_of(bucket)
            self._upper[level] -= 1
            if not self._upper[level]:
                self._tell_in_use()

    def _bucket_above(self, hashed: int) -> int:
        """One with a place, above the first level; 0 if there is none."""
        for level in range(1, len(self._levels)):
            first, mask = self._levels[level]
            bucket = first + (hashed & mask)
            if self._used[bucket] != _FULL:
                self._upper[level] += 1
                if self._upper[level] == 1:
                    self._tell_in_use()
                return bucket
        return 0

    def _level_of(self, bucket: int) -> int:
        return sum(1 for first, _ in self._levels if first <= bucket) - 1

    def _tell_in_use(self) -> None:
        """Up to the highest level that holds a record; before that record is stored."""
        highest = max((level for level, count in enumerate(self._upper) if count), default=0)
        self._memory[self._in_use] = bytes((highest,))

    def _remains(self) -> Iterator[tuple[int, bytes]]:
        """Whole records of whoever wrote here before; what is not whole is cleared."""
        first, mask = self._levels[min(self._memory[self._in_use][0], len(self._levels) - 1)]
        for at in range(self._start, self._start + (first + mask + 1) * BUCKET_BYTES, RECORD_BYTES):
            record = self._memory[at : at + RECORD_BYTES]
            if record == _EMPTY:
                continue
            body = record[:BODY_BYTES]
            if record[BODY_BYTES:] == _CHECK.pack(hash(body)):
                yield at, body
            else:
                self._memory[at : at + RECORD_BYTES] = _EMPTY
