"""How many attempts an upstream may have in flight: what the file says, or what an adaptive limit finds below that.

Owned by its cluster, which counts them.
"""

from __future__ import annotations

import random

from sidecar.core.adaptive import AdaptiveLimit
from sidecar.core.snapshot import Mode, UpstreamLimits


class InFlightLimit:
    """`limits.max_requests` and `limits.adaptive` of one upstream."""

    __slots__ = ("_rng", "adaptive", "free_below", "most", "streams")

    def __init__(self, limits: UpstreamLimits, rng: random.Random, now: float) -> None:
        self._rng = rng
        self.adaptive: AdaptiveLimit | None = None
        """None with `limits.adaptive: off`."""
        self.streams = 0
        """Of what is in flight: answers that go on after they were judged by their head. Their permits count them."""
        self.adopt(limits, now)

    def __repr__(self) -> str:
        return f"<InFlightLimit {self.most}, {self.adaptive}>"

    def adopt(self, limits: UpstreamLimits, now: float) -> None:
        """Go on under other limits. What an adaptive one has learned is kept for as long as there is one."""
        most, adaptive = limits.max_requests, self.adaptive
        self.most = most
        self.free_below = most if limits.adaptive is Mode.OFF else 0
        """With fewer in flight there is room for one more, without asking. An adaptive limit is asked about each."""
        is_observing = limits.adaptive is Mode.OBSERVE
        if limits.adaptive is Mode.OFF:
            self.adaptive = None
        elif adaptive is None:
            self.adaptive = AdaptiveLimit(most, self._rng, now, is_observing=is_observing)
        else:
            adaptive.adopt(most, now, is_observing=is_observing)

    def has_room(self, in_flight: int, now: float) -> bool:
        """Whether there may be one more. Each refusal is counted by what refuses."""
        adaptive = self.adaptive
        return in_flight < self.most and (
            adaptive is None or not adaptive.refuses(in_flight - self.streams, now)
        )

    def why_full(self, in_flight: int) -> str:
        """What has refused, for log and answer."""
        if self.adaptive is None or in_flight >= self.most:
            return "max_requests reached"
        return f"limits.adaptive allows {self.adaptive.limit} in flight at present"
