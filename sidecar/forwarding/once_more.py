"""Whether an attempt that failed is made once more without being asked to: the route's `retry` is another matter
(`retrying.py`). Decisions alone; the race acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sidecar.core.errors import Reason
from sidecar.core.retry import MOST_REFUSED, REPEATABLE, RetryCause
from sidecar.upstream.streams import Processed

if TYPE_CHECKING:
    from sidecar.forwarding.given_up import GivenUp
    from sidecar.forwarding.story import Story


def cause_to_try_again(
    story: Story, error: GivenUp, tried: Sequence[RetryCause], others: int
) -> RetryCause | None:
    """Why there is to be another attempt after one that ended by `error`; None: there is not.

    For three reasons, where it is certain that the attempt has done nothing: a stream that was not processed (RFC
    9113 8.7) goes on another connection, if its body is still here; a refused connection has other endpoints to go
    to; a stale one is replaced by a fresh one. Once for each, but up to three times for refused connections: several
    endpoints may be gone, and not be ejected yet. `tried`: reasons of the exchange's attempts before. `others`:
    endpoints of the upstream beside the one.
    """
    body = story.body
    if error.processed is Processed.NEVER and RetryCause.REFUSED not in tried:
        return RetryCause.REFUSED if body is None or body.is_resendable else None
    if error.reason is Reason.CONNECTION_REFUSED and error.processed is not Processed.NEVER:
        # A stream that was refused before has been given some of the body.
        is_left = tried.count(RetryCause.NOT_CONNECTED) < min(others, MOST_REFUSED)
        return RetryCause.NOT_CONNECTED if is_left and (body is None or body.is_resendable) else None
    is_untouched = story.request.method in REPEATABLE and (body is None or body.is_untouched)
    is_again = error.is_stale and is_untouched and RetryCause.STALE_CONNECTION not in tried
    return RetryCause.STALE_CONNECTION if is_again else None


def says_nothing(error: GivenUp, tried: Sequence[RetryCause]) -> bool:
    """Whether the end of an attempt teaches nothing of its upstream, as long as another one follows: a stale
    connection, and the first stream that was refused."""
    return error.is_stale or (error.processed is Processed.NEVER and RetryCause.REFUSED not in tried)
