"""The present policy of a route: from a configuration, or from what a running sidecar says of its own. Pure but for
`ask`."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final
from urllib.parse import quote

from sidecar.config.load import load_text
from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import BreakerPolicy, EjectionPolicy, Snapshot
from sidecar.tuning.pages import Ask
from sidecar.tuning.seen import CannotTune

_LEFT_OUT: Final = ("failure_header", "half_open.check", "candidate")
"""Of `circuit_breaker`: what was a failure is known of each call, a check was not kept, and a candidate acts on
nothing."""


@dataclass(frozen=True, slots=True)
class Present:
    """What is compared with."""

    policy: BreakerPolicy
    ejections: Mapping[str, EjectionPolicy]
    """By upstream."""
    home: str
    """The first upstream of the route."""


def present_in(snapshot: Snapshot, route: str) -> Present:
    """Raises: CannotTune, for a route that there is not, or that asks nobody."""
    names = [one.name for one in snapshot.routes]
    found = next((one for one in snapshot.routes if one.name == route), None)
    if found is None:
        near = get_close_matches(route, names, n=1)
        raise CannotTune(f"there is no route {route!r}{f'; did you mean {near[0]!r}?' if near else ''}")
    if not found.upstreams:
        raise CannotTune(f"route {route!r} asks no upstream, so it has no breaker")
    asked = found.asked_upstreams(snapshot.upstreams)
    ejections = {name: snapshot.upstreams[name].ejection for name in asked}
    return Present(found.breaker, ejections, found.upstreams[0][0])


def present_of(ask: Ask, route: str) -> Present:
    """Of a running sidecar.

    Raises:
        CannotTune: it does not say it as this version reads it.
    """
    active = ask(f"/config?route={quote(route, safe='')}")["active"]
    if not active["routes"]:
        raise CannotTune(f"there is no route {route!r}")
    written = active["routes"][0]
    breaker = {name: text for name, text in _below(written, "circuit_breaker.").items() if _is_kept(name)}
    upstreams = {name: _below(told, "ejection.") for name, told in active["upstreams"].items()}
    numbered = {name: f"u{number}" for number, name in enumerate(upstreams)}
    sections = ", ".join(
        f'{numbered[name]}: {{endpoints: ["127.0.0.1:1", "127.0.0.1:2"], ejection: {_flow(told)}}}'
        for name, told in upstreams.items()
    )
    direction = "outbound" if written.get("listener") == "outbound" else "inbound"
    text = f"""\
version: 1
upstreams: {{{sections}}}
routes: [{{name: r, listener: {direction}, upstream: u0, circuit_breaker: {_flow(breaker)}}}]
"""
    try:
        snapshot = load_text(text).snapshot
    except ValueError as error:
        raise CannotTune(f"the policy in use is not written as this version reads it: {error}") from error
    ejections = {name: snapshot.upstreams[number].ejection for name, number in numbered.items()}
    return Present(snapshot.routes[0].breaker, ejections, "")


def _is_kept(name: str) -> bool:
    return not any(name == one or name.startswith(f"{one}.") for one in _LEFT_OUT)


def _below(told: Mapping[str, str], start: str) -> dict[str, str]:
    """Keys of one section, without its name."""
    return {name.removeprefix(start): text for name, text in told.items() if name.startswith(start)}


def _flow(told: Mapping[str, str]) -> str:
    """Dotted keys with what stands behind them, as a mapping of YAML in one line."""
    tree: dict[str, Any] = {}
    for name, text in told.items():
        *sections, last = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = text
    return _written(tree)


def _written(tree: Mapping[str, Any]) -> str:
    items = (f"{name}: {_written(one) if isinstance(one, dict) else one}" for name, one in tree.items())
    return "{" + ", ".join(items) + "}"
