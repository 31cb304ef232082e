"""What stands in a dump in place of a value that may be a secret."""

from __future__ import annotations

import os
from functools import cache
from hashlib import blake2b

from sidecar.core.secrets import may_be_secret, without_secrets


def content(name: str, text: str, hidden: frozenset[str]) -> str:
    """The value of a header field or query parameter; a mark if its name is one that secrets have, or if it is one of
    `hidden`."""
    return mark(text) if may_be_secret(name) or text in hidden else text


def mark(text: str) -> str:
    """In place of a secret: the same for the same text in this process."""
    return f"(hidden {blake2b(text.encode(), digest_size=2, key=_mark_key()).hexdigest()})"


def url(value: str | None) -> str | None:
    """Without user, password and query."""
    return None if value is None else without_secrets(value)


@cache
def _mark_key() -> bytes:
    return os.urandom(16)
