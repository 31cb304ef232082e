"""What a translation has come to so far: routes and upstreams in the words of the file, and what was not carried."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Any

from sidecar.core.dataclass import dataclass
from sidecar.translate.source import Item

Keys = dict[str, Any]
"""As the file has them: text, numbers, booleans, lists and mappings."""

_UNNAMED = re.compile(r"[^A-Za-z0-9._-]+")
MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that the result does not say as the source did."""

    place: str
    """FILE:LINE"""
    path: str
    """Dotted, in the source."""
    why: str
    changes_reach: bool
    """Another request is served than before, or goes elsewhere, or one is not."""

    @property
    def file(self) -> str:
        return self.place.rpartition(":")[0]

    @property
    def line(self) -> int:
        return int(self.place.rpartition(":")[2])

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.path, self.why) if part)


@dataclass(slots=True, eq=False)
class DraftRoute:
    name: str
    keys: Keys
    origin: str
    """What of the source it is, for a comment."""
    losses: list[Loss] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class DraftUpstream:
    name: str
    host: str
    """As the source calls it, the name of a Service in its short form."""
    namespace: str
    port: int
    keys: Keys
    origin: str
    losses: list[Loss] = field(default_factory=list)


class Draft:
    """Grows while documents are read."""

    def __init__(self, listener: str) -> None:
        self.listener = listener
        """Of the routes that are made."""
        self.routes: list[DraftRoute] = []
        self._names: set[str] = set()
        """Of `routes`."""
        self._next_numbers: dict[str, int] = {}
        """By the name that was wanted: what comes behind it where that is taken."""
        self.upstreams: dict[str, DraftUpstream] = {}
        self.losses: list[Loss] = []
        """All of them, in the order they were found."""
        self._at: DraftRoute | DraftUpstream | None = None

    def lose(self, item: Item, why: str, *, reach: bool) -> None:
        """Say that `item` is not carried; what is made now has it as a comment too."""
        item.take()
        self.note(Loss(item.place, item.path, why, reach))

    def note(self, loss: Loss) -> None:
        self.losses.append(loss)
        if self._at is not None:
            self._at.losses.append(loss)

    def route(self, name: str, origin: str) -> DraftRoute:
        """Begin a route; what is lost from here on is lost in it."""
        route = DraftRoute(self._free_name(name), {"listener": self.listener}, origin)
        self._at = route
        return route

    def keep(self, route: DraftRoute) -> None:
        self.routes.append(route)
        self._names.add(route.name)
        self._at = None

    def drop(self, routes: Iterable[DraftRoute]) -> None:
        """These are not made after all."""
        names = {route.name for route in routes}
        self.routes = [route for route in self.routes if route.name not in names]
        self._names -= names

    def leave(self) -> None:
        """What is lost from here on belongs to no route."""
        self._at = None

    def upstream(
        self, host: str, namespace: str, port: int, origin: str, *, suffix: str = ""
    ) -> DraftUpstream:
        """That of a Service and port, made at its first use. `suffix` tells apart what has the same place."""
        name = as_name(f"{host}-{port}{suffix}" if not namespace else f"{host}.{namespace}-{port}{suffix}")
        known = self.upstreams.get(name)
        if known is None:
            place = f"{host}.{namespace}" if namespace and "." not in host else host
            shown = f"[{place}]" if ":" in place else place
            known = DraftUpstream(name, host, namespace, port, {"endpoints": [f"{shown}:{port}"]}, origin)
            self.upstreams[name] = known
        return known

    def upstreams_of(self, host: str, namespace: str) -> Iterator[DraftUpstream]:
        """Those of a Service, whatever their port."""
        wanted = full_name(host, namespace)
        for one in self.upstreams.values():
            if full_name(one.host, one.namespace) == wanted:
                yield one

    def _free_name(self, wanted: str) -> str:
        first = name = as_name(wanted)
        while name in self._names:
            number = self._next_numbers.get(first, 2)
            name, self._next_numbers[first] = f"{first}-{number}", number + 1
        return name


def sent_to(shares: dict[str, Keys]) -> Keys:
    """The keys by which requests go to these upstreams: each with its `weight`, and what is changed for it alone."""
    if len(shares) == 1:
        ((name, share),) = shares.items()
        if set(share) == {"weight"}:
            return {"upstream": name}
    return {
        "weights": {name: share["weight"] if len(share) == 1 else share for name, share in shares.items()}
    }


def as_name(text: str) -> str:
    """`text` as the name of a route or an upstream."""
    return _UNNAMED.sub("-", text).strip("-._")[:MAX_NAME] or "unnamed"


def full_name(host: str, namespace: str) -> str:
    """A Service's name with its namespace, whichever way it was written; other hosts as they are."""
    parts = host.lower().removesuffix(".cluster.local").split(".")
    if len(parts) == 3 and parts[2] == "svc":
        return f"{parts[0]}.{parts[1]}"
    return f"{parts[0]}.{namespace}" if len(parts) == 1 and namespace else ".".join(parts)


def service_hosts(host: str, namespace: str) -> list[str]:
    """What callers may write for a Service: its name, with its namespace, and so on; another host is itself."""
    if "*" in host:
        return [host]
    name = full_name(host, namespace)
    first, _, rest = name.partition(".")
    is_service = "." not in host or host.lower().rstrip(".").endswith((".svc", ".svc.cluster.local"))
    if not is_service or not rest or "." in rest:
        return [host]
    return [first, name, f"{name}.svc", f"{name}.svc.cluster.local"]
