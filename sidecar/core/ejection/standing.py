"""What is known of one endpoint: how its last attempts ended, and what follows from that for its use.

`Peers` alone writes it, but for `good`, which the data path counts for an endpoint that nobody watches.
"""

from __future__ import annotations

from math import exp, inf
from typing import Final, Protocol

from sidecar.core.ejection.change import Health
from sidecar.core.ejection.latencies import Latencies
from sidecar.core.health import CheckRecord

SLOW_START_SECONDS: Final = 10.0
"""In which an endpoint that is back from an ejection comes to its whole share."""
SLOW_START_FROM: Final = 0.1
"""The share that it begins with."""

WELL_AFTER: Final = 10
"""Good answers since its last failure, or since it came back, that make an endpoint one that is not suspect."""

EWMA_SECONDS: Final = 10.0
"""In which what was seen loses all but 37 % of its weight."""


class Member(Protocol):
    """Where attempts to the endpoint are counted: a pool of connections."""

    in_flight: int
    begun_at: float
    """When the last one began, in seconds on the loop's clock."""


class Standing:
    """Of one endpoint among its peers. Times are monotonic seconds."""

    __slots__ = (
        "back_at", "bad", "check", "eased_at", "endpoint", "ewma", "ewma_at", "failed", "fell_at", "freed_at",
        "good", "good_at_failure", "health", "is_watched", "late", "latencies", "places", "row", "since",
        "slow_seconds", "streak", "times", "until", "why",
    )  # fmt: skip

    def __init__(self, endpoint: object, now: float) -> None:
        self.endpoint = endpoint
        self.places: list[Member] = []
        """One, and two while a reload puts a new cluster in the place of the old one."""
        self.health = Health.USABLE
        self.is_watched = False
        """Something of each attempt is of interest; otherwise successes are just counted."""
        self.good = 0
        """Attempts that ended well since `since`."""
        self.good_at_failure = -WELL_AFTER
        """What `good` was at the last failure, or when it came back."""
        self.bad = 0
        """Those that failed."""
        self.failed = 0
        """Attempts that failed, in all."""
        self.row = 0
        """Failures since the last good head."""
        self.late = 0
        """Answers that broke after a good head, since the last one that ended well."""
        self.streak = 0
        """Successes since the last failure, of one that is not usable."""
        self.since = now
        """When the present interval began."""
        self.times = 0
        """How often it was ejected, less one for each `base` without that."""
        self.eased_at = now
        """Until when `times` has been reckoned."""
        self.until = inf
        """When its ejection ends."""
        self.back_at = -inf
        """When it came, or was last taken back; of the first endpoints never."""
        self.slow_seconds = 0.0
        """From then on it comes to its whole share in this time."""
        self.ewma = 0.0
        """How long its attempts take, by `Peers.time_all`; 0 while nothing is known."""
        self.ewma_at = now
        self.fell_at = -inf
        """When it had last failed enough to be ejected."""
        self.why = ""
        """In words; empty for one that is usable."""
        self.latencies: Latencies | None = None
        self.check: CheckRecord | None = None
        """Of the sidecar's own checks; None where none has ended."""
        self.freed_at = -inf
        """When checks that passed had last ended its ejection."""

    def __repr__(self) -> str:
        return (
            f"<Standing of {self.endpoint}: {self.health.value}, {self.bad} of {self.good + self.bad} failed,"
            f" {self.longest} in a row>"
        )

    @property
    def longest(self) -> int:
        """The longer one of the two rows."""
        return max(self.row, self.late)

    @property
    def is_suspect(self) -> bool:
        """Whether one more failure would be no surprise: it is not usable, or has hardly answered well since it last
        failed or came back."""
        if self.health is not Health.USABLE or self.longest > 0:
            return True
        return self.good - self.good_at_failure < WELL_AFTER

    @property
    def is_well(self) -> bool:
        """Whether it is usable and its last answer was good; not where it has answered nothing yet, or nothing since
        it came back."""
        return self.health is Health.USABLE and not self.longest and self.good > max(self.good_at_failure, 0)

    def share(self, now: float) -> float:
        """What part of its usual share it may have; 1 unless it came back lately."""
        gone, seconds = now - self.back_at, self.slow_seconds
        if gone >= seconds:
            return 1.0
        return SLOW_START_FROM + (1.0 - SLOW_START_FROM) * max(gone, 0.0) / seconds

    def has_young(self, since: float) -> bool:
        """Whether an attempt that began after `since` is in flight. An older one beside one that began and ended
        since then is taken for it, too."""
        return any(one.begun_at > since and one.in_flight for one in self.places)

    def was_asked(self, since: float) -> bool:
        """Whether an attempt has begun after `since`."""
        return any(one.begun_at > since for one in self.places)

    @property
    def fails_in_part(self) -> bool:
        """Whether it has answered well between its failures, so that no row of them will eject it."""
        return self.bad > self.longest

    def take_time(self, seconds: float, now: float) -> None:
        """An attempt took this long. What is slower counts at once, what is faster by and by (peak EWMA)."""
        if seconds >= self.ewma:
            self.ewma = seconds
        else:
            kept = exp((self.ewma_at - now) / EWMA_SECONDS)
            self.ewma = self.ewma * kept + seconds * (1.0 - kept)
        self.ewma_at = now

    def begin_interval(self, now: float) -> None:
        self.since = now
        self.good_at_failure -= self.good
        self.good = self.bad = 0
        if self.latencies is not None:
            self.latencies.clear()
