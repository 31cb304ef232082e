"""What lies where in the memory that the workers of a pod share, mapped before the first fork.

    64 bytes for all: what it is, and for how many workers
    8 bytes, 8 bytes      connections that control has handed over, and how often no worker's queue took one; it alone
                          writes them
    a part for each worker, which alone it writes:
        1 byte, 1 byte    levels in use of its two tables
        8 bytes           its epoch: how often its process was replaced
        8 bytes each      for every worker: what it was not told (`lost`)
        8 bytes, 8 bytes  connections that it has of those that are handed over, and how many it was handed
        two tables        of exchanges by span id, of deadlines by trace id (`records.py`)

The first numbers are compared with what they were, nothing else: one that is read while it is written differs from
both, and differs again at the next look. For the last two see `dealing.py`.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from sidecar.core.across.records import Layout, Memory

MOST_WORKERS: Final = 256
LEAST_CAPACITY: Final = 1024

_PAGE: Final = 4096
_HEAD = Struct("=16sqq")
_MAGIC: Final = b"sidecar-across-1"
_NUMBER = Struct("=Q")
_DEALT_AT: Final = 64
_NUMBERS_AT: Final = 64


class PartLayout:
    """Where the part of one worker lies."""

    __slots__ = ("end", "spans", "start", "traces", "workers")

    def __init__(self, start: int, workers: int, capacity: int) -> None:
        self.start = start
        self.workers = workers
        tables_at = start + _whole_pages(_NUMBERS_AT + _NUMBER.size * (3 + workers))
        self.spans = Layout(start, tables_at, capacity)
        self.traces = Layout(start + 1, self.spans.end, capacity)
        self.end = _whole_pages(self.traces.end)

    def epoch_at(self) -> slice:
        return _number_at(self.start, 0)

    def lost_at(self, worker: int) -> slice:
        """Of what `worker` was not told."""
        return _number_at(self.start, 1 + worker)

    def open_at(self) -> slice:
        """Of its connections, of listeners whose connections are handed over."""
        return _number_at(self.start, 1 + self.workers)

    def taken_at(self) -> slice:
        """Of all that it was handed."""
        return _number_at(self.start, 2 + self.workers)


class Segment:
    """The layout of the whole, which follows from the number of workers alone."""

    __slots__ = ("capacity", "parts", "size")

    def __init__(self, workers: int, capacity: int) -> None:
        """`capacity`: live exchanges that all workers together have room for.

        Raises:
            ValueError: so many workers cannot share one segment."""
        if not 1 <= workers <= MOST_WORKERS:
            raise ValueError(f"{workers} workers cannot share one table: at least 1, at most {MOST_WORKERS}")
        self.capacity = max(LEAST_CAPACITY, capacity // workers)
        """Of each worker."""
        self.parts: tuple[PartLayout, ...] = ()
        end = _PAGE
        for _ in range(workers):
            self.parts += (PartLayout(end, workers, self.capacity),)
            end = self.parts[-1].end
        self.size = end

    def dealt_at(self) -> slice:
        """Of connections that were handed over."""
        return slice(_DEALT_AT, _DEALT_AT + _NUMBER.size)

    def waited_at(self) -> slice:
        """How often no worker's queue took one."""
        return slice(_DEALT_AT + _NUMBER.size, _DEALT_AT + 2 * _NUMBER.size)

    def begin(self, memory: Memory) -> None:
        """Say whose memory it is; once, before the fork."""
        memory[0 : _HEAD.size] = _HEAD.pack(_MAGIC, len(self.parts), hash(_MAGIC))

    def check(self, memory: Memory) -> None:
        """Raises: ValueError, if it is no memory of this layout, or was begun by a process that this one was not
        forked from: its hashes are others, so that no record would be whole."""
        if memory[0 : _HEAD.size] != _HEAD.pack(_MAGIC, len(self.parts), hash(_MAGIC)):
            raise ValueError("the shared memory is that of other processes: start all of them anew")


def read_number(memory: Memory, at: slice) -> int:
    number: int = _NUMBER.unpack(memory[at])[0]
    return number


def write_number(memory: Memory, at: slice, number: int) -> None:
    """By its owner alone."""
    memory[at] = _NUMBER.pack(number)


def add_one(memory: Memory, at: slice) -> None:
    """By its owner alone."""
    write_number(memory, at, (read_number(memory, at) + 1) & 0xFFFFFFFFFFFFFFFF)


def _number_at(start: int, index: int) -> slice:
    at = start + _NUMBERS_AT + _NUMBER.size * index
    return slice(at, at + _NUMBER.size)


def _whole_pages(size: int) -> int:
    return (size + _PAGE - 1) // _PAGE * _PAGE
