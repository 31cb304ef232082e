"""Whether a request is left at an endpoint that fails often, or is sent to another one: what has to hold of it.

A first failure is its client's, as long as the route's `retry` does not say otherwise: it may be the request's own
fault, or the upstream's. At an endpoint that has failed just before, among others that have not, one more failure is
nothing that the request has to share: where it may be sent twice, it goes on to one that is well. So the failures in
a row that an ejection waits for, and the trials of an endpoint that is spared, cost their clients time alone.

Decisions alone; the race acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from sidecar.core.deadline import MIN_SEND_SECONDS
from sidecar.core.outcome import PROBE_SECONDS
from sidecar.core.retry import MARK, MOST_LEFT, REPEATABLE, SAFE, RetryCause, cause_of
from sidecar.forwarding import lineage
from sidecar.forwarding.affinity import key_in
from sidecar.forwarding.retrying import ADMITTING

if TYPE_CHECKING:
    from sidecar.core.snapshot import RetryPolicy
    from sidecar.forwarding.attempt import Attempt
    from sidecar.forwarding.given_up import GivenUp
    from sidecar.forwarding.live import Destination
    from sidecar.forwarding.story import Story
    from sidecar.upstream.cluster import AnyPool

_WITHOUT_ANSWER = frozenset({RetryCause.NOT_CONNECTED, RetryCause.RESET, RetryCause.ATTEMPT_TIMEOUT})


def may_be_sent_twice(story: Story, policy: RetryPolicy) -> bool:
    """Whether it does no harm: a safe method, an idempotent one where the route tries again at all (or what it allows
    beyond), a body that is still here, and nobody further up who sends it again."""
    methods = REPEATABLE if policy.attempts else SAFE
    if story.request.method not in methods and not policy.is_non_idempotent:
        return False
    if story.request.traits.upgrade or (story.body is not None and not story.body.is_resendable):
        return False
    return policy.is_nested or not (MARK in story.request.lookup or lineage.is_for_retry(story))


def may_leave(
    story: Story, policy: RetryPolicy, destination: Destination, attempt: Attempt, retries: int
) -> bool:
    """Whether a failure of this attempt, which is not counted yet, is not to be its client's. `retries`: how many
    further tries there were."""
    pool = attempt.pool
    if pool is None or retries >= MOST_LEFT or not destination.cluster.peers.is_judging:
        return False
    return pool.standing.is_suspect and may_be_sent_twice(story, policy)


def is_of_endpoint(error: GivenUp) -> bool:
    """Whether another endpoint may do better than one that gave no whole answer."""
    if error.is_ours or error.is_uncounted:
        return False
    return cause_of(error.reason, is_unprocessed=False) in _WITHOUT_ANSWER


def well_endpoint(
    story: Story, destination: Destination, attempts: Sequence[Attempt], now: float
) -> AnyPool | None:
    """Where it goes instead; None: nowhere. The upstream as a whole fails, or there is no time."""
    if destination.breaker.state not in ADMITTING or now + MIN_SEND_SECONDS >= story.deadline:
        return None
    cluster = destination.cluster
    tried = cast("list[AnyPool]", [attempt.pool for attempt in attempts if attempt.pool is not None])
    return cluster.pick_well(tried, key_in(story, cluster.hash_key))


def trial_seconds(story: Story, destination: Destination, now: float) -> float:
    """How long a trial may take: it leaves time for who is asked then, half of it at least."""
    return min(max(PROBE_SECONDS, destination.breaker.counts_after), (story.deadline - now) / 2.0)
