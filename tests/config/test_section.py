"""Each key is declared once: from there come reading, the snapshot, the default that is shown, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import pytest

from sidecar.config.load import load_text
from sidecar.config.schema import reading
from sidecar.config.schema.breaker import CircuitBreaker, Thresholds
from sidecar.config.schema.file import BUILT_IN, File, Settings
from sidecar.config.schema.listeners import ListenerSection
from sidecar.config.schema.policies import Timeouts
from sidecar.config.schema.routes import Match, Route
from sidecar.config.schema.section import Section, keys_of, section_of
from sidecar.config.schema.upstreams import UpstreamSection
from sidecar.core import snapshot as core

FILLED_OTHERWISE = {
    "version", "listeners", "upstreams", "defaults", "routes",  # put together item by item
    "respond.body_file",
    "fallback.body_file",  # its content is the body
}  # fmt: skip
NOT_IN_A_FILE = {
    core.Snapshot: {"listeners", "upstreams", "routes", "passed", "files", "digest"},
    core.Listener: {"name"},
    core.Upstream: {"name"},
    core.BreakerPolicy: {"counts_rate_limited", "judge_after_seconds"},
    core.Route: {"direction", "filters", "hidden"},  # its listener's, of `weights`, what the environment gave
}
WHOLES: list[tuple[type[Section], object]] = [
    (Settings, BUILT_IN),
    (ListenerSection, ListenerSection.built_in),
    (UpstreamSection, UpstreamSection.built_in),
    (Route, core.Route("", "", (), (), fallback=core.FallbackPolicy())),
    (Match, core.Match()),
]


def declared(section: type[Section], at: str = "") -> Iterator[tuple[str, str | None]]:
    """Each key that holds a value, dotted, and the dotted field that it fills."""
    for name, about in keys_of(section).items():
        inner = section_of(about.annotation)
        fills = None if about.fills is None else f"{at}{about.fills}"
        if inner is None or about.form is not None:
            yield name, fills
            continue
        for below, filled in declared(inner, at if fills is None else f"{fills}."):
            yield f"{name}.{below}", filled


def field_names(value: object, at: str = "") -> Iterator[str]:
    """Each field of an object of the snapshot, dotted; below what is an object itself."""
    assert is_dataclass(value)
    left_out = NOT_IN_A_FILE.get(type(value), set())
    for field in fields(value):
        below = getattr(value, field.name)
        if field.name in left_out:
            continue
        if is_dataclass(below) and not isinstance(below, core.Address):
            yield from field_names(below, f"{at}{field.name}.")
        else:
            yield f"{at}{field.name}"


@pytest.mark.parametrize("section", [File, ListenerSection, UpstreamSection, Route, Match])
def test_each_key_fills_a_field_of_the_snapshot(section: type[Section]) -> None:
    keys = [key for key, fills in declared(section) if fills is None and not key.startswith("defaults.")]
    assert {key for key in keys if key not in FILLED_OTHERWISE} == set()


@pytest.mark.parametrize(("section", "value"), WHOLES, ids=lambda one: getattr(one, "__name__", ""))
def test_each_field_of_the_snapshot_has_a_key(section: type[Section], value: object) -> None:
    filled = {fills for _, fills in declared(section) if fills is not None}
    missing = {
        name
        for name in field_names(value)
        if not any(one == name or one.startswith(f"{name}.") for one in filled)
    }
    assert missing == set()


def test_a_section_changes_what_it_gives_and_nothing_else() -> None:
    base = core.RouteTimeouts(1.0, 2.0, 3.0, 4.0)
    given = reading.read(Timeouts, {"attempt": "7s"})
    assert given.store(base) == core.RouteTimeouts(1.0, 7.0, 3.0, 4.0)
    assert reading.read(Timeouts, {}).store(base) is base


def test_a_key_may_fill_a_field_further_in() -> None:
    """`drain_timeout` and `drain.delay` fill one object, which neither of them may lose."""
    both = reading.read(Settings, {"version": 1, "drain_timeout": "9s", "drain": {"delay": "1s"}})
    assert both.store(BUILT_IN).drain == core.Drain(9.0, 1.0)


def test_what_is_built_in_is_shown_as_the_file_would_say_it() -> None:
    shown = {name: about.default for name, about in keys_of(CircuitBreaker).items()}
    assert shown == {
        "sliding_window": None,
        "minimum_calls": 20,
        "failure_rate_threshold": "50%",
        "consecutive_failures": 5,
        "slow_call_duration": None,
        "slow_call_rate_threshold": "80%",
        "open_for": "5s",
        "max_open_for": "1m",
        "mode": "enforce",
        "scope": "process",
        "half_open": None,
        "ramp": "0s",
        "failure_on": ["5xx", "connect_failure", "reset", "timeout"],
        "failure_header": None,
        "count_timeout_after": "auto",
        "warm_up": "30s",
        "candidate": None,
    }


def test_a_key_without_a_form_or_a_field_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match=r"Bare\.one is declared with `key` or `required`"):

        class Bare(Section):
            one: int | None = None


def test_what_is_told_stands_in_the_order_of_the_reference() -> None:
    text = 'version: 1\nupstreams: {a: {endpoints: ["a:1"]}}\nroutes: [{name: r, upstream: a}]\n'
    told = list(Thresholds.told(load_text(text).snapshot.routes[0].breaker, prefix="candidate."))
    known = [f"candidate.{key}" for key, _ in declared(Thresholds)]
    assert told == [key for key in known if key in told]
    assert len(told) == 8
