"""Dates in header fields (RFC 9110 5.6.7): the form that is written today, and the two of old that are still read."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_TIME: Final = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_MONTH: Final = rb"(?P<month>[A-Z][a-z]{2})"
_FORMS: Final = (
    re.compile(rb"[A-Z][a-z]{2}, (?P<day>[0-9]{2}) %b (?P<year>[0-9]{4}) %b GMT" % (_MONTH, _TIME)),
    re.compile(rb"[A-Z][a-z]{5,8}, (?P<day>[0-9]{2})-%b-(?P<year>[0-9]{2}) %b GMT" % (_MONTH, _TIME)),
    re.compile(rb"[A-Z][a-z]{2} %b (?P<day>[ 0-9][0-9]) %b (?P<year>[0-9]{4})" % (_MONTH, _TIME)),
)
_MONTHS: Final = (
    b"Jan",
    b"Feb",
    b"Mar",
    b"Apr",
    b"May",
    b"Jun",
    b"Jul",
    b"Aug",
    b"Sep",
    b"Oct",
    b"Nov",
    b"Dec",
)
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_FIRST_OF_TWO_DIGITS: Final = 70
"""A year of two digits from here on is of the last century: no server writes of a time before 1970."""

_LEAP_SECOND: Final = 60


def http_date(second: float) -> str:
    """The form of today for a time in seconds since 1970; in English, whatever the locale says."""
    at = datetime.fromtimestamp(int(second), UTC)
    month = _MONTHS[at.month - 1].decode()
    return f"{_DAYS[at.weekday()]}, {at.day:02} {month} {at.year:04} {at:%H:%M:%S} GMT"


def seconds_of(value: bytes) -> float | None:
    """Seconds since the epoch; None for what is no date. The day of the week is not looked at."""
    for form in _FORMS:
        found = form.fullmatch(value)
        if found is not None:
            return _seconds(found)
    return None


def _seconds(found: re.Match[bytes]) -> float | None:
    month = found["month"]
    if month not in _MONTHS:
        return None
    year = int(found["year"])
    if len(found["year"]) == len("94"):
        year += 1900 if year >= _FIRST_OF_TWO_DIGITS else 2000
    second = int(found["second"])
    if second == _LEAP_SECOND:
        second -= 1  # a datetime has no place for it
    try:
        at = datetime(
            year, _MONTHS.index(month) + 1, int(found["day"]), int(found["hour"]), int(found["minute"]), second,
            tzinfo=UTC,
        )  # fmt: skip
    except ValueError:
        return None
    return at.timestamp()
