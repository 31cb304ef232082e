"""The next try of one exchange, between two attempts: what stands until then, and the timer.

Made by the race at the first failure that may be mended, and owned by it. Here is also what has to hold of the
exchange for a further try; what the route's policy says of it is `core/retry.py`'s.
"""

from __future__ import annotations

import asyncio
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
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.withheld import Answered
from sidecar.upstream.streams import Processed

if TYPE_CHECKING:
    from sidecar.core.head import ResponseHead
    from sidecar.core.snapshot import RetryPolicy
    from sidecar.forwarding.attempt import Attempt
    from sidecar.forwarding.live import Destination, LiveRoute
    from sidecar.forwarding.story import Story
    from sidecar.upstream.cluster import AnyPool, Cluster

ADMITTING = frozenset({State.CLOSED, State.DISABLED, State.FORCED_CLOSED})
"""States of a breaker in which there are retries: in the others it finds out by itself."""


class SetAside:
    """A bad answer, kept while another attempt may bring a better one."""

    __slots__ = ("answer", "attempt")

    def __init__(self, attempt: Attempt, answer: Answered) -> None:
        self.attempt = attempt
        self.answer = answer


class Retrying:
    """What the client gets if no further try is made."""

    __slots__ = ("attempt", "cause", "count", "stands", "timer")

    def __init__(self) -> None:
        self.count = 0
        """Retries that were planned."""
        self.cause = RetryCause.OTHER
        """Why the last of them was."""
        self.timer: asyncio.TimerHandle | None = None
        self.attempt: Attempt | None = None
        """The last one that failed."""
        self.stands: Answered | GivenUp | None = None

    def __repr__(self) -> str:
        return f"<Retrying {self.count}{', waits' if self.timer is not None else ''}>"

    def stand(self, attempt: Attempt, stands: Answered | GivenUp) -> None:
        """This is the last that failed."""
        self.release()
        self.attempt, self.stands = attempt, stands

    def wait(self, cause: RetryCause, timer: asyncio.TimerHandle) -> None:
        """Another try is made when the timer comes to its end, and not before."""
        self.count += 1
        self.cause = cause
        self.timer = timer

    def waited(self) -> None:
        """The timer has come to its end."""
        self.timer = None

    def release(self) -> None:
        """What stood does no more: another try is made, or the client has it."""
        stands, self.stands = self.stands, None
        if isinstance(stands, Answered):
            stands.release()

    def cancel(self) -> bool:
        """Nothing is tried any more. Returns whether something would have been."""
        self.release()
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()
        return timer is not None


def may_retry(story: Story, policy: RetryPolicy, retrying: Retrying | None, cause: RetryCause) -> bool:
    """Whether one more try does no harm, and is left."""
    if retrying is not None and retrying.count >= policy.attempts:
        return False
    is_safe = story.request.method in REPEATABLE or policy.is_non_idempotent
    if not is_safe and not cause.has_reached_nobody:
        return False
    if story.body is not None and not story.body.is_resendable:
        return False
    return policy.is_nested or not (MARK in story.request.lookup or lineage.is_for_retry(story))


def cause_after_failure(
    story: Story, policy: RetryPolicy, retrying: Retrying | None, error: GivenUp
) -> RetryCause | None:
    """Why there is to be one more try after an attempt without a whole answer; None: there is not."""
    is_unprocessed = error.is_below or error.processed is Processed.NEVER
    cause = cause_of(error.reason, is_unprocessed=is_unprocessed)
    is_again = is_wanted(policy, cause) and may_retry(story, policy, retrying, cause)
    return cause if is_again else None


def cause_after_answer(
    story: Story,
    policy: RetryPolicy,
    retrying: Retrying | None,
    attempt: Attempt,
    head: ResponseHead,
    grpc_status: int | None,
) -> RetryCause | None:
    """The same after an answer. `grpc_status`: None unless it is one to a gRPC call."""
    if verdicts.is_refusal_below(head, attempt.is_mesh) and is_wanted(policy, RetryCause.REFUSED):
        cause = RetryCause.REFUSED
    else:
        cause = cause_after(policy, head.status, grpc_status)
    is_again = cause is not RetryCause.OTHER and may_retry(story, policy, retrying, cause)
    return cause if is_again else None


def asked_to_wait(attempt: Attempt, head: ResponseHead, *, has_other: bool) -> float:
    """Seconds that the answer asks to wait before one more try, below 0 for none. `has_other`: the upstream has
    more than one endpoint."""
    if has_other and verdicts.is_refusal_below(head, attempt.is_mesh):
        return 0.0  # that is said of the endpoint, and there is another one
    return verdicts.asks_to_wait(head, attempt.trailers)


def seconds_to_retry(
    story: Story, route: LiveRoute, destination: Destination, retrying: Retrying, asked: float, now: float
) -> float | None:
    """How long to wait before one more try, None for no such; what it costs is taken off the budget. `asked`: seconds
    that the upstream has asked for, below 0: it wants none."""
    policy, budget = route.retry, destination.retry_budget
    is_out = asked < 0.0 or destination.breaker.state not in ADMITTING
    if policy is None or budget is None or is_out:
        return None
    seconds = wait_seconds(policy, retrying.count, asked, story.service.rng)
    if now + seconds + MIN_SEND_SECONDS >= story.deadline:
        return None
    if not budget.take(now, destination.breaker.tally.successful):
        story.service.observe.noticed(Notice.RETRY_BUDGET_EXHAUSTED, route.name)
        return None
    return seconds


def untried(cluster: Cluster, attempts: Sequence[Attempt], key: int | None) -> AnyPool | None:
    """An endpoint that has not been tried; where all were, another than the last one, if there is one."""
    tried = cast("list[AnyPool]", [attempt.pool for attempt in attempts if attempt.pool is not None])
    return cluster.pick(tried, key)
