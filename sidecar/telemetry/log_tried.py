"""What a line of the access log tells of each attempt of its request (`telemetry.access_log.attempts`). Pure.

The members are those that `GET /outcomes/{route}` has for each attempt, with names in the place of numbers.
"""

from __future__ import annotations

from typing import Any

from sidecar.core.errors import Reason
from sidecar.core.finished import FinishedAttempt, FinishedExchange


def tried_fields(record: FinishedExchange, offset_ns: int, sample_ratio: float) -> dict[str, Any]:
    """`offset_ns` turns monotonic into epoch nanoseconds. A share of all lines says so, since nothing can be told
    from a part of the calls."""
    offset = offset_ns / 1e9
    fields: dict[str, Any] = {"tried": [_attempt(one, offset) for one in record.attempts]}
    if record.reason is Reason.CIRCUIT_OPEN and not record.attempts:
        fields["refused_at"] = round(record.started + offset, 6)
        fields["refused_by"] = None if record.refused_by is None else record.refused_by.upstream
    if sample_ratio < 1.0:
        fields["sample_ratio"] = sample_ratio
    return fields


def _attempt(attempt: FinishedAttempt, offset: float) -> dict[str, Any]:
    assert attempt.judged is not None
    verdict, state, sent_at, head, whole = attempt.judged
    if head is None and attempt.status:
        head = whole
    return {
        "at": round((attempt.started if sent_at is None else sent_at) + offset, 6),
        "attempt": attempt.resend,
        "is_hedge": attempt.is_hedge,
        "upstream": attempt.upstream,
        "endpoint": None if attempt.endpoint is None else str(attempt.endpoint),
        "head_ms": None if head is None else round(head * 1000, 3),
        "whole_ms": round(whole * 1000, 3),
        "status": attempt.status,
        "verdict": verdict.value,
        "state": state.value,
        "reason": None if attempt.reason is None else attempt.reason.value,
    }
