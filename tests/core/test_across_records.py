"""Records in shared memory: found where they were stored, believed only whole, bounded, left in order by the dead."""

from __future__ import annotations

import mmap
import os
import random
from struct import Struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.across import records
from sidecar.core.across.records import BUCKET_BYTES, READS, RECORD_BYTES, Layout, RecordReader, RecordWriter

BODY = Struct("=8sQQ")
CAPACITY = 1024


def name_of(key: bytes) -> bytes:
    return key.hex().encode()


def body(key: bytes, value: int) -> bytes:
    """A body that says itself whether it is whole: its words follow from each other."""
    return BODY.pack(key, value, value * 0x9E3779B97F4A7C15 % 2**64)


class Table:
    """One writer and one reader over the same memory."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.layout = Layout(0, 4096, capacity)
        self.memory = mmap.mmap(-1, self.layout.end)
        self.writer = RecordWriter(self.memory, self.layout, 8)
        self.reader = RecordReader(self.memory, self.layout)

    def put(self, key: bytes, value: int) -> None:
        self.writer.put(name_of(key), body(key, value))

    def find(self, key: bytes) -> bytes | None:
        return self.reader.find(name_of(key), key)


def keys(count: int, seed: int = 1) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(8) for _ in range(count)]


def test_what_is_stored_is_found_changed_and_cleared() -> None:
    table = Table()
    first, second = keys(2)
    table.put(first, 1)
    table.put(second, 2)
    table.put(first, 3)

    assert (table.find(first), table.find(second)) == (body(first, 3), body(second, 2))
    table.writer.clear(name_of(first))
    table.writer.clear(name_of(first))
    assert (table.find(first), table.find(second)) == (None, body(second, 2))
    assert len(table.writer) == 1


@pytest.mark.parametrize("seed", range(3))
def test_at_least_its_capacity_fits_and_what_does_not_is_counted(seed: int) -> None:
    table = Table(CAPACITY)
    many = keys(8 * CAPACITY, seed)
    for n, key in enumerate(many[:CAPACITY]):
        table.put(key, n)
    assert table.writer.refused == 0
    for n, key in enumerate(many[CAPACITY:], start=CAPACITY):
        table.put(key, n)

    found = [key for n, key in enumerate(many) if table.find(key) == body(key, n)]
    assert len(found) == len(table.writer) == len(many) - table.writer.refused
    assert table.writer.refused > 0
    for key in many:
        table.writer.clear(name_of(key))
    assert bytes(table.memory[:]) == bytes(table.layout.end)


def test_levels_are_told_as_they_come_into_use_and_empty() -> None:
    table = Table(CAPACITY)
    many = keys(3 * CAPACITY)
    for n, key in enumerate(many):
        table.put(key, n)
    assert table.memory[0] == 1
    for key in many:
        table.writer.clear(name_of(key))
    assert table.memory[0] == 0


def test_a_key_is_found_at_the_beginning_of_a_record_alone() -> None:
    table = Table()
    key, inside = keys(2)
    for shift in range(9):  # wherever it may stand in the two words behind the key
        rest = (b"\0" * shift + inside + b"\0" * 8)[:16]
        table.writer.put(name_of(inside), key + rest)
        assert table.find(inside) is None


# Torn


class MixingMemory:
    """Shows each reader for `times` reads a mixture of what was and what is, byte by byte."""

    def __init__(self, was: bytes, now: bytes, mask: bytes, times: int) -> None:
        self.was, self.now, self.mask = was, now, mask
        self.left = times

    def __getitem__(self, at: slice) -> bytes:
        if at.stop - at.start < BUCKET_BYTES:
            return self.now[at]
        self.left -= 1
        if self.left < 0:
            return self.now[at]
        mixed = zip(self.was[at], self.now[at], self.mask, strict=True)
        return bytes(old if old_shows else new for old, new, old_shows in mixed)

    def __setitem__(self, at: slice, value: bytes) -> None:
        raise AssertionError("a reader writes nothing")


def mixed_find(
    mask: bytes, times: int, *, is_cleared: bool = False
) -> tuple[bytes | None, bytes, bytes, int]:
    table = Table()
    (key,) = keys(1)
    table.put(key, 1)
    was = bytes(table.memory[:])
    if is_cleared:
        table.writer.clear(name_of(key))
    else:
        table.put(key, 2**63 + 12345)
    reader = RecordReader(MixingMemory(was, bytes(table.memory[:]), mask, times), table.layout)
    found = reader.find(name_of(key), key)
    return found, body(key, 1), body(key, 2**63 + 12345), reader.torn


masks = st.binary(min_size=BUCKET_BYTES, max_size=BUCKET_BYTES).map(lambda many: bytes(b & 1 for b in many))


@given(masks, st.booleans(), st.integers(1, 2 * READS))
@settings(deadline=None)
def test_whatever_mixture_of_two_states_is_read_one_of_them_or_nothing_is_believed(
    mask: bytes, is_cleared: bool, times: int
) -> None:
    found, old, new, torn = mixed_find(mask, times, is_cleared=is_cleared)
    assert found in ((old, None) if is_cleared else (old, new, None))
    if times < READS and not is_cleared:
        assert found is not None
        assert torn == 0


@pytest.mark.plain
def test_without_the_check_a_mixture_would_be_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted mistake: any copy with the right key is believed."""

    def careless(bucket: bytes, key: bytes) -> bytes | None:
        at = bucket.find(key)
        return bucket[at : at + 24] if at >= 0 else None

    monkeypatch.setattr(records, "whole_in", careless)
    found, old, new, _ = mixed_find(bytes([0, 1] * (BUCKET_BYTES // 2)), 1)
    assert found not in (old, new, None)


def test_a_record_that_stays_torn_is_unknown_after_eight_looks_and_counted() -> None:
    found, _, _, torn = mixed_find(bytes([0, 1] * (BUCKET_BYTES // 2)), READS)
    assert (found, torn) == (None, 1)
    found, _, new, torn = mixed_find(bytes([0, 1] * (BUCKET_BYTES // 2)), READS - 1)
    assert (found, torn) == (new, 0)


# Processes


def test_another_process_that_reads_while_records_change_believes_none_that_is_not_whole() -> None:
    table = Table()
    some = keys(8)
    for key in some:
        table.put(key, 0)
    pid = os.fork()
    if pid == 0:
        value = 1
        while table.memory[1] == 0:
            for key in some:
                table.put(key, value)
                value += 1
        os._exit(0)
    wrong, seen = 0, set()
    try:
        for _ in range(4_000):
            for key in some:
                found = table.find(key)
                if found is not None:
                    value = BODY.unpack(found)[1]
                    seen.add(value)
                    wrong += found != body(key, value)
    finally:
        table.memory[1] = 1
        os.waitpid(pid, 0)
    assert wrong == 0
    assert len(seen) > 1, "the other process has written meanwhile"


def test_a_later_writer_goes_on_with_what_is_whole_and_clears_the_rest() -> None:
    table = Table()
    many = keys(3 * CAPACITY)
    for n, key in enumerate(many):
        table.put(key, n)
    torn = next(
        at for at in range(4096, table.layout.end, RECORD_BYTES) if table.memory[at : at + 8] == many[0]
    )
    table.memory[torn + 8 : torn + 12] = b"died"  # in the middle of a store

    later = RecordWriter(table.memory, table.layout, 8)

    assert len(later) == len(table.writer) - 1
    assert table.find(many[0]) is None
    assert dict(later.bodies()) == {
        name_of(key): body(key, n) for n, key in enumerate(many) if n and table.find(key) is not None
    }
    for key in many:
        later.clear(name_of(key))
    assert bytes(table.memory[:]) == bytes(table.layout.end)
