"""What another configuration would change, and which breakers would keep their state. Pure, on two snapshots.

Says what a reload does, for its log line, the admin API and `sidecar diff`; `runtime/assembly.py` does it, by the
same rules: a breaker belongs to a route and an upstream, and ends when either goes or none of the upstream's
endpoints stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from enum import Enum
from typing import TypeVar

from sidecar.config.tell import render
from sidecar.config.tell.render import Rendered
from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Route, Snapshot

T = TypeVar("T")

RESTART_KEYS = ("probes.", "admin.", "telemetry.", "workers")
"""Keys with these beginnings take effect at the next start only."""


class Kind(Enum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One key, by its dotted name; None for unset. Values are as the file writes them."""

    key: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.old)} → {_shown(self.new)}"


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one breaker."""

    upstream: str
    is_kept: bool
    why: str

    def __str__(self) -> str:
        return f"breaker {self.upstream} {'kept' if self.is_kept else 'reset'}: {self.why}"


@dataclass(frozen=True, slots=True)
class Item:
    """One route, upstream or listener that is not as it was."""

    name: str
    kind: Kind
    changes: tuple[Change, ...] = ()
    """For one that has changed."""
    breakers: tuple[Fate, ...] = ()
    """For a route: each breaker that it has or had."""


@dataclass(frozen=True, slots=True)
class Diff:
    """All that differs. Falsy when nothing does."""

    routes: tuple[Item, ...] = ()
    upstreams: tuple[Item, ...] = ()
    listeners: tuple[Item, ...] = ()
    process: tuple[Change, ...] = ()
    """Keys that are neither of a route, nor of an upstream, nor of a listener."""
    breakers_kept: int = 0
    """Of all routes, changed or not."""
    breakers_reset: int = 0
    is_order_changed: bool = False
    """Routes that stay stand in another order, which decides between equally specific ones."""

    def __bool__(self) -> bool:
        items = self.routes or self.upstreams or self.listeners or self.process
        return bool(items) or self.is_order_changed

    @property
    def size(self) -> int:
        """How many things differ."""
        return len(self.routes) + len(self.upstreams) + len(self.listeners) + len(self.process)

    @property
    def pending_restart(self) -> tuple[Change, ...]:
        """What cannot change on the fly."""
        return _at_restart(self.process)

    def count(self, kind: Kind) -> int:
        """How many routes were added, removed or changed."""
        return sum(item.kind is kind for item in self.routes)


def diff(old: Snapshot, new: Snapshot) -> Diff:
    """Everything that differs between two snapshots, and the breakers' fates."""
    before = {route.name: route for route in old.routes}
    after = {route.name: route for route in new.routes}
    fates = {name: _fates(before.get(name), after.get(name), old, new) for name in before | after}
    kept = [fate.is_kept for all_of_one in fates.values() for fate in all_of_one]
    return Diff(
        _items(before, after, render.route, fates),
        _items(old.upstreams, new.upstreams, render.upstream, {}),
        _items(old.listeners, new.listeners, render.listener, {}),
        _process_changes(old, new),
        breakers_kept=sum(kept),
        breakers_reset=sum(not is_kept for is_kept in kept),
        is_order_changed=[name for name in before if name in after]
        != [name for name in after if name in before],
    )


def waiting(old: Snapshot, new: Snapshot) -> tuple[str, ...]:
    """In words, what of `new` cannot change on the fly in a process that was started with `old`."""
    return tuple(str(change) for change in _at_restart(_process_changes(old, new)))


def _at_restart(found: Iterable[Change]) -> tuple[Change, ...]:
    return tuple(change for change in found if change.key.startswith(RESTART_KEYS))


def changes(old: Rendered, new: Rendered) -> tuple[Change, ...]:
    """The keys that two written forms disagree on."""
    return tuple(Change(key, old.get(key), new.get(key)) for key in old | new if old.get(key) != new.get(key))


def _process_changes(old: Snapshot, new: Snapshot) -> tuple[Change, ...]:
    """The words are made only where something differs: a reload that changes routes alone needs none of these."""
    if _process_part(old) == _process_part(new):
        return ()
    return changes(render.process(old), render.process(new))


def _process_part(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, listeners={}, upstreams={}, routes=(), passed={}, files=(), digest="")


def _items(
    old: Mapping[str, T],
    new: Mapping[str, T],
    write: Callable[[T], Rendered],
    fates: Mapping[str, tuple[Fate, ...]],
) -> tuple[Item, ...]:
    """What was added, removed or changed, or lost a breaker for a reason that is not its own."""
    found = []
    for name in {**old, **new}:
        one, two, own = old.get(name), new.get(name), fates.get(name, ())
        if one is None:
            found.append(Item(name, Kind.ADDED, (), own))
        elif two is None:
            found.append(Item(name, Kind.REMOVED, (), own))
        elif one != two or not all(fate.is_kept for fate in own):
            found.append(Item(name, Kind.CHANGED, changes(write(one), write(two)), own))
    return tuple(found)


def _fates(old: Route | None, new: Route | None, before: Snapshot, after: Snapshot) -> tuple[Fate, ...]:
    """What becomes of the breakers that the route had. One that begins has no fate yet."""
    if old is None:
        return ()
    stays = frozenset(new.asked_upstreams(after.upstreams)) if new is not None else frozenset()
    fates = []
    for name in old.asked_upstreams(before.upstreams):
        if new is None:
            fates.append(Fate(name, False, "the route is removed"))
        elif name not in stays:
            fates.append(Fate(name, False, "the route does not use this upstream any more"))
        elif not after.upstreams[name].keeps_breakers_of(before.upstreams[name]):
            fates.append(Fate(name, False, "none of the upstream's endpoints stays"))
        elif old.breaker != new.breaker:
            fates.append(Fate(name, True, _why_kept(old, new)))
        else:
            fates.append(Fate(name, True, "nothing of it has changed"))
    return tuple(fates)


def _why_kept(old: Route, new: Route) -> str:
    if old.breaker.window == new.breaker.window:
        return "new thresholds apply to the state and window it has"
    return "new thresholds apply to the state it has; the window is another and starts empty"


def _shown(value: str | None) -> str:
    return "unset" if value is None else value
