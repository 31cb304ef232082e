"""A second try beside one that is slow: what has to hold of the exchange for it.

What the route's policy says of it is `core/hedge.py`'s; the race begins it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sidecar.core.deadline import MIN_SEND_SECONDS
from sidecar.core.grpc_status import FAILURES
from sidecar.core.retry import MARK, REPEATABLE
from sidecar.forwarding import lineage

if TYPE_CHECKING:
    from sidecar.core.snapshot import RetryPolicy
    from sidecar.forwarding.attempt import Attempt
    from sidecar.forwarding.live import Destination
    from sidecar.forwarding.story import Story
    from sidecar.upstream.cluster import AnyPool, Cluster


def may_hedge(story: Story, policy: RetryPolicy, running: Sequence[Attempt], now: float) -> bool:
    """Whether one more try beside these does no harm, and could help."""
    if story.request.method not in REPEATABLE and not policy.is_non_idempotent:
        return False
    if story.request.traits.upgrade or story.request.listener in story.service.shut.pressed:
        return False  # in an overload of our own all are slow, and more work would make them slower
    if not policy.is_nested and (MARK in story.request.lookup or lineage.is_for_retry(story)):
        return False
    if any(attempt.status or attempt.permit.is_probe or attempt.is_in_line for attempt in running):
        return False
    return is_body_here(story) and story.deadline - now > MIN_SEND_SECONDS


def is_body_here(story: Story) -> bool:
    """The client has sent all of it, and it can be sent again."""
    body = story.body
    return body is None or (body.is_complete and body.is_resendable)


def is_worse(status: int, grpc_status: int | None) -> bool:
    """Whether an answer is one that waits for the other attempt: what fails fast is not to win a race."""
    return status >= 500 or grpc_status in FAILURES


def is_for_hedge(cluster: Cluster, pool: AnyPool, attempts: Sequence[Attempt]) -> bool:
    """Whether a hedge may go to this endpoint: one that was not tried, and that has a place. It stands in no line
    for a connection: it would be late, and in the way of others."""
    if any(one.pool is pool for one in attempts):
        return False
    return bool(pool.idle) or cluster.connections < cluster.policy.limits.max_connections


def take_token(destination: Destination, now: float) -> bool:
    """Whether one more hedge may be sent, by its own bound and the budget of retries; it is taken off both if so."""
    hedging, budget = destination.hedging, destination.retry_budget
    if hedging is None or budget is None or not hedging.take(budget.requests):
        return False
    if not budget.take(now, destination.breaker.tally.successful):
        hedging.give_back()
        return False
    return True


def give_token_back(destination: Destination) -> None:
    """The hedge that was taken last is not sent."""
    if destination.hedging is not None:
        destination.hedging.give_back()
    if destination.retry_budget is not None:
        destination.retry_budget.give_back()
