"""What follows where the attempts of an exchange have failed or were answered badly, and the client has nothing yet:
another try, or what there is stands.

Acts by what `once_more.py` and `retrying.py` decide, one try after another; tries side by side are the race's own.
Keeps what the client gets if nothing better comes, and the timer until the next try. Made by the race at the first
such end, and owned by it; it knows its race in calls alone, so that no cycle is left.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, cast

from sidecar.core.contract import NO_SLOTS
from sidecar.core.observe import Notice
from sidecar.core.retry import RetryCause
from sidecar.forwarding.attempt import Attempt, AttemptOwner
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.leaving import is_of_endpoint
from sidecar.forwarding.once_more import cause_to_try_again, says_nothing
from sidecar.forwarding.retrying import (
    ADMITTING,
    asked_to_wait,
    cause_after_answer,
    cause_after_failure,
    seconds_to_retry,
)
from sidecar.forwarding.withheld import Answered

if TYPE_CHECKING:
    from sidecar.core.outcome import Kind
    from sidecar.core.transition import Transition
    from sidecar.forwarding.live import Destination, LiveRoute
    from sidecar.forwarding.permit import Permit
    from sidecar.upstream.cluster import AnyPool


class Mended(AttemptOwner):
    """The race, as what mends it sees it."""

    __slots__ = NO_SLOTS

    route: LiveRoute
    destination: Destination
    """Who is asked now."""
    running: list[Attempt]
    """Under way."""

    @abstractmethod
    def ask_once_more(self, now: float) -> Permit | None:
        """For a further attempt; None: it is refused, and the client hears of the one before instead."""

    @abstractmethod
    def others(self) -> int:
        """Endpoints that may be asked beside the one that was."""

    @abstractmethod
    def may_leave(self, attempt: Attempt) -> bool:
        """Whether a failure of this attempt, which is not counted yet, is not to be its client's."""

    @abstractmethod
    def well_endpoint(self, now: float) -> AnyPool | None:
        """One that was not tried, and that does not fail; None: nothing is sent there."""

    @abstractmethod
    def untried(self) -> AnyPool | None:
        """An endpoint that has not been tried; where all were, another than the last one, if there is one."""

    @abstractmethod
    def run_again(
        self,
        permit: Permit,
        pool: AnyPool | None,
        cause: RetryCause,
        now: float,
        before: Attempt | None = None,
    ) -> None:
        """Begin a further attempt. Where `before` was a trial that this one goes on with, it ends with that one's
        time."""

    @abstractmethod
    def is_sent_on(self, now: float) -> bool:
        """Whether this was a trial of an upstream, and goes on to one that takes over."""

    @abstractmethod
    def give(self, attempt: Attempt, answer: Answered) -> None:
        """The client gets this answer."""

    @abstractmethod
    def tell(self, transition: Transition | None) -> None:
        """What the end of an attempt made of its breaker."""


class SetAside:
    """A bad answer, kept while another attempt may bring a better one."""

    __slots__ = ("answer", "attempt")

    def __init__(self, attempt: Attempt, answer: Answered) -> None:
        self.attempt = attempt
        self.answer = answer


class Mending:
    """Of one race."""

    __slots__ = ("_aside", "_attempt", "_cause", "_stands", "_timer", "retries", "tried")

    def __init__(self) -> None:
        self.tried: tuple[RetryCause, ...] = ()
        """Why it was tried again without being asked to: once for each cause."""
        self.retries = 0
        """Further tries that the route's `retry` has brought about, one that is planned included."""
        self._cause = RetryCause.OTHER
        """Why the last of them was."""
        self._timer: asyncio.TimerHandle | None = None
        """Until the next one."""
        self._attempt: Attempt | None = None
        """The last one that failed."""
        self._stands: Answered | GivenUp | None = None
        """What came of it."""
        self._aside: SetAside | None = None
        """A bad answer that came while another attempt was under way."""

    def __repr__(self) -> str:
        return f"<Mending, {self.retries} retries{', waits' if self._timer is not None else ''}>"

    # What has come of an attempt

    def failed(self, race: Mended, attempt: Attempt, error: GivenUp, kind: Kind, now: float) -> None:
        """No whole answer came of the last attempt that was under way."""
        aside = self.take_aside()
        if aside is not None:
            race.tell(attempt.judge(kind, now, error))
            self._stand_after_all(race, aside, now)
            return
        story = race.story
        again = cause_to_try_again(story, error, self.tried, race.others())
        is_left = again is None and is_of_endpoint(error) and race.may_leave(attempt)
        # A probe's permit goes on to the attempt that follows.
        keeps_permit = again is not None and (attempt.permit.is_probe or says_nothing(error, self.tried))
        if not keeps_permit:
            race.tell(attempt.judge(kind, now, error))
        if again is not None and self._try_again(race, attempt, again, now, keeps_permit=keeps_permit):
            return
        if race.is_sent_on(now):
            return
        cause = None if again is not None else cause_after_failure(story, race.route, self.retries, error)
        if cause is not None:
            self._plan_retry(race, attempt, error, cause, 0.0, now)
        elif not (is_left and self.leave(race, now)):
            story.lost(error)

    def answered(
        self,
        race: Mended,
        attempt: Attempt,
        answer: Answered,
        cause: RetryCause | None,
        now: float,
        *,
        is_left: bool,
    ) -> None:
        """An answer came that may be bettered: by an attempt that is under way, or by another try for `cause`.
        `is_left`: its endpoint was suspect before."""
        if race.running:
            self.drop_aside()
            self._aside = SetAside(attempt, answer)
        else:
            self._retry_or_stand(race, attempt, answer, cause, now, is_left=is_left)

    def leave(self, race: Mended, now: float) -> bool:
        """Whether the request is sent on to an endpoint that is well, from one that was suspect."""
        destination = race.destination
        pool = race.well_endpoint(now)
        if pool is None:
            return False
        if not destination.take_to_leave(now):
            race.story.service.observe.noticed(Notice.RETRY_BUDGET_EXHAUSTED, race.route.name)
            return False
        permit = race.ask_once_more(now)
        if permit is None:
            destination.leaving.give_back()
            return False
        self.retries += 1
        race.run_again(permit, pool, RetryCause.SUSPECT, now)
        return True

    def take_aside(self) -> SetAside | None:
        """The bad answer that was kept, for whoever gives it to the client."""
        aside, self._aside = self._aside, None
        return aside

    def drop_aside(self) -> None:
        """A better one has come, or nobody is there to get it."""
        aside = self.take_aside()
        if aside is not None:
            aside.answer.release()

    def cancel(self, race: Mended) -> None:
        """The exchange ends: nothing is tried any more."""
        self.drop_aside()
        self._release()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            if race.destination.retry_budget is not None:
                race.destination.retry_budget.give_back()

    # Another try, or none

    def _try_again(
        self, race: Mended, failed: Attempt, cause: RetryCause, now: float, *, keeps_permit: bool
    ) -> bool:
        """False where the breaker or a limit is against it: nobody is told of that, and the first failure stands."""
        self.tried = (*self.tried, cause)
        permit = failed.permit if keeps_permit else race.ask_once_more(now)
        if permit is None:
            return False
        pool = cast("AnyPool | None", failed.pool)
        if pool is None or pool.is_retired or cause is not RetryCause.STALE_CONNECTION:
            pool = race.untried()
        race.run_again(permit, pool, cause, now, failed)
        return True

    def _stand_after_all(self, race: Mended, aside: SetAside, now: float) -> None:
        """A bad answer came first, and nothing better after it."""
        attempt, answer = aside.attempt, aside.answer
        cause = cause_after_answer(
            race.story, race.route, self.retries, attempt, answer.head, attempt.grpc_status
        )
        self._retry_or_stand(race, attempt, answer, cause, now)

    def _retry_or_stand(
        self,
        race: Mended,
        attempt: Attempt,
        answer: Answered,
        cause: RetryCause | None,
        now: float,
        *,
        is_left: bool = False,
    ) -> None:
        if cause is None:
            race.give(attempt, answer)
        else:
            has_other = len(race.destination.cluster.pools) > 1
            asked_seconds = asked_to_wait(attempt, answer.head, has_other=has_other)
            if asked_seconds > 0.0 and is_left and race.well_endpoint(now) is not None:
                asked_seconds = 0.0  # that is said of an endpoint that fails, and there is one that does not
            self._plan_retry(race, attempt, answer, cause, asked_seconds, now)

    def _plan_retry(
        self,
        race: Mended,
        attempt: Attempt,
        stands: Answered | GivenUp,
        cause: RetryCause,
        asked_seconds: float,
        now: float,
    ) -> None:
        """Try once more after a while, if budget and time allow it; else what there is stands."""
        self._release()
        self._attempt, self._stands = attempt, stands
        story = race.story
        seconds = seconds_to_retry(story, race.route, race.destination, self.retries, asked_seconds, now)
        if seconds is None:
            self._stand(race)
            return
        self.retries += 1
        self._cause = cause
        self._timer = story.service.loop.call_later(seconds, self._retry, race)

    def _retry(self, race: Mended) -> None:
        """The wait is over."""
        self._timer = None
        now, destination = race.story.service.clock(), race.destination
        permit = race.ask_once_more(now) if destination.breaker.state in ADMITTING else None
        if permit is None:
            if destination.retry_budget is not None:
                destination.retry_budget.give_back()
            self._stand(race)
        else:
            self._release()
            race.run_again(permit, race.untried(), self._cause, now)

    def _stand(self, race: Mended) -> None:
        """No further try is made: the client gets what there is."""
        attempt, stands = self._attempt, self._stands
        if isinstance(stands, GivenUp):
            race.story.lost(stands)
        elif attempt is not None and stands is not None:
            race.give(attempt, stands)

    def _release(self) -> None:
        """What stood does no more: another try is made, or the client has it."""
        stands, self._stands = self._stands, None
        if isinstance(stands, Answered):
            stands.release()
