"""Moments for people."""

from __future__ import annotations

from datetime import UTC, datetime


def to_the_second(at: float) -> str:
    """`at`, in seconds since 1970, as `2026-01-31T12:00:00Z`: what is less than a second is left out."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
