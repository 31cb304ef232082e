"""What processes tell each other, as bytes, and what they call the same breaker."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.breaker import Override
from sidecar.core.fleet import Fleet
from sidecar.core.fleet.encoding import MAX_BYTES, BadMessage, decode, encode
from sidecar.core.fleet.keys import breaker_key, fleet_prefix, name_of
from sidecar.core.fleet.messages import (
    MAX_ITEMS,
    SLOTS,
    BreakerReport,
    Decision,
    FleetBatch,
    FleetItem,
    FleetOrder,
    PermitAnswer,
    PermitAsk,
    PermitReturn,
)
from sidecar.core.fleet.versions import HEARD_SECONDS, MAX_NAMES, MAX_VERSIONS, Versions
from sidecar.core.snapshot import BreakerPolicy, Failure, Match, PathKind, PathMatch
from sidecar.core.transition import State

REPORT = BreakerReport(
    "r/u@1", "p1", "pod-1", 7, 3, 1, ((5, 2, 1), (4, 0, 0)), (9, 2), (4, 1), True, False, 1, 2, True
)
DECISION = Decision("r/u@1", 4, 0, State.OPEN, "p1", "pod-1", 4.25, 5.0, 2)
ITEMS: tuple[FleetItem, ...] = (
    REPORT,
    DECISION,
    replace(DECISION, state=State.HALF_OPEN, pod=3),
    FleetOrder("r/u@1", 2, "p1", Override.OPEN, 1800.0, "ada@bastion"),
    FleetOrder("r/u@1", 3, "p1", Override.AUTO, None, ""),
    PermitAsk("r/u@1", "p1", 1, 3, 10.0, 5),
    PermitAnswer("r/u@1", "p1", 0, 5),
    PermitReturn("r/u@1", "p1", 5),
)
BATCH = FleetBatch("p1", "pod-1", ITEMS)


def test_a_batch_is_the_same_after_its_way() -> None:
    assert decode(encode(BATCH)) == BATCH


def test_the_bytes_of_a_batch_are_these() -> None:
    assert encode(FleetBatch("p1", "pod-1", (REPORT, DECISION))) == (
        b'{"v":1,"p":"p1","r":"pod-1","i":[["r","r/u@1","p1","pod-1",7,3,1,[[5,2,1],[4,0,0]],[9,2],[4,1],1,0,1,2,1],'
        b'["d","r/u@1",4,0,"o","p1","pod-1",4.25,5.0,2]]}'
    )


def test_the_largest_batch_that_is_written_can_be_read() -> None:
    long = 200 * "k"
    most = 2**53
    report = BreakerReport(
        long,
        64 * "p",
        64 * "r",
        most,
        most,
        most,
        SLOTS * ((10**6, 10**6, 10**6),),
        (most, most),
        (most, most),
    )
    batch = FleetBatch("p", "r", MAX_ITEMS * (report,))
    assert decode(encode(batch)) == batch
    assert len(encode(batch)) < MAX_BYTES


@settings(max_examples=50)
@given(st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(
    lambda value: json.dumps({"v": 1, "p": "p", "r": "r", "i": value}).encode()
))  # fmt: skip
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        decode(data)


WHOLE = json.loads(encode(BATCH))


@pytest.mark.parametrize("place", range(len(ITEMS)))
def test_each_field_is_looked_at(place: int) -> None:
    """Whatever one of them is replaced by: a value that it can have is read, anything else is refused."""
    item = WHOLE["i"][place]
    refused = 0
    for field in range(1, len(item)):
        for value in (
            None,
            -1,
            2**70,
            10**400,
            True,
            1.5,
            float("inf"),
            float("nan"),
            "",
            "\n",
            300 * "x",
            [],
            [1],
            [[1, 2, 1]],
            {},
        ):
            other = json.loads(json.dumps(WHOLE))
            other["i"] = [[*item[:field], value, *item[field + 1 :]]]
            try:
                read = decode(json.dumps(other).encode())
            except BadMessage:
                refused += 1
                continue
            assert decode(encode(read)) == read
    assert refused > 8 * (len(item) - 1)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[" * 100_000, "no JSON"),
        (b"x" * (MAX_BYTES + 1), "more than"),
        (b"\xff\xfe", "no JSON"),
        (b'{"v":2,"p":"p","r":"r","i":[]}', "version 1"),
        (b'{"v":1,"p":"p","r":"r","i":[],"x":1}', "fields of a batch"),
        (b'{"v":1,"p":"p","r":"r","i":[["z"]]}', "no known kind"),
        (b'{"v":1,"p":"p","r":"r","i":[["b","k","p"]]}', "2 fields, not 3"),
        (
            b'{"v":1,"p":"p","r":"r","i":[["r","k","p","r",1,1,1,[[1,2,0]],[0,0],[0,0],0,0,0,0,0]]}',
            "more failures",
        ),
        (b'{"v":1,"p":"p","r":"r","i":[' + b",".join(257 * [b"1"]) + b"]}", "more than 256"),
    ],
)
def test_what_is_no_batch_is_refused_with_its_reason(data: bytes, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        decode(data)


def test_garbage_is_counted_and_changes_nothing() -> None:
    fleet = Fleet("p2", "pod-2")
    assert fleet.receive_bytes(b"garbage", 1.0) == ()
    assert fleet.status(1.0).counts.refused == 1
    assert fleet.receive_bytes(encode(BATCH), 1.0) == ()
    assert (fleet.status(1.0).counts.refused, fleet.status(1.0).counts.received) == (1, 1)


MATCH = Match(hosts=("shop",), path=PathMatch(PathKind.PREFIX, "/pay"), methods=frozenset({"GET", "POST"}))


def test_a_key_is_the_same_for_what_is_the_same_and_another_for_all_else() -> None:
    one = breaker_key("shop", "pay", (MATCH,), ("pay:80",), BreakerPolicy())
    assert one == breaker_key("shop", "pay", (replace(MATCH),), ["pay:80"], BreakerPolicy())
    others = {
        breaker_key("shop", "pay", (replace(MATCH, hosts=("shop2",)),), ("pay:80",), BreakerPolicy()),
        breaker_key("shop", "pay", (MATCH,), ("pay:81",), BreakerPolicy()),
        breaker_key("shop", "pay", (MATCH,), ("pay:80",), BreakerPolicy(open_seconds=6.0)),
        breaker_key(
            "shop", "pay", (MATCH,), ("pay:80",), BreakerPolicy(failure_on=frozenset({Failure.RESET, 404}))
        ),
        breaker_key("shop2", "pay", (MATCH,), ("pay:80",), BreakerPolicy()),
    }
    assert len(others | {one}) == 6
    assert name_of(one) == "shop/pay"
    assert one.startswith("shop/pay@")
    assert len(breaker_key(300 * "r", "u")) < 200
    assert breaker_key(300 * "r", "u") != breaker_key(301 * "r", "u")


def test_a_key_of_this_policy_never_changes_by_chance() -> None:
    """It is the same in each process, whatever seed its hashes have: a set has no order here."""
    policy = BreakerPolicy(failure_on=frozenset({500, 502, Failure.CONNECT, Failure.RESET}))
    assert breaker_key("r", "u", policy) == breaker_key("r", "u", replace(policy))
    assert breaker_key("r", "u", {"b": 1, "a": {2, 1}}) == breaker_key("r", "u", {"a": {1, 2}, "b": 1})


def test_what_has_no_text_of_its_own_has_no_key() -> None:
    with pytest.raises(TypeError, match="the same in every process"):
        breaker_key("r", "u", object())


def test_no_part_of_a_prefix_can_be_taken_for_another() -> None:
    assert fleet_prefix("sidecar", "shop", "payments") == "sidecar:shop:payments"
    assert fleet_prefix("a", "b:c", "d") != fleet_prefix("a", "b", "c:d")


def test_versions_are_bounded_and_forgotten() -> None:
    versions = Versions()
    for number in range(MAX_VERSIONS + 5):
        versions.hear(f"r/u@{number}", 0.0)
    assert versions.beside("r/u@mine", 1.0) == 1 + MAX_VERSIONS
    assert versions.beside("r/u@3", 1.0) == MAX_VERSIONS
    assert versions.beside("r/u@mine", HEARD_SECONDS + 1.0) == 1
    for number in range(MAX_NAMES):
        versions.hear(f"r{number}/u@1", 1.0)
    assert versions.beside(f"r{MAX_NAMES - 1}/u@2", 2.0) == 1
    versions.hear("late/u@1", HEARD_SECONDS + 2.0)
    assert versions.beside("late/u@2", HEARD_SECONDS + 2.0) == 2


def test_versions_of_long_ago_keep_none_of_now_from_being_counted() -> None:
    versions = Versions()
    for number in range(MAX_VERSIONS):
        versions.hear(f"r/u@{number}", 0.0)
    later = HEARD_SECONDS + 1.0
    versions.hear("r/u@new", later)
    assert versions.beside("r/u@mine", later) == 2
