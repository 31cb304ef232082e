"""A pick among 1,000 endpoints does no more than one among ten: operations are counted, since time is noisy here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import mean
from types import FrameType
from typing import Any

import pytest

from sidecar.core.ejection.change import Health
from sidecar.core.ring import key_of
from sidecar.core.snapshot import Balancing, Endpoint
from tests.support.places import Choice, Place

PICKS = 200


class Counted(list[Place]):
    """A list that counts what it is asked for one by one."""

    reads = 0

    def __iter__(self) -> Iterator[Place]:
        for one in super().__iter__():
            Counted.reads += 1
            yield one

    def __contains__(self, one: object) -> bool:
        Counted.reads += len(self)
        return super().__contains__(one)


@contextmanager
def operations() -> Iterator[Callable[[], int]]:
    """Counts the interpreter's instructions, and what is read of lists of endpoints."""
    count = 0

    def step(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return step

    before, Counted.reads = sys.gettrace(), 0
    sys.settrace(step)
    try:
        yield lambda: count + Counted.reads
    finally:
        sys.settrace(before)


def cost(count: int, policy: Balancing, weights: tuple[int, ...], bad: int, *, is_retry: bool) -> float:
    found = [
        Endpoint(f"10.0.{n // 250}.{n % 250}", 80, weight=weights[n % len(weights)]) for n in range(count)
    ]
    choice = Choice(found, policy)
    choice.places = Counted(choice.places)
    ejected = set(choice.places[:: count // bad][:bad]) if bad else set()
    choice.set_health(lambda one: Health.EJECTED if one in ejected else Health.USABLE)
    costs = []
    for number in range(PICKS):
        key = key_of(b"%d" % number) if policy is Balancing.RING_HASH else None
        first = choice.balancer.pick((), key, 1)
        avoid = (first,) if is_retry and first is not None else ()
        with operations() as counted:
            assert choice.balancer.pick(avoid, key, 1) is not None
            costs.append(counted())
    return mean(costs)


@pytest.mark.parametrize("is_retry", [False, True], ids=["first try", "retry"])
@pytest.mark.parametrize("share", [0, 5], ids=["all usable", "a fifth out"])
@pytest.mark.parametrize("weights", [(1,), (1, 2, 3)], ids=["even", "weighted"])
@pytest.mark.parametrize("policy", list(Balancing))
def test_a_thousand_endpoints_cost_what_ten_do(
    policy: Balancing, weights: tuple[int, ...], share: int, is_retry: bool
) -> None:
    few = cost(10, policy, weights, 10 // share if share else 0, is_retry=is_retry)
    many = cost(1_000, policy, weights, 1_000 // share if share else 0, is_retry=is_retry)
    assert many <= few * 1.5 + 20
