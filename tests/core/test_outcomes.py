"""What is kept of each route's requests: bounded for one and for all, and read as it was written."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.outcomes import store as stores
from sidecar.core.outcomes.record import CLOSED, FORM, NONE, RECORD_BYTES, SUCCESS
from sidecar.core.outcomes.store import (
    BLOCK_BYTES,
    BLOCK_RECORDS,
    MOST_NAMES,
    MOST_RECORDS,
    OutcomeRing,
    OutcomeStore,
    outcome_bytes,
)


def write(ring: OutcomeRing, at: float) -> None:
    """As `forwarding/outcomes.py` does."""
    offset = ring.offset
    if offset == BLOCK_BYTES:
        offset = ring.turn()
    FORM.pack_into(ring.block, offset, at, 0.5, 1.0, 3, 200, 0, SUCCESS, CLOSED, NONE)
    ring.offset = offset + RECORD_BYTES


def times(ring: OutcomeRing) -> list[float]:
    _, rows = ring.rows(0, MOST_RECORDS)
    return [one.at for one in rows]


def test_a_full_ring_has_the_last_65536_records_in_a_mebibyte_and_a_half() -> None:
    store = OutcomeStore()
    ring = store.ring("a")
    count = MOST_RECORDS + 3 * BLOCK_RECORDS
    for number in range(count):
        write(ring, number)
    assert len(ring) == MOST_RECORDS == 65_536
    assert ring.dropped == count - MOST_RECORDS
    assert times(ring) == list(range(count - MOST_RECORDS, count))
    assert store.used_bytes == ring.used_bytes == MOST_RECORDS * RECORD_BYTES == 1_572_864


def test_pages_follow_one_another_and_pass_over_what_is_gone() -> None:
    ring = OutcomeStore().ring("a")
    for number in range(3 * BLOCK_RECORDS + 7):
        write(ring, number)
    ring.give_up()
    first, rows = ring.rows(0, 300)
    assert (first, [one.at for one in rows]) == (BLOCK_RECORDS, list(range(256, 556)))
    first, rows = ring.rows(556, 10_000)
    assert (first, [one.at for one in rows]) == (556, list(range(556, 775)))
    assert ring.rows(775, 10) == (775, [])


def test_a_busy_route_takes_nothing_from_one_that_has_less_than_its_share() -> None:
    store = OutcomeStore(8 * BLOCK_BYTES)
    quiet, busy = store.ring("quiet"), store.ring("busy")
    for number in range(2 * BLOCK_RECORDS):
        write(quiet, number)
    for number in range(100 * BLOCK_RECORDS):
        write(busy, number)
    assert times(quiet) == list(range(2 * BLOCK_RECORDS))
    assert len(times(busy)) == 6 * BLOCK_RECORDS
    assert store.used_bytes == store.limit_bytes
    for number in range(4 * BLOCK_RECORDS):
        write(quiet, number)
    assert (quiet.blocks, busy.blocks) == (4, 4)


def test_where_there_is_no_block_nothing_is_kept_and_that_is_counted() -> None:
    store = OutcomeStore(2 * BLOCK_BYTES)
    rings = [store.ring(name) for name in "abc"]
    for ring in rings:
        for number in range(BLOCK_RECORDS):
            write(ring, number)
    assert [len(ring) for ring in rings] == [BLOCK_RECORDS, BLOCK_RECORDS, 0]
    assert store.unkept == BLOCK_RECORDS
    assert store.used_bytes == store.limit_bytes


def test_a_reload_frees_what_is_gone_and_what_is_over_a_smaller_limit() -> None:
    store = OutcomeStore(10 * BLOCK_BYTES)
    for name in "abc":
        for number in range(3 * BLOCK_RECORDS):
            write(store.ring(name), number)
    gone = store.ring("c")
    store.retain({"a", "b"})
    assert (sorted(store.rings), store.used_bytes) == (["a", "b"], 6 * BLOCK_BYTES)
    write(gone, 1.0)  # a request that was under way
    assert (len(gone), store.used_bytes) == (0, 6 * BLOCK_BYTES)
    store.resize(3 * BLOCK_BYTES)
    assert store.used_bytes == 3 * BLOCK_BYTES == sum(ring.used_bytes for ring in store.rings.values())
    store.resize(0)
    assert store.used_bytes == 0
    write(store.ring("a"), 1.0)
    assert len(store.ring("a")) == 0


def test_endpoints_beyond_the_limit_share_number_0() -> None:
    ring = OutcomeStore().ring("a")
    numbers = [ring.number("up", str(number)) for number in range(MOST_NAMES + 2)]
    assert numbers == [*range(1, MOST_NAMES + 1), 0, 0]
    assert ring.number("up", "0") == 1


def test_the_limit_of_all_is_a_part_of_what_connections_may_hold() -> None:
    assert outcome_bytes(64 * 1024 * 1024) == 8 * 1024 * 1024
    assert outcome_bytes(1 << 40) == stores.LIMIT_BYTES
    assert outcome_bytes(1024 * 1024) == 128 * 1024


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 600)), max_size=30), st.integers(0, 9))
def test_what_is_kept_is_the_end_of_what_was_written(writes: list[tuple[str, int]], blocks: int) -> None:
    """Whoever writes how much in whatever order: each ring has the last of its own, and all have their bytes."""
    store, written = OutcomeStore(blocks * BLOCK_BYTES), dict.fromkeys("abcd", 0)
    for name, count in writes:
        for _ in range(count):
            write(store.ring(name), written[name])
            written[name] += 1
    assert store.used_bytes == sum(ring.used_bytes for ring in store.rings.values()) <= store.limit_bytes
    for name, ring in store.rings.items():
        kept = times(ring)
        assert kept == list(range(written[name] - len(kept), written[name])) or not kept
