"""What keeps a request from its upstream before any breaker is asked: a crowd, a listener that ends or is overloaded,
too little time, and a path that would leave its prefix.

Each raises `GivenUp`, which becomes the answer, or does nothing. The exchange calls them in its order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.errors import Reason
from sidecar.core.path import has_dot_segment
from sidecar.forwarding.given_up import GivenUp

if TYPE_CHECKING:
    from sidecar.core.admission import BudgetAdmission
    from sidecar.forwarding.acting import Rewriting
    from sidecar.forwarding.live import LiveRoute
    from sidecar.forwarding.story import Story


def check_prefix(rewriting: Rewriting, path: bytes) -> None:
    """A dot segment that an upstream resolves could undo the prefix that is put before it."""
    if rewriting.prefix is not None and has_dot_segment(path):
        raise GivenUp(Reason.BAD_REQUEST, "a dot segment could leave the rewritten prefix")


def check_room(story: Story, route: LiveRoute) -> None:
    """There is a crowd: `limits.max_requests` holds.

    The app's own calls have as much again, since the requests that they are made for would end with them; critical
    routes have a tenth.
    """
    service, listener = story.service, story.request.listener
    service.shut.crowded(listener, story.started)
    most = service.max_requests
    if route.is_egress:
        most *= 2
    if route.policy.is_critical:
        most += most // 10
    if len(service.exchanges) <= most:
        return
    service.shut.filled(listener)
    detail = f"this sidecar has {service.max_requests} requests under way (limits.max_requests)"
    raise GivenUp(Reason.OVERLOADED, detail, retry_after_seconds=1.0, is_own_lack=True)


def check_listener(story: Story, route: LiveRoute, refusal: GivenUp | None) -> None:
    """The listener ends, or is overloaded: then those are refused whom the gate has chosen (`refusal`), and those
    whose time would hardly do; critical routes never."""
    if story.request.listener in story.service.shut.closed_to_new:
        raise GivenUp(Reason.DRAINING, "this sidecar is shutting down")
    if route.policy.is_critical:
        return
    if refusal is not None:
        raise refusal
    budget = story.budget
    if budget is not route.plain_budget and budget.seconds < route.usual_seconds(story.started):
        detail = "this sidecar is overloaded, and less time is left than this route usually needs"
        raise GivenUp(Reason.OVERLOADED, detail, is_own_lack=True)


def check_admission(story: Story, admission: BudgetAdmission) -> None:
    """A call whose time is too short to succeed is work that nobody waits for."""
    if admission.should_refuse(story.budget.seconds, story.started):
        raise GivenUp(Reason.DEADLINE_EXCEEDED, "less time is left than this route usually needs")
