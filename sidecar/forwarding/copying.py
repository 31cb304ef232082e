"""Which requests of a route are copied for another upstream (`mirror`), and how many at a time.

Chosen when the request's head is here, and begun in the next turn of the loop, so that the request itself comes
first: whatever happens to a copy, a mistake of ours included, the request neither waits for it nor hears of it. Owned
by the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.mirrored import MARK, CopyOutcome
from sidecar.core.snapshot import MirrorPolicy
from sidecar.forwarding.copy import Copy, CopyOwner
from sidecar.forwarding.live import Copier, LiveRoute

if TYPE_CHECKING:
    from sidecar.forwarding.service import Service
    from sidecar.forwarding.story import Story
    from sidecar.upstream.cluster import Cluster


class Copying(Copier, CopyOwner):
    """Of one route."""

    __slots__ = ("_methods", "cluster", "in_flight", "policy", "service")

    def __init__(self, service: Service, policy: MirrorPolicy, cluster: Cluster) -> None:
        self.service = service
        self.policy = policy
        self.cluster = cluster
        """Where copies go."""
        self.in_flight = 0
        self._methods = frozenset(method.encode() for method in policy.methods)

    def __repr__(self) -> str:
        return f"<Copying to {self.cluster.name}, {self.in_flight} in flight>"

    def choose(self, story: Story, route: LiveRoute) -> None:
        """Have a copy sent, if this request is to have one. Before anything of its body was given away."""
        request, service = story.request, self.service
        if request.method not in self._methods or MARK in request.lookup or request.traits.upgrade:
            return
        if service.rng.random() >= self.policy.share:
            return
        try:
            self._begin(story, route)
        except Exception as error:
            message = f"an error in the copy of a request of {route.name}"
            service.loop.call_exception_handler({"message": message, "exception": error})

    def _begin(self, story: Story, route: LiveRoute) -> None:
        service = self.service
        outcome = None
        if service.memory.is_over or service.memory.is_full:
            outcome = CopyOutcome.NO_MEMORY
        elif self.in_flight >= self.policy.most_in_flight or story.request.listener in service.shut.pressed:
            outcome = CopyOutcome.CROWDED
        if outcome is not None:
            service.observe.copy_ended(route.name, self.cluster.name, outcome)
            return
        copy = Copy(self, story, route)
        self.in_flight += 1
        service.beside.copies.add(copy)
        if story.body is not None:
            story.body.tee_to(copy)
        service.loop.call_soon(copy.begin)

    def ended(self, copy: Copy) -> None:
        self.in_flight -= 1
        self.service.beside.copies.discard(copy)
