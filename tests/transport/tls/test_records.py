"""Records are counted right however their bytes come, and so many without data are allowed."""

from __future__ import annotations

import random

from sidecar.transport.tls.records import BARREN_BURST, FEED_BYTES, Records


def record(size: int) -> bytes:
    return b"\x17\x03\x03" + size.to_bytes(2) + bytes(size)


def test_no_more_records_are_given_at_a_time_than_may_bring_nothing() -> None:
    records = Records()
    data = record(22) * (BARREN_BURST + 5)
    assert records.cut(data) == BARREN_BURST * 27
    assert records.is_settled(0, 10.0)
    assert records.cut(data[BARREN_BURST * 27 :]) == 27
    assert not records.is_settled(0, 10.0)


def test_so_many_more_are_allowed_as_time_goes_by() -> None:
    records = Records()
    for number in range(1000):
        assert records.cut(record(22)) == 27
        assert records.is_settled(0, 10.0 + number / 10)


def test_records_that_bring_data_are_not_counted() -> None:
    records = Records()
    for _ in range(10 * BARREN_BURST):
        assert records.cut(record(100)) == 105
        assert records.is_settled(1, 10.0)


def test_a_feed_has_a_size() -> None:
    records = Records()
    data = record(16_000) * 4
    assert records.cut(data) == FEED_BYTES
    assert records.cut(data[FEED_BYTES:]) == len(data) - FEED_BYTES
    assert records.is_settled(4, 10.0)
    assert records.cut(record(22) * 200) == BARREN_BURST * 27


def test_in_whatever_pieces_they_come_they_are_counted_alike() -> None:
    rng = random.Random(3)
    for _ in range(200):
        sizes = [rng.choice((0, 1, 22, 255, 256, 5000)) for _ in range(rng.randrange(1, 60))]
        data, records = b"".join(map(record, sizes)), Records()
        while data:
            piece = data[: rng.choice((1, 2, 3, 4, 5, 6, 30, 10_000))]
            data = data[len(piece) :]
            while piece:
                piece = piece[records.cut(piece) :]
        records.brought(len(sizes))
        assert records.given == 0
        records.cut(record(22) * 200)
        assert records.is_settled(0, 1.0)
        records.cut(record(22))
        assert not records.is_settled(0, 1.0), "the hundred of before were all that is allowed"
