"""Who lends and who borrows the permits of a half-open breaker."""

from __future__ import annotations

from math import inf

import pytest

from sidecar.core.fleet import lending
from sidecar.core.fleet.borrowing import Borrower
from sidecar.core.fleet.lending import Lender
from sidecar.core.fleet.messages import PermitAnswer, PermitAsk, PermitReturn


def ask(process: str, number: int = 1, most: int = 2, seconds: float = 10.0, place: int = 1) -> PermitAsk:
    return PermitAsk("r/u@1", process, number, most, seconds, place)


def test_all_together_hold_no_more_than_there_are() -> None:
    lender = Lender()
    granted = [lender.ask(ask(process, 2, most=3), 0.0).number for process in ("a", "b", "c")]
    assert granted == [2, 1, 0]
    assert (lender.out("r/u@1", 0.0), lender.refused) == (3, 1)


def test_a_permit_is_free_again_when_its_time_is_over_and_not_before() -> None:
    lender = Lender()
    lender.ask(ask("a", most=1), 0.0)
    assert lender.ask(ask("b", most=1), 9.999).number == 0
    assert lender.ask(ask("b", most=1), 10.0).number == 1


def test_asked_again_it_is_renewed() -> None:
    lender = Lender()
    lender.ask(ask("a", most=1, place=1), 0.0)
    assert lender.ask(ask("a", most=1, place=2), 5.0).number == 1
    assert lender.ask(ask("b", most=1), 10.0).number == 0
    assert lender.ask(ask("b", most=1), 15.0).number == 1


def test_late_and_doubled_messages_neither_free_nor_take_what_was_lent_since() -> None:
    lender = Lender()
    lender.ask(ask("a", most=1, place=1), 0.0)
    lender.give_back(PermitReturn("r/u@1", "a", 1))
    assert lender.ask(ask("a", most=1, place=2), 1.0).number == 1
    lender.give_back(PermitReturn("r/u@1", "a", 1))
    assert lender.out("r/u@1", 1.0) == 1
    assert lender.ask(ask("a", 1, most=1, place=1), 1.0) == PermitAnswer("r/u@1", "a", 0, 1)
    assert lender.out("r/u@1", 1.0) == 1
    lender.give_back(PermitReturn("r/u@1", "a", 2))
    assert lender.out("r/u@1", 1.0) == 0


def test_what_a_dead_process_held_is_free() -> None:
    lender = Lender()
    lender.ask(ask("a"), 0.0)
    lender.gone("a")
    lender.gone("a")
    assert lender.out("r/u@1", 0.0) == 0


def test_the_account_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "MAX_BREAKERS", 2)
    lender = Lender()
    breakers = [PermitAsk(f"r{number}", "a", 1, 1, 10.0, 1) for number in range(3)]
    assert [lender.ask(one, 0.0).number for one in breakers] == [1, 1, 0]
    assert lender.ask(breakers[2], 11.0).number == 1


def borrow(borrower: Borrower, now: float, in_flight: int = 0, most: int = 1) -> object:
    return borrower.tick(most, 10.0, in_flight, 0.0, now)


def granted(borrower: Borrower, now: float, number: int = 1) -> None:
    borrower.is_wanted = True
    asked = borrow(borrower, now)
    assert isinstance(asked, PermitAsk)
    borrower.hear(PermitAnswer("r/u@1", "a", number, asked.number_of_ask), now, 1.0)


def test_nobody_asks_before_somebody_was_refused() -> None:
    borrower = Borrower("r/u@1", "a")
    assert borrow(borrower, 0.0) is None
    assert borrower.due(0.0) == inf
    borrower.is_wanted = True
    assert borrower.due(0.0) == 0.0
    assert borrow(borrower, 0.0) == PermitAsk("r/u@1", "a", 1, 1, 10.0, 1)


def test_each_asks_at_its_place_in_the_spread() -> None:
    borrower = Borrower("r/u@1", "a")
    borrower.is_wanted = True
    assert borrower.tick(1, 10.0, 0, 0.25, 5.0) is None
    assert borrower.due(5.0) == 5.25
    assert isinstance(borrower.tick(1, 10.0, 0, 0.25, 5.25), PermitAsk)


def test_a_permit_that_nobody_uses_goes_back_after_a_second() -> None:
    borrower = Borrower("r/u@1", "a")
    granted(borrower, 0.0)
    assert borrower.permits(0.9) == 1
    assert borrow(borrower, 0.9) is None
    assert borrower.due(0.9) == 1.0
    assert borrow(borrower, 1.0) == PermitReturn("r/u@1", "a", 1)
    assert borrower.permits(1.0) == 0


def test_it_goes_back_at_once_when_none_is_wanted_any_more() -> None:
    borrower = Borrower("r/u@1", "a")
    granted(borrower, 0.0)
    assert borrow(borrower, 0.1, most=0) == PermitReturn("r/u@1", "a", 1)
    assert borrow(borrower, 0.2, most=0) is None


def test_a_probe_that_takes_long_renews_it_and_its_time_runs_from_the_ask() -> None:
    borrower = Borrower("r/u@1", "a")
    borrower.is_wanted = True
    assert isinstance(borrow(borrower, 0.0), PermitAsk)
    borrower.hear(PermitAnswer("r/u@1", "a", 1, 1), 1.5, 1.0)
    assert borrow(borrower, 4.9, in_flight=1) is None
    assert borrow(borrower, 5.0, in_flight=1) == PermitAsk("r/u@1", "a", 1, 1, 10.0, 2)
    assert (borrower.permits(9.99), borrower.permits(10.0)) == (1, 0)


def test_an_old_answer_and_that_to_another_are_not_heard() -> None:
    borrower = Borrower("r/u@1", "a")
    borrower.is_wanted = True
    borrow(borrower, 0.0)
    for answer in (PermitAnswer("r/u@1", "b", 1, 1), PermitAnswer("r/u@1", "a", 1, 0)):
        borrower.hear(answer, 0.1, 1.0)
    assert borrower.permits(0.1) == 0
    borrower.hear(PermitAnswer("r/u@1", "a", 1, 1), 0.1, 1.0)
    borrow(borrower, 0.2, most=0)
    borrower.hear(PermitAnswer("r/u@1", "a", 1, 1), 0.3, 1.0)
    assert borrower.permits(0.3) == 0


def test_refused_it_asks_again_after_a_second_or_when_told_that_one_may_be_free() -> None:
    borrower = Borrower("r/u@1", "a")
    granted(borrower, 0.0, 0)
    borrower.is_wanted = True
    assert borrow(borrower, 0.5) is None
    assert borrower.due(0.5) == 1.0
    borrower.hurry(0.6)
    assert isinstance(borrow(borrower, 0.6), PermitAsk)


def test_without_an_answer_it_asks_again_as_long_as_somebody_waits() -> None:
    borrower = Borrower("r/u@1", "a")
    borrower.is_wanted = True
    borrow(borrower, 0.0)
    borrower.is_wanted = True
    assert borrow(borrower, 1.9) is None
    assert borrow(borrower, 2.0) == PermitAsk("r/u@1", "a", 1, 1, 10.0, 2)
    assert borrow(borrower, 4.0) is None
    assert borrower.due(4.0) == inf


def test_more_are_asked_for_while_those_held_are_in_use() -> None:
    borrower = Borrower("r/u@1", "a")
    borrower.is_wanted = True
    borrow(borrower, 0.0, most=3)
    borrower.hear(PermitAnswer("r/u@1", "a", 1, 1), 0.0, 1.0)
    borrower.is_wanted = True
    assert borrow(borrower, 0.1, in_flight=1, most=3) == PermitAsk("r/u@1", "a", 2, 3, 10.0, 2)
