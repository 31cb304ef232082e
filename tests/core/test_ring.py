"""Consistent hashing: even shares, few moves, the same ring everywhere."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import ring
from sidecar.core.ring import Ring, build, key_of

KEYS = [key_of(b"user-%d" % number) for number in range(4_000)]
ADDRESSES = st.lists(
    st.integers(0, 2**16 - 1).map(lambda n: f"10.0.{n >> 8}.{n & 255}:80"),
    unique=True,
    min_size=1,
    max_size=12,
)


def owners(of: Ring) -> list[str]:
    return [of.names[of.owner(of.find(key))] for key in KEYS]


def even(*names: str) -> Ring:
    return build(dict.fromkeys(names, 1))


def test_each_endpoint_owns_about_its_part_of_the_keys() -> None:
    counts = Counter(owners(even(*(f"10.0.0.{number}:80" for number in range(10)))))
    assert len(counts) == 10
    assert 250 < min(counts.values()) <= max(counts.values()) < 560


def test_weights_are_parts_of_the_keys() -> None:
    counts = Counter(owners(build({"a:1": 1, "b:1": 3, "c:1": 6})))
    shares = [counts[name] / len(KEYS) for name in ("a:1", "b:1", "c:1")]
    assert shares == pytest.approx([0.1, 0.3, 0.6], abs=0.05)


def test_a_weight_of_nothing_still_has_a_place() -> None:
    found = build({"a:1": 0, "b:1": 65_535})
    assert {found.names[found.owner(place)] for place in range(len(found))} == {"a:1", "b:1"}


@settings(deadline=None)
@given(ADDRESSES, st.randoms(use_true_random=False))
def test_the_order_of_the_endpoints_does_not_matter(names: list[str], rng: object) -> None:
    shuffled = list(names)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert owners(even(*names)) == owners(even(*shuffled))


@settings(deadline=None)
@given(ADDRESSES)
def test_who_leaves_gives_up_its_own_keys_alone(names: list[str]) -> None:
    before = owners(even(*names))
    after = owners(even(*names[1:])) if names[1:] else []
    moved = [old for old, new in zip(before, after, strict=False) if old != new]
    assert set(moved) <= {names[0]}


def test_a_place_goes_round_the_ring() -> None:
    found = even("a:1", "b:1")
    assert found.owner(len(found) + 3) == found.owner(3)
    assert found.find(2**64 - 1) in range(len(found))
    assert found.find(0) == 0


def test_another_process_makes_the_same_ring() -> None:
    program = (
        "from sidecar.core.ring import build\n"
        "found = build({f'10.0.0.{n}:80': 1 + n % 3 for n in range(9)})\n"
        "print([found.names[found.owner(found.find(n << 50))] for n in range(0, 16384, 8)])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    found = build({f"10.0.0.{n}:80": 1 + n % 3 for n in range(9)})
    assert told.strip() == str([found.names[found.owner(found.find(n << 50))] for n in range(0, 16384, 8)])


def test_others_may_go_on_while_a_large_one_is_made() -> None:
    pauses: list[None] = []
    build({f"10.0.{n >> 8}.{n & 255}:80": 1 for n in range(400)}, lambda: pauses.append(None))
    assert len(pauses) == 400 // ring.MEMBERS_IN_STEP + 256


@pytest.mark.plain
def test_more_endpoints_than_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "MOST_MEMBERS", 2)
    with pytest.raises(ValueError, match="3 endpoints are too many for one ring: at most 2"):
        even("a:1", "b:1", "c:1")
