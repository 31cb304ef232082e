"""What a route does with a request beside sending it once, in words: for `sidecar explain`."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.config.schema.units import format_duration, format_share, format_size
from sidecar.core import mirrored
from sidecar.core.retry import MARK, REPEATABLE
from sidecar.core.snapshot import P95, RetryOn, Route, WhenOpen


def retry(route: Route, method: bytes, fields: Mapping[bytes, bytes]) -> str:
    """What is tried again of this request, how often and when."""
    once = "a request that has certainly reached nobody goes to another endpoint"
    policy = route.retry
    if not policy.attempts:
        return f"none; {once}"
    if MARK in fields and not policy.is_nested:
        return f"none, since it is a retry already (`{MARK.decode()}`); {once}"
    items = sorted(str(one.value if isinstance(one, RetryOn) else one) for one in policy.on)
    is_safe = method in REPEATABLE or policy.is_non_idempotent
    if not is_safe:
        items = [one for one in items if one in (RetryOn.CONNECT_FAILURE.value, RetryOn.REFUSED.value)]
    why = "" if is_safe else f" alone, since {method.decode()} is not idempotent"
    if not items:
        return f"none, since {method.decode()} is not idempotent; {once}"
    most = format_duration(min(policy.base_seconds * 2.0 ** (policy.attempts - 1), policy.max_seconds))
    return (
        f"up to {policy.attempts} more after {', '.join(items)}{why}; each after up to {most}, within the deadline, "
        f"with a body of at most {format_size(policy.buffer_bytes)}; {policy.ratio:g} for each request and "
        f"{policy.min_per_second:g} a second in all"
    )


def hedge(route: Route, method: bytes, fields: Mapping[bytes, bytes]) -> str:
    """When it is sent a second time because it is slow."""
    policy, retries = route.hedge, route.retry
    if policy is None:
        return "none"
    if MARK in fields and not retries.is_nested:
        return f"none, since it is a retry already (`{MARK.decode()}`)"
    if method not in REPEATABLE and not retries.is_non_idempotent:
        return f"none, since {method.decode()} is not idempotent"
    is_by_p95 = policy.after == P95
    after = "the p95 of the last 1,000 good answers" if is_by_p95 else format_duration(float(policy.after))
    bound = "under 6 of 100 requests, " if is_by_p95 else ""
    return (
        f"up to {policy.most} more at other endpoints, each {after} after the one before, with a body of at most "
        f"{format_size(retries.buffer_bytes)}; {bound}{retries.ratio:g} for each request and "
        f"{retries.min_per_second:g} a second in all, retries included"
    )


def mirror(route: Route, method: bytes, fields: Mapping[bytes, bytes]) -> str:
    """Whether it is copied, and where to."""
    policy = route.mirror
    if policy is None:
        return "none"
    if mirrored.MARK in fields:
        return f"none, since it is a copy already (`{mirrored.MARK.decode()}`)"
    if method.decode() not in policy.methods:
        return f"none, since `mirror.methods` does not name {method.decode()}"
    return (
        f"{format_share(policy.share)} of the requests to {policy.upstream}, whose answers nobody gets; at most "
        f"{policy.most_in_flight} at a time, each for {format_duration(policy.attempt_seconds)}"
    )


def weights(route: Route) -> str:
    """What becomes of the share of an upstream while its breaker refuses; empty where there is one alone."""
    if len(route.upstreams) < 2:
        return ""
    if route.shares.when_open is WhenOpen.KEEP:
        return "its share is refused (weights_when_open: keep)"
    return (
        f"its share goes to the others in proportion to their weights, and none gets more than "
        f"{route.shares.shift_up_to:g} times its own; the rest is refused"
    )
