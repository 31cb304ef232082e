"""Connections that are dealt out go to the worker with the fewest, to the unit."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sidecar.core.across.dealing import Dealing, Load


class Workers:
    """Workers that take what they are handed after a while, and lose connections meanwhile."""

    def __init__(self, count: int) -> None:
        self.dealing = Dealing()
        self.open = dict.fromkeys(range(1, count + 1), 0)
        self.taken = dict.fromkeys(range(1, count + 1), 0)
        self.on_the_way: Counter[int] = Counter()
        for worker in self.open:
            self.dealing.joined(worker, Load(0, 0))

    def deal(self) -> int:
        loads = [(worker, Load(self.open[worker], self.taken[worker])) for worker in self.open]
        worker = self.dealing.order(loads)[0]
        self.dealing.gave(worker)
        self.on_the_way[worker] += 1
        return worker

    def arrive(self, worker: int) -> None:
        self.open[worker] += self.on_the_way[worker]
        self.taken[worker] += self.on_the_way.pop(worker, 0)

    def all(self) -> list[int]:
        return [self.open[worker] + self.on_the_way[worker] for worker in self.open]


def test_a_burst_that_nobody_has_taken_yet_is_dealt_out_to_the_unit() -> None:
    workers = Workers(4)
    assert Counter(workers.deal() for _ in range(64)) == dict.fromkeys(range(1, 5), 16)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_and_goes_the_next_one_goes_to_one_with_the_fewest(seed: int) -> None:
    rng, workers = random.Random(seed), Workers(3)
    for _ in range(500):
        fewest = min(workers.all())
        worker = workers.deal()
        assert workers.open[worker] + workers.on_the_way[worker] == fewest + 1
        one = rng.randint(1, 3)
        if rng.random() < 0.5:
            workers.arrive(one)
        elif workers.open[one]:
            workers.open[one] -= 1


def test_a_worker_that_was_replaced_begins_with_nothing() -> None:
    workers = Workers(2)
    for _ in range(10):
        workers.deal()
    workers.dealing.left(1)
    assert {workers.deal() for _ in range(5)} == {2}

    workers.open[1] = workers.taken[1] = 0
    workers.on_the_way.pop(1)
    workers.dealing.joined(1, Load(0, 0))
    assert [workers.deal() for _ in range(5)] == [1] * 5


def test_a_number_read_while_it_was_written_makes_no_worker_less_than_empty() -> None:
    dealing = Dealing()
    dealing.joined(1, Load(0, 0))
    dealing.joined(2, Load(0, 0))
    assert dealing.order([(1, Load(1, 2**63)), (2, Load(0, 0)), (3, Load(0, 0))]) == [2, 1]
