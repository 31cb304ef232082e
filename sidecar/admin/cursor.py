"""Where a client goes on: `LIFE-NUMBER`, as ids of events and cursors of looks are written."""

from __future__ import annotations

MAX_DIGITS = 18
"""Of a number; nothing here ever counts so far, and Python refuses to read ones of thousands."""


def place_of(text: str | None, life: str, newest: int) -> int | None:
    """The number, if it is one of this life and was given out already; else None: begin anew."""
    own, _, number = (text or "").rpartition("-")
    is_number = number.isascii() and number.isdigit() and len(number) <= MAX_DIGITS
    return int(number) if own == life and is_number and int(number) <= newest else None
