"""Whether an upstream has yet to answer for the first time since this process began."""

from __future__ import annotations


class WarmUp:
    """One for each upstream, shared by the breakers of all routes that lead there.

    An app that starts beside its sidecar refuses connections until it listens. That is no outage: what is
    excused here is counted nowhere. The first answer of anybody ends it for good, or `warm_up` seconds. Owned
    by the event loop."""

    __slots__ = ("_began", "_is_over")

    def __init__(self, now: float) -> None:
        self._began = now
        self._is_over = False

    def is_on(self, seconds: float, now: float) -> bool:
        """Whether a refused connection is excused; `seconds` is the policy's `warm_up`."""
        return not self._is_over and now - self._began < seconds

    def end(self) -> None:
        """Somebody has answered."""
        self._is_over = True
