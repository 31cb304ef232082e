"""The endpoints of one upstream: which of them are usable, by what came back from them (passive outlier detection).

An endpoint that has failed enough is *unusable*: ejected, where `max_ejected` allows it and it is not the upstream
as a whole that fails, else spared. The breakers of the upstream count nothing of an unusable endpoint as long as
another is usable (`counts`); with none usable everything counts, and the breakers do the rest.

Decides alone: every method takes `now` (monotonic seconds), and what has changed waits in `news` for the caller. Each
costs the same whatever the number of endpoints, but for a change of an endpoint. Owned by the event loop.

Where the contract is silent:

* An interval begins with the first failure after the last one has ended, so that a success costs one addition.
* A spared endpoint is usable again after as many successes in a row as the failures that make one unusable.
* The first success while none is usable ends that: all are usable, with nothing counted against them. Otherwise the
  first one that answers would have all the load.
* An endpoint whose health checks fail is *unhealthy*, whatever its requests show, until they pass. With none usable
  those are used that are spared, and with all unhealthy all of them: the checks themselves may be wrong.
* An ejected endpoint that leaves and comes back (an answer of a name server that has a part of the addresses) is
  still ejected. 1,024 such are remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from heapq import heappop, heappush
from math import inf
from typing import Final

from sidecar.core.ejection.change import EjectionReason, EndpointChange, Health
from sidecar.core.ejection.latencies import NEEDED, PEERS_NEEDED, Latencies
from sidecar.core.ejection.standing import SLOW_START_SECONDS, Member, Standing
from sidecar.core.health import CheckEnd, CheckRecord, CheckState, CheckVerdict
from sidecar.core.snapshot import EjectionPolicy, HealthCheckPolicy

MOST_AWAY: Final = 1024
"""Ejected endpoints that have left, and are remembered until their time is over."""
STREAK: Final = 5
"""Successes in a row that make a spared endpoint usable, where no row of failures is judged."""
JUDGED_EACH_SECONDS: Final = 1.0
"""The medians of all peers are looked at so often at most."""

_USABLE: Final = Health.USABLE
_EJECTED: Final = Health.EJECTED
_SPARED: Final = Health.SPARED
_UNHEALTHY: Final = Health.UNHEALTHY
_PASSIVE: Final = (_EJECTED, _SPARED)
"""By what came back from its requests."""


class Peers:
    """Of one upstream, for all of its breakers."""

    __slots__ = (
        "_away", "_due", "_fallen", "_number", "_peer_median", "_peer_median_until", "checks", "checks_delayed",
        "counted", "ejected", "is_timing", "members", "news", "policy", "slow_start_seconds", "unhealthy", "upstream",
        "usable", "version",
    )  # fmt: skip

    def __init__(self, upstream: str, policy: EjectionPolicy) -> None:
        self.upstream = upstream
        self.policy = policy
        self.members: dict[Hashable, Standing] = {}
        self.usable = 0
        self.ejected = 0
        self.unhealthy = 0
        """Those that fail their checks."""
        self.checks: dict[CheckEnd, int] = dict.fromkeys(CheckEnd, 0)
        """Health checks that have ended, since the start."""
        self.checks_delayed = 0
        """Those that had to wait, since too many others were under way; who makes them counts."""
        self.version = 0
        """Changes with each standing: what a breaker has excused is looked at again."""
        self.news: list[EndpointChange] = []
        """What has changed; who reads it empties it."""
        self.counted: dict[EjectionReason, int] = dict.fromkeys(EjectionReason, 0)
        """Ejections since the start."""
        self._fallen: deque[tuple[float, Standing]] = deque()
        """Endpoints that have failed enough within the last interval, each once."""
        self._due: list[tuple[float, int, Standing]] = []
        """A heap of the ends of ejections; entries that are not true any more are passed over."""
        self._number = 0
        self._away: dict[Hashable, Standing] = {}
        self.is_timing = False
        """How long attempts take is of interest to whoever picks an endpoint."""
        self.slow_start_seconds = 0.0
        """Of endpoints that are new."""
        self._peer_median: float | None = None
        self._peer_median_until = -inf

    def __repr__(self) -> str:
        return (
            f"<Peers of {self.upstream}: {self.usable} of {len(self.members)} usable, {self.ejected} ejected>"
        )

    # Who is there

    def join(self, endpoint: Hashable, place: Member, now: float, *, is_new: bool = False) -> Standing:
        """An endpoint is used from now on, or by one more pool. `is_new`: others were there before."""
        standing = self.members.get(endpoint)
        if standing is None:
            standing = self._away.pop(endpoint, None) or Standing(endpoint, now)
            self.members[endpoint] = standing
            self.version += 1
            if standing.health is _EJECTED and standing.until > now and self._has_room():
                self.ejected += 1
                self._await_end(standing)
            else:
                self._forget(standing, now)
                self.usable += 1
                if is_new:
                    standing.back_at, standing.slow_seconds = now, self.slow_start_seconds
            if self.is_timing and not standing.ewma:
                standing.ewma = self._usual_time()
            self._watch(standing)
        standing.places.append(place)
        return standing

    def time_all(self, *, is_timing: bool) -> None:
        """Whether `Standing.ewma` is wanted."""
        self.is_timing = is_timing
        for standing in self.members.values():
            self._watch(standing)

    def _usual_time(self) -> float:
        """The median of all that are known: what a new endpoint begins with."""
        known = sorted(one.ewma for one in self.members.values() if one.ewma)
        return known[len(known) // 2] if known else 0.0

    def leave(self, endpoint: Hashable, place: Member, now: float) -> None:
        """A pool of the endpoint is used no more."""
        standing = self.members.get(endpoint)
        if standing is None or place not in standing.places:
            return
        standing.places.remove(place)
        if standing.places:
            return
        del self.members[endpoint]
        self.version += 1
        if standing.health is _USABLE:
            self.usable -= 1
        elif standing.health is _EJECTED:
            self.ejected -= 1
            if len(self._away) < MOST_AWAY:
                standing.check = None
                self._away[endpoint] = standing
        elif standing.health is _UNHEALTHY:
            self.unhealthy -= 1
        self._keep_bound(now)

    def adopt(self, policy: EjectionPolicy, now: float) -> None:
        """Go on under another policy; what is ejected stays so for its time, unless ejection is off."""
        if policy == self.policy:
            return
        self.policy = policy
        if not policy.is_on:
            self._away.clear()
        for standing in self.members.values():
            if not policy.is_on and standing.health in _PASSIVE:
                self._take_back(standing, "ejection is off", now)
            self._watch(standing)
        self._keep_bound(now)

    @property
    def is_judging(self) -> bool:
        """Whether endpoints are told apart at all: on, and there are two or more."""
        return self.policy.is_on and len(self.members) > 1

    # What comes back

    def ended_well(self, endpoint: Hashable) -> None:
        """An attempt whose head was good has ended well, too."""
        standing = self.members.get(endpoint)
        if standing is not None and standing.late:
            standing.late = 0
            self._watch(standing)

    def succeeded(self, endpoint: Hashable, seconds: float, now: float, *, is_early: bool = False) -> None:
        """An attempt ended well, or (`is_early`) its head was good and it goes on."""
        standing = self.members.get(endpoint)
        if standing is None:
            return
        standing.good += 1
        standing.row = 0
        if not is_early:
            standing.late = 0
        if standing.health is _UNHEALTHY:
            pass  # its checks say when it is well again
        elif standing.health is not _USABLE:
            standing.streak += 1
            if not self.usable:
                self._end_of_outage(now)
            elif standing.health is _SPARED and standing.streak >= (
                self.policy.consecutive_failures or STREAK
            ):
                self._take_back(standing, f"{standing.streak} answers in a row were good", now)
        elif standing.latencies is not None:
            standing.latencies.add(seconds)
            if len(standing.latencies) >= NEEDED:
                self._compare(standing, now)
        if self.is_timing:
            standing.take_time(seconds, now)
        self._watch(standing)

    def failed(
        self,
        endpoint: Hashable,
        what: str,
        now: float,
        seconds: float = 0.0,
        *,
        is_in_row: bool = True,
        is_late: bool = False,
    ) -> None:
        """An attempt failed, by `what` in words.

        Args: seconds: what it enters an average with: what fails fast must not attract load. is_in_row: not so a 429.
            is_late: its head was good.
        """
        standing = self.members.get(endpoint)
        if standing is None:
            return
        policy = self.policy
        if self.is_timing:
            standing.take_time(seconds, now)
        if now - standing.since >= policy.interval_seconds:
            standing.begin_interval(now)
        standing.bad += 1
        standing.failed += 1
        if is_late:  # its head had been counted as good
            standing.good = max(standing.good - 1, 0)
            standing.late += 1
        else:
            standing.row += is_in_row
        standing.good_at_failure = standing.good
        standing.streak = 0
        standing.is_watched = True
        if not self.is_judging or standing.health is _EJECTED or standing.health is _UNHEALTHY:
            return
        reason = self._is_enough(standing)
        if reason is not None:
            self._fall(standing, reason, self._words(standing, reason, what), now)

    def _is_enough(self, standing: Standing) -> EjectionReason | None:
        policy = self.policy
        if 0 < policy.consecutive_failures <= standing.longest:
            return EjectionReason.CONSECUTIVE_FAILURES
        calls = standing.good + standing.bad
        if calls >= policy.minimum_calls and standing.bad / calls >= policy.failure_rate_threshold:
            return EjectionReason.FAILURE_RATE
        return None

    def _words(self, standing: Standing, reason: EjectionReason, what: str) -> str:
        if reason is EjectionReason.CONSECUTIVE_FAILURES:
            return f"{standing.longest} failures in a row, the last one: {what}"
        calls = standing.good + standing.bad
        seconds = self.policy.interval_seconds
        return f"{standing.bad} of {calls} failed within {seconds:g} s, the last one: {what}"

    def _compare(self, standing: Standing, now: float) -> None:
        """Whether it is so much slower than its peers."""
        assert standing.latencies is not None
        times, own = self.policy.slower_than_peers, standing.latencies.median()
        peers = self._median_of_peers(now)
        if times is None or own is None or peers is None or own < times * peers or not self.is_judging:
            return
        why = f"its median is {own:.3g} s, {own / peers:.1f} times that of its peers"
        self._fall(standing, EjectionReason.SLOWER_THAN_PEERS, why, now)

    def _median_of_peers(self, now: float) -> float | None:
        """The median of all medians; None with fewer than three peers beside the one that is compared."""
        if now >= self._peer_median_until:
            self._peer_median_until = now + JUDGED_EACH_SECONDS
            known = (one.latencies.median() for one in self.members.values() if one.latencies is not None)
            medians = sorted(median for median in known if median is not None)
            self._peer_median = medians[len(medians) // 2] if len(medians) > PEERS_NEEDED else None
        return self._peer_median

    def checked(
        self, endpoint: Hashable, verdict: CheckVerdict, policy: HealthCheckPolicy, now: float
    ) -> None:
        """A health check has ended.

        One that passes ends an ejection, too, if as many in a row have passed since it began as make an endpoint
        healthy. Where that was wrong, and the endpoint has failed enough again within `base`, it is ejected for its
        time, whatever its checks say: they ask for something else than its requests.
        """
        self.checks[verdict.end] += 1
        standing = self.members.get(endpoint)
        if standing is None or verdict.end is CheckEnd.IGNORED:
            return
        record = standing.check
        if record is None:
            record = standing.check = CheckRecord()
        record.take(verdict, policy, now)
        if record.state is CheckState.UNHEALTHY:
            if standing.health is not _UNHEALTHY:
                self._leave_out(standing, f"{record.bad} in a row, the last one: {verdict.why}", now)
        elif record.state is CheckState.HEALTHY and standing.health is _UNHEALTHY:
            self._take_back(standing, "its health checks pass", now)
        elif standing.health in _PASSIVE and record.good >= policy.healthy and self._may_free(standing):
            standing.freed_at = now
            self._take_back(standing, "its health checks pass", now)

    def _may_free(self, standing: Standing) -> bool:
        """Whether checks have not been wrong of it lately."""
        return standing.fell_at - standing.freed_at >= self.policy.base_seconds

    def check_no_more(self, now: float) -> None:
        """The upstream has no health check any more: those that failed theirs are used again."""
        for standing in self.members.values():
            standing.check = None
            if standing.health is _UNHEALTHY:
                self._take_back(standing, "nobody checks its health any more", now)

    def _leave_out(self, standing: Standing, why: str, now: float) -> None:
        """Its checks fail."""
        if standing.health is _USABLE:
            self.usable -= 1
        elif standing.health is _EJECTED:
            self.ejected -= 1
            standing.eased_at = now
        self.unhealthy += 1
        self.version += 1
        standing.health, standing.why, standing.until = _UNHEALTHY, why, inf
        self._watch(standing)
        self._tell(standing, None, now)
        self._keep_bound(now)

    # What follows

    def counts(self, endpoint: Hashable) -> bool:
        """Whether the breakers of the upstream are to count what this endpoint does."""
        if not self.usable:
            return True
        standing = self.members.get(endpoint)
        return standing is None or standing.health is _USABLE

    def _fall(self, standing: Standing, reason: EjectionReason, why: str, now: float) -> None:
        """It has failed enough."""
        was_usable = standing.health is _USABLE
        if was_usable:
            self.usable -= 1
            self.version += 1
            standing.streak = 0
            if now - standing.fell_at >= self.policy.interval_seconds:
                self._fallen.append((now, standing))
                standing.fell_at = now
        standing.health, standing.why, standing.is_watched = _SPARED, why, True
        if standing.check is not None:
            standing.check.good = 0
        is_upstreams = self._is_upstreams(now)  # which also forgets the old ones
        if self._has_room() and not is_upstreams:
            self._eject(standing, reason, now)
        elif was_usable:
            self._tell(standing, reason, now)

    def _has_room(self) -> bool:
        return self.ejected < self._most_ejected()

    def _most_ejected(self) -> int:
        """Of two or more at least one, unless none may be; never all of them, nor all whose checks do not fail."""
        count, share = len(self.members), self.policy.max_ejected
        if count < 2 or share <= 0.0:
            return 0
        return max(min(max(int(share * count + 1e-9), 1), count - 1 - self.unhealthy), 0)

    def _is_upstreams(self, now: float) -> bool:
        """Whether the majority has failed within the same interval: that is the upstream, and nobody's own fault."""
        fallen, since = self._fallen, now - self.policy.interval_seconds
        while fallen and fallen[0][0] <= since:
            fallen.popleft()
        here = sum(self.members.get(one.endpoint) is one for _, one in fallen)
        return here * 2 > len(self.members)

    def _eject(self, standing: Standing, reason: EjectionReason, now: float) -> None:
        policy = self.policy
        eased = int((now - standing.eased_at) / policy.base_seconds)
        standing.times = max(standing.times - eased, 0) + 1
        standing.until = now + min(policy.base_seconds * standing.times, policy.max_seconds)
        standing.health = _EJECTED
        self.ejected += 1
        self.version += 1
        self.counted[reason] += 1
        self._await_end(standing)
        self._tell(standing, reason, now)

    def _await_end(self, standing: Standing) -> None:
        self._number += 1
        heappush(self._due, (standing.until, self._number, standing))

    def next_due(self) -> float:
        """When `tick` has something to do; infinite for never."""
        while self._due and not self._is_true(*self._due[0]):
            heappop(self._due)
        return self._due[0][0] if self._due else inf

    def _is_true(self, until: float, _: int, standing: Standing) -> bool:
        if standing.health is not _EJECTED or standing.until != until:
            return False
        return self.members.get(standing.endpoint) is standing

    def tick(self, now: float) -> None:
        """Take those back whose time is over."""
        while self.next_due() <= now:
            _, _, standing = heappop(self._due)
            self._take_back(standing, "its time is over", now)
        for endpoint in [one for one, standing in self._away.items() if standing.until <= now]:
            del self._away[endpoint]

    def _take_back(self, standing: Standing, why: str, now: float) -> None:
        if standing.health is _EJECTED:
            self.ejected -= 1
            standing.eased_at = now
        elif standing.health is _UNHEALTHY:
            self.unhealthy -= 1
        self._forget(standing, now)
        standing.good_at_failure = standing.good
        standing.back_at = now
        standing.slow_seconds = max(SLOW_START_SECONDS, self.slow_start_seconds)
        self.usable += 1
        self.version += 1
        self._watch(standing)
        self.news.append(
            EndpointChange(
                self.upstream, str(standing.endpoint), _USABLE, None, why, now, 0.0, standing.times
            )
        )

    @staticmethod
    def _forget(standing: Standing, now: float) -> None:
        """Nothing is counted against it."""
        standing.health, standing.why, standing.until = _USABLE, "", inf
        standing.row = standing.late = standing.streak = 0
        standing.begin_interval(now)

    def _end_of_outage(self, now: float) -> None:
        """None was usable, and one has answered well."""
        for standing in [one for one in self.members.values() if one.health is not _UNHEALTHY]:
            self._take_back(standing, "the upstream answers again", now)
            standing.back_at = -inf
        self._fallen.clear()

    def _keep_bound(self, now: float) -> None:
        """Fewer endpoints are there, or fewer may be ejected: those whose time ends first get a few requests."""
        too_many = self.ejected - self._most_ejected()
        if too_many <= 0:
            return
        out = [one for one in self.members.values() if one.health is _EJECTED]
        for standing in sorted(out, key=lambda one: one.until)[:too_many]:
            self.ejected -= 1
            self.version += 1
            standing.health, standing.until, standing.eased_at = _SPARED, inf, now
            self._tell(standing, None, now)
        if not self.is_judging:
            for standing in self.members.values():
                if standing.health in _PASSIVE:
                    self._take_back(standing, "it has no peers any more", now)

    def _watch(self, standing: Standing) -> None:
        is_timed = self.policy.is_on and self.policy.slower_than_peers is not None
        if is_timed and standing.latencies is None:
            standing.latencies = Latencies()
        elif not is_timed:
            standing.latencies = None
        is_bad = standing.longest > 0 or standing.health is not _USABLE
        standing.is_watched = is_timed or self.is_timing or is_bad

    def _tell(self, standing: Standing, reason: EjectionReason | None, now: float) -> None:
        seconds = standing.until - now if standing.health is _EJECTED else 0.0
        self.news.append(
            EndpointChange(
                self.upstream,
                str(standing.endpoint),
                standing.health,
                reason,
                standing.why,
                now,
                seconds,
                standing.times,
            )
        )
