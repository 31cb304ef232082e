"""How much a peer may do that costs us work and itself nothing: bounds of one connection, each counted.

Decides by counts and token buckets alone; `now` comes from the caller. A bound that is passed ends the connection by
ENHANCE_YOUR_CALM (RFC 9113 10.5). The numbers are SPEC-PROTOCOLS.md 12's.
"""

from __future__ import annotations

from typing import Final

from sidecar.core.contract import SLOTTED
from sidecar.core.path_dataclass import dataclass
from sidecar.http2.errors import ConnectionFault, ErrorCode

RESET: Final = "reset"
SETTINGS: Final = "settings"
PING: Final = "ping"
ANSWERS: Final = "answers"
EMPTY_DATA: Final = "empty_data"
PRIORITY: Final = "priority"
WINDOW_UPDATE: Final = "window_update"
CONTINUATION: Final = "continuation"
UNKNOWN: Final = "unknown"
KINDS: Final = (RESET, SETTINGS, PING, ANSWERS, EMPTY_DATA, PRIORITY, WINDOW_UPDATE, CONTINUATION, UNKNOWN)
"""`ConnectionFailed.flood` is one of them."""


CANCEL_SECONDS: Final = 0.005
"""A stream that has lived for so long was a call, and its reset is a cancellation. What is reset sooner was sent to
be reset (CVE-2023-44487): its HEADERS and its RST_STREAM mostly come in one read."""
CANCEL_COST: Final = 0.1
"""What a cancellation costs, where another reset costs 1: so ten times as many are no flood. They buy no work, since
a stream counts against the limit of open ones until its attempt is released."""


@dataclass(frozen=True, **SLOTTED)
class FloodLimits:
    """Bursts are counts of frames, rates are frames a second."""

    reset_burst: int = 1000
    """Streams that a client resets, or makes us reset by what it sends; `CANCEL_COST` of one for a call that it
    cancels: that is a feature, and two sidecars share one connection."""
    reset_rate: float = 200.0
    settings_burst: int = 100
    settings_rate: float = 10.0
    ping_burst: int = 100
    """Each DATA frame that we send gives one back: clients and servers of gRPC measure their windows by a PING for
    the DATA that they read, one at a time."""
    ping_rate: float = 10.0
    unsent_answers: int = 1000
    """Answers to SETTINGS and PING that the peer does not read."""
    empty_data_in_row: int = 10
    """DATA frames that bring nothing and end nothing."""
    free_frames: int = 100
    """PRIORITY, WINDOW_UPDATE, and frames of unknown kinds: so many of each without a reason."""
    frames_for_each: int = 10
    """And so many more for each stream; of WINDOW_UPDATE for each DATA frame that we sent too."""


TRUSTED: Final = FloodLimits()
UNTRUSTED: Final = FloodLimits(reset_burst=200, reset_rate=20.0)
"""For `trust: none`."""


class TokenBucket:
    """Full at the beginning."""

    __slots__ = ("_burst", "_filled_at", "_rate", "_tokens")

    def __init__(self, burst: int, rate: float) -> None:
        self._burst = float(burst)
        self._rate = rate
        self._tokens = self._burst
        self._filled_at: float | None = None

    def take(self, now: float, cost: float = 1.0) -> bool:
        """Take a token, or part of one; False if there is not so much."""
        if self._filled_at is not None and now > self._filled_at:
            self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True

    def give_back(self, count: int) -> None:
        """Never more than the burst."""
        self._tokens = min(self._burst, self._tokens + count)


class Floods:
    """The bounds of one connection. Each method counts one frame, and raises ConnectionFault beyond the bound."""

    __slots__ = ("_data_frames", "_limits", "_pings", "_resets", "_settings", "counts", "empty_in_row")

    def __init__(self, limits: FloodLimits) -> None:
        self._limits = limits
        self._resets = TokenBucket(limits.reset_burst, limits.reset_rate)
        self._settings = TokenBucket(limits.settings_burst, limits.settings_rate)
        self._pings = TokenBucket(limits.ping_burst, limits.ping_rate)
        self.empty_in_row = 0
        """Empty DATA frames, with nothing else between them: `full_data` is to be called where there are any."""
        self._data_frames = 0
        """That we had sent at the last PING."""
        self.counts = dict.fromkeys(KINDS, 0)
        """What was counted of each kind since the connection began."""

    def reset(self, now: float, age_seconds: float = 0.0) -> None:
        """`age_seconds`: for how long the stream has lived."""
        self.counts[RESET] += 1
        if not self._resets.take(now, CANCEL_COST if age_seconds >= CANCEL_SECONDS else 1.0):
            raise breach(RESET, "too many streams were reset")

    def settings(self, now: float) -> None:
        self.counts[SETTINGS] += 1
        if not self._settings.take(now):
            raise breach(SETTINGS, "too many SETTINGS")

    def ping(self, now: float, data_frames: int) -> None:
        """We have sent `data_frames` so far."""
        self.counts[PING] += 1
        self._pings.give_back(data_frames - self._data_frames)
        self._data_frames = data_frames
        if not self._pings.take(now):
            raise breach(PING, "too many PINGs")

    def answer(self, unsent: int) -> None:
        """`unsent` answers wait, this one among them."""
        self.counts[ANSWERS] += 1
        if unsent > self._limits.unsent_answers:
            raise breach(ANSWERS, "the answers to SETTINGS and PING are not read")

    def empty_data(self) -> None:
        self.counts[EMPTY_DATA] += 1
        self.empty_in_row += 1
        if self.empty_in_row > self._limits.empty_data_in_row:
            raise breach(EMPTY_DATA, "too many empty DATA frames in a row")

    def full_data(self) -> None:
        """What came is no empty DATA: the row has ended."""
        self.empty_in_row = 0

    def priority(self, streams: int) -> None:
        self._free(PRIORITY, streams, "too many PRIORITY frames")

    def unknown(self, streams: int) -> None:
        self._free(UNKNOWN, streams, "too many frames of unknown kinds")

    def window_update(self, streams: int, data_frames: int) -> None:
        """`streams` there were so far, and we have sent `data_frames`."""
        self._free(WINDOW_UPDATE, streams + data_frames, "too many WINDOW_UPDATE frames")

    def _free(self, kind: str, reasons: int, detail: str) -> None:
        count = self.counts[kind] = self.counts[kind] + 1
        if count > self._limits.free_frames + self._limits.frames_for_each * reasons:
            raise breach(kind, detail)

    def continuation(self, count: int, limit: int) -> None:
        """`count` CONTINUATION frames of one head have come."""
        self.counts[CONTINUATION] += 1
        if count > limit:
            raise breach(CONTINUATION, "too many CONTINUATION frames in one header block")


def breach(kind: str, detail: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, detail, kind)
