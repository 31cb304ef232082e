"""The right to make one attempt: breaker and limits hear of it together, from one place, exactly once.

Assumes abandonment: whatever happens to an attempt, `close` gives back what it held, and without a verdict the
breaker is told that nothing was learned, so that a probe's place comes free. Each attempt has its own; a closed
breaker's answer is shared, so this is the one object for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.errors import Reason
from sidecar.core.outcome import Verdict
from sidecar.core.transition import State, Transition

if TYPE_CHECKING:
    from sidecar.core.breaker import Breaker
    from sidecar.core.breaker_admission import Admission
    from sidecar.core.history import Culprit
    from sidecar.upstream.cluster import Cluster

# Members are read from module globals in the hot path: the enum's own lookup costs 50 ns each time.
_SUCCESS = Verdict.SUCCESS
_IGNORED = Verdict.IGNORED


class Refusal:
    """Why an attempt may not be made."""

    __slots__ = ("detail", "reason", "refused_by", "retry_after_seconds", "state", "transition")

    def __init__(
        self,
        reason: Reason,
        detail: str,
        retry_after_seconds: float,
        state: State,
        transition: Transition | None,
        refused_by: Transition | None = None,
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self.state = state
        """The breaker's."""
        self.transition = transition
        """The change of state that asking has caused; the caller reports it."""
        self.refused_by = refused_by
        """What opened the breaker."""


class Permit:
    """Held by one attempt. `judge` at most once, `close` exactly once.

    `Destination.admit` alone makes it, and sets all of it: the call of an `__init__` takes 0.1 µs.
    """

    __slots__ = ("admission", "breaker", "cluster")

    breaker: Breaker
    cluster: Cluster
    admission: Admission | None
    """The breaker's answer; None once it has been told how the attempt ended."""

    def __repr__(self) -> str:
        state = "open" if self.admission is not None else "judged"
        return f"<Permit {self.breaker.route}/{self.cluster.name} {state}>"

    @property
    def is_probe(self) -> bool:
        return self.admission is not None and self.admission.is_probe

    def judge(
        self, verdict: Verdict, seconds: float, now: float, cause: Culprit | None, *, is_timeout: bool = False
    ) -> Transition | None:
        """Tell the breaker how the attempt ended. Returns the change of state that this made.

        `seconds` is the upstream's own time, `now` the loop's clock.
        """
        admission, self.admission = self.admission, None
        if admission is None:
            return None
        return self.breaker.settle(admission, verdict, seconds, now, cause, is_timeout)

    def close(self, now: float) -> None:
        """The attempt is over: limits are free again, and what was not judged taught nothing."""
        self.cluster.in_flight -= 1
        admission = self.admission
        if admission is not None:
            self.admission = None
            self.breaker.settle(admission, _IGNORED, 0.0, now)

    def succeed(self, seconds: float, now: float, cause: Culprit) -> Transition | None:
        """`judge` and `close` in one, for a success: the usual case."""
        self.cluster.in_flight -= 1
        admission: Admission = self.admission  # type: ignore[assignment]  # it was not judged before
        self.admission = None
        return self.breaker.settle(admission, _SUCCESS, seconds, now, cause)
