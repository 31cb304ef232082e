"""Thousands of rules are imported with work for each of them, not for each pair of them; and nothing is told less."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sidecar.translate import order, resilience4j
from sidecar.translate.draft import Draft, DraftRoute, Keys
from sidecar.translate.order import MOST_COMPARED, MOST_SEGMENTS, Difference, differences
from sidecar.translate.source import SourceError, documents
from sidecar.translate.translate import translate


def routes_of(*matches: Keys | list[Keys]) -> list[DraftRoute]:
    return [
        DraftRoute(f"r{number}", {"match": match} if match else {}, f"f:{number} rule")
        for number, match in enumerate(matches)
    ]


def of_all_pairs(routes: list[DraftRoute]) -> list[Difference]:
    """Each match with each before it: what `differences` is to say, as long as few overlap."""
    found: list[Difference] = []
    matches = [(route, match) for route in routes for match in order._matches(route)]
    told: set[tuple[str, str]] = set()
    gone: set[str] = set()
    for number, (later, wanted) in enumerate(matches):
        for earlier, taken in matches[:number]:
            pair = earlier.name, later.name
            if earlier is later or pair in told or {*pair} & gone:
                continue
            if order._rank(wanted) >= order._rank(taken) or order._is_disjoint(taken, wanted):
                continue
            told.add(pair)
            place, _, path = later.origin.partition(" ")
            is_dead = len(order._matches(later)) == 1 and order._covers(taken, wanted)
            if is_dead:
                gone.add(later.name)
                why = f"left out: rule {earlier.name} stands before it and takes all of its requests"
            else:
                why = f"{earlier.name} comes first in the source, but {later.name} is more specific and wins here"
            found.append((place, path, why, later if is_dead else None))
    return found


PATHS: list[Keys] = [
    {}, {"prefix": "/"}, {"prefix": "/a"}, {"prefix": "/a/"}, {"prefix": "/a/b"}, {"prefix": "/ab"},
    {"prefix": "/" + "a/" * (MOST_SEGMENTS + 3)}, {"prefix": "/" + "a/" * (MOST_SEGMENTS + 9)}, {"exact": ""},
    {"exact": "/a"}, {"exact": "/a/"}, {"exact": "/a/b"}, {"exact": "//a"}, {"exact": "/"}, {"regex": "/a.*"},
]  # fmt: skip
OTHERS: list[Keys] = [
    {}, {}, {}, {"methods": ["GET"]}, {"headers": {"x": "1"}}, {"headers": {"x": "2"}},
    {"headers": {"x": {"present": True}, "y": "1"}}, {"query": {"q": "1"}}, {"port": 80}, {"port": 81},
]  # fmt: skip


def test_it_says_what_a_comparison_of_each_with_each_would_say() -> None:
    rng = random.Random(7)

    def match() -> Keys:
        path = rng.choice(PATHS)
        return ({"path": path} if path else {}) | rng.choice(OTHERS)

    for _ in range(400):
        matches: list[Any] = [
            [match(), match()] if rng.random() < 0.2 else match() for _ in range(rng.randrange(2, 12))
        ]
        routes = routes_of(*matches)
        assert list(differences(routes)) == of_all_pairs(routes), matches


def compared(monkeypatch: pytest.MonkeyPatch, matches: list[Keys]) -> tuple[int, list[Difference]]:
    """How many pairs were looked at, and what was said."""
    count = 0
    is_disjoint = order._is_disjoint

    def counted(one: Keys, two: Keys) -> bool:
        nonlocal count
        count += 1
        return is_disjoint(one, two)

    with monkeypatch.context() as patch:
        patch.setattr(order, "_is_disjoint", counted)
        said = list(differences(routes_of(*matches)))
    return count, said


MANY = 1500


def test_rules_whose_paths_have_nothing_in_common_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[Keys] = [
        {"path": {"prefix": "/" + "x" * (number % 40) + str(number)}} for number in range(MANY)
    ]
    assert compared(monkeypatch, paths) == (0, [])
    below: list[Keys] = [
        {"path": {"exact": f"{one['path']['prefix']}/y"}, "methods": ["GET"]} for one in paths
    ]
    count, told = compared(monkeypatch, paths + below)
    assert (count, len(told)) == (MANY, MANY)


def test_behind_a_rule_that_takes_everything_each_is_compared_with_that_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    headers: list[Keys] = [{"headers": {"x": str(number)}} for number in range(MANY)]
    count, told = compared(monkeypatch, [{}, *headers])
    assert (count, len(told)) == (MANY, MANY)
    assert all(left_out is not None for *_, left_out in told)


def test_where_all_overlap_the_first_are_compared_and_the_rest_is_told_in_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide: list[Keys] = [{"headers": {f"x{number}": "1"}} for number in range(MANY)]
    narrow: list[Keys] = [{"path": {"prefix": f"/{number}"}, "headers": {"y": "1"}} for number in range(10)]
    count, told = compared(monkeypatch, wide + narrow)
    assert (count, len(told)) == (10 * MOST_COMPARED, 10 * (MOST_COMPARED + 1))
    assert told[MOST_COMPARED][:3] == (
        f"f:{MANY}",
        "rule",
        "more than 64 rules before it are less specific: the rest was not compared with it",
    )


def test_names_that_are_wanted_by_many_are_found_in_one_step_each() -> None:
    found = Draft("inbound")
    asked = 0

    class Names(set[str]):
        def __contains__(self, name: object) -> bool:
            nonlocal asked
            asked += 1
            return super().__contains__(name)

    found._names = Names()
    for _ in range(MANY):
        found.keep(found.route("one", ""))
    assert asked <= 2 * MANY
    assert [route.name for route in found.routes] == [
        "one",
        *(f"one-{number}" for number in range(2, MANY + 1)),
    ]
    found.drop(found.routes[:1])
    assert found.route("one", "").name == "one"


def test_what_comes_to_more_than_a_file_may_have_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.config.yaml.parse.MAX_FILE_BYTES", 100)
    text = """\
kind: HTTPRoute
metadata: {name: a}
spec: {rules: [{backendRefs: [{name: b, port: 80}]}]}
"""
    with pytest.raises(
        SourceError, match=r"cannot be one configuration: .* more than 100 bytes; import fewer of the rules"
    ):
        translate([("f", text)], "inbound")


def settings_of(count: int) -> str:
    """resilience4j's file with so many instances, and as many keys that they share."""
    lines = ["resilience4j:"]
    for kind in ("circuitbreaker", "retry"):
        lines += [f"  {kind}:", "    configs:", "      default:"]
        lines += [f"        unknown{number}: 1" for number in range(count)]
        lines += ["    instances:", *(f"      i{number}: {{maxAttempts: 2}}" for number in range(count))]
    return "\n".join(lines)


def test_a_key_of_resilience4j_is_read_once_whatever_the_number_of_instances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    word = resilience4j._word
    counts: list[int] = []

    def counted(key: str) -> str:
        counts[-1] += 1
        return word(key)

    monkeypatch.setattr(resilience4j, "_word", counted)
    for size in (20, 40, 80):
        counts.append(0)
        (document,) = documents(settings_of(size), "application.yml")
        resilience4j.translate(document, Draft("outbound"))
    assert counts[2] - counts[1] == 2 * (counts[1] - counts[0])
