"""The route's `retry`: what has to hold of an exchange for a further try, and when it is made. Decisions alone;
`mending.py` acts.

What the route's policy says of an answer or a failure is `core/retry.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from sidecar.core.deadline import MIN_SEND_SECONDS
from sidecar.core.observe import Notice
from sidecar.core.retry import (
    MARK,
    REPEATABLE,
    RetryCause,
    cause_after,
    cause_of,
    is_wanted,
    wait_seconds,
)
from sidecar.core.transition import State
from sidecar.forwarding import lineage, verdicts
from sidecar.upstream.streams import Processed

if TYPE_CHECKING:
    from sidecar.core.head import ResponseHead
    from sidecar.core.snapshot import RetryPolicy
    from sidecar.forwarding.attempt import Attempt
    from sidecar.forwarding.given_up import GivenUp
    from sidecar.forwarding.live import Destination, LiveRoute
    from sidecar.forwarding.story import Story
    from sidecar.upstream.cluster import AnyPool, Cluster

ADMITTING = frozenset({State.CLOSED, State.DISABLED, State.FORCED_CLOSED})
"""States of a breaker in which there are retries: in the others it finds out by itself."""


def may_retry(story: Story, policy: RetryPolicy, retries: int, cause: RetryCause) -> bool:
    """Whether one more try than `retries` does no harm, and is left."""
    if retries >= policy.attempts:
        return False
    is_safe = story.request.method in REPEATABLE or policy.is_non_idempotent
    if not is_safe and not cause.has_reached_nobody:
        return False
    if story.body is not None and not story.body.is_resendable:
        return False
    return policy.is_nested or not (MARK in story.request.lookup or lineage.is_for_retry(story))


def cause_after_failure(story: Story, route: LiveRoute, retries: int, error: GivenUp) -> RetryCause | None:
    """Why there is to be one more try after an attempt without a whole answer; None: there is not. `retries`: how
    many there were."""
    policy = route.retry
    if policy is None:
        return None
    is_unprocessed = error.is_below or error.processed is Processed.NEVER
    cause = cause_of(error.reason, is_unprocessed=is_unprocessed)
    is_again = is_wanted(policy, cause) and may_retry(story, policy, retries, cause)
    return cause if is_again else None


def cause_after_answer(
    story: Story,
    route: LiveRoute,
    retries: int,
    attempt: Attempt,
    head: ResponseHead,
    grpc_status: int | None,
) -> RetryCause | None:
    """The same after an answer. `grpc_status`: None unless it is one to a gRPC call."""
    policy = route.retry
    if policy is None:
        return None
    if verdicts.is_refusal_below(head, attempt.is_mesh) and is_wanted(policy, RetryCause.REFUSED):
        cause = RetryCause.REFUSED
    else:
        cause = cause_after(policy, head.status, grpc_status)
    is_again = cause is not RetryCause.OTHER and may_retry(story, policy, retries, cause)
    return cause if is_again else None


def asked_to_wait(attempt: Attempt, head: ResponseHead, *, has_other: bool) -> float:
    """Seconds that the answer asks to wait before one more try, below 0 for none. `has_other`: the upstream has
    more than one endpoint."""
    if has_other and verdicts.is_refusal_below(head, attempt.is_mesh):
        return 0.0  # that is said of the endpoint, and there is another one
    return verdicts.asks_to_wait(head, attempt.trailers)


def seconds_to_retry(
    story: Story, route: LiveRoute, destination: Destination, retries: int, asked: float, now: float
) -> float | None:
    """How long to wait before one more try, None for no such; what it costs is taken off the budget. `asked`: seconds
    that the upstream has asked for, below 0: it wants none."""
    policy, budget = route.retry, destination.retry_budget
    is_out = asked < 0.0 or destination.breaker.state not in ADMITTING
    if policy is None or budget is None or is_out:
        return None
    seconds = wait_seconds(policy, retries, asked, story.service.rng)
    if now + seconds + MIN_SEND_SECONDS >= story.deadline:
        return None
    if not budget.take(now, destination.breaker.tally.successful):
        story.service.observe.noticed(Notice.RETRY_BUDGET_EXHAUSTED, route.name)
        return None
    return seconds


def untried(cluster: Cluster, attempts: Sequence[Attempt], key: int | None) -> AnyPool | None:
    """An endpoint that has not been tried, and is not suspect if a few picks find such a one; where all were, another
    than the last one, if there is one."""
    tried = cast("list[AnyPool]", [attempt.pool for attempt in attempts if attempt.pool is not None])
    return cluster.pick_well(tried, key) or cluster.pick(tried, key)
