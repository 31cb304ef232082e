"""What the admin API tells of a breaker, in the words that several commands use. Pure."""

from __future__ import annotations

from typing import Any


def state_of(breaker: dict[str, Any]) -> str:
    """Its state, and whether an operator put it there."""
    return str(breaker["state"]) + (" (forced)" if breaker["is_overridden"] else "")


def newest_change(breaker: dict[str, Any]) -> dict[str, Any] | None:
    """The last entry of its history; None if nothing has happened yet."""
    return max(breaker["history"], key=lambda change: int(change["sequence"]), default=None)
