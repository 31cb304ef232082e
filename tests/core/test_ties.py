"""An app through which no deadline travels is noticed, once, and not before it is no chance."""

from __future__ import annotations

from sidecar.core.ties import ENOUGH, Ties, advice, told


def test_one_call_less_than_enough_says_nothing_and_that_one_is_news_once() -> None:
    ties = Ties()
    ties.untied = ENOUGH - 1
    assert not ties.has_news()
    ties.untied += 1
    assert ties.are_missing
    assert [ties.has_news() for _ in range(3)] == [True, False, False]


def test_a_single_call_that_could_be_tied_shows_that_it_works() -> None:
    ties = Ties()
    ties.untied, ties.tied = 10 * ENOUGH, 1
    assert not ties.are_missing
    assert not ties.has_news()


def test_the_advice_says_what_to_do() -> None:
    assert "none of 120 calls" in advice(120)
    assert "traceparent" in advice(120)


def test_ties_by_trace_id_alone_are_told_until_one_is_exact() -> None:
    ties = Ties()
    assert told(ties) is None
    ties.tied = ties.by_trace_alone = 3
    assert "all 3 calls" in (told(ties) or "")
    ties.tied += 1
    assert told(ties) is None
    ties.tied, ties.untied = 0, ENOUGH
    assert told(ties) == advice(ENOUGH)
