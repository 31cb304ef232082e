"""A breaker's answer to one request: may it go, and whatever `settle` needs to know when it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from sidecar.core.outcome import Verdict
from sidecar.core.transition import State, Transition

NO_GENERATION: Final = -1
"""Of an admission that takes no part in the state machine: its outcome is counted and changes nothing."""


class Settling(Protocol):
    """The breaker of a second policy, as far as an admission knows it."""

    def settle(
        self,
        admission: Admission,
        verdict: Verdict,
        seconds: float,
        now: float,
        cause: None = None,
        is_timeout: bool = False,
    ) -> Transition | None: ...


@dataclass(slots=True, eq=False)
class Admission:
    """Read it, keep it, hand it to `Breaker.settle` of the same breaker exactly once if it was admitted.

    Not frozen, since a frozen one takes 0.9 µs to make, this one 0.2, and a refusal should be cheap; nobody
    but the breaker writes to it. A closed breaker hands out one and the same object again and again, so it
    never identifies a request.
    """

    is_admitted: bool
    generation: int
    """The state period that admitted it, or NO_GENERATION."""
    is_probe: bool
    state: State
    """At admission; HALF_OPEN for the first probe, too."""
    retry_after_seconds: float = 0.0
    """Of a refusal: until the next request has a chance, as far as the breaker knows; 0 if admitted."""
    transition: Transition | None = None
    """The change of state that this very admission caused; the caller reports it."""
    refused_by: Transition | None = None
    """Of a refusal, also of one waved through: what opened the breaker. None if it was configured open."""
    is_waved_through: bool = False
    """The state machine refused it, but the policy only measures, so it was admitted."""
    candidate: Settling | None = None
    """The second policy that saw this request, with its own answer in `candidate_admission`."""
    candidate_admission: Admission | None = None
