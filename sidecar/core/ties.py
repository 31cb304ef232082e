"""Counts how many calls of the app could be tied to the request that they were made for; notices where none can.

An app without OpenTelemetry passes no `traceparent` on: its calls have a budget of their own, and nothing fails, so
nobody would notice. Background work has no request either, so calls count only while some request to the app is
under way. Owned by the event loop.
"""

from __future__ import annotations

from typing import Final

ENOUGH: Final = 100
"""Calls without any tie, after which it is no chance."""


class Ties:
    """Of one process."""

    __slots__ = ("_is_told", "by_trace_alone", "tied", "untied")

    def __init__(self) -> None:
        self.tied = 0
        self.untied = 0
        self.by_trace_alone = 0
        """Of those that are tied: by a trace id that a client may have chosen, which bounds and never cancels."""
        self._is_told = False

    @property
    def are_missing(self) -> bool:
        """There were enough calls, and none could be tied."""
        return self.untied >= ENOUGH and not self.tied

    @property
    def are_loose(self) -> bool:
        """Calls could be tied, and each by its trace id alone."""
        return 0 < self.tied == self.by_trace_alone

    def has_news(self) -> bool:
        """`are_missing`, for the first time."""
        is_news = self.are_missing and not self._is_told
        self._is_told |= is_news
        return is_news


def told(ties: Ties) -> str | None:
    """What a person should know of the ties; None if all is well."""
    if ties.are_missing:
        return advice(ties.untied)
    if ties.are_loose:
        return (
            f"all {ties.tied} calls of the app that could be tied to a request were known by trace id alone: they get"
            " what is left of its time, and are not cancelled with it. An app that passes traceparent and"
            " tracestate on (not B3, Jaeger, X-Ray or Datadog alone) lets cancellations through, too"
        )
    return None


def advice(calls: int) -> str:
    """What is wrong, and what to do."""
    return (
        f"none of {calls} calls of the app could be tied to a request to it: deadlines and cancellations do not reach"
        " them. The app must pass the field traceparent on, which OpenTelemetry's instrumentation of its HTTP server"
        " and client does"
    )
