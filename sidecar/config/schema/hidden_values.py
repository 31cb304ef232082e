"""What stands in a dump in place of a value that may be a secret."""

from __future__ import annotations

import os
from functools import cache
from hashlib import blake2b

from sidecar.core.secrets import is_hidden, without_secrets


def content(name: str, text: str, hidden: frozenset[str]) -> str:
    """The value of a header field or query parameter; a mark if its name is one that secrets have, or if it is one of
    `hidden`."""
    return mark(text) if is_hidden(name, text, hidden) else text


def text(value: str | None, hidden: frozenset[str]) -> str | None:
    """Any other text, such as a path; a mark if it is one of `hidden`."""
    return mark(value) if value is not None and is_hidden("", value, hidden) else value


def mark(text: str) -> str:
    """In place of a secret: the same for the same text in this process."""
    return f"(hidden {blake2b(text.encode(), digest_size=2, key=_mark_key()).hexdigest()})"


def url(value: str | None) -> str | None:
    """Without user, password and query, but with a mark of them: another password is another value."""
    return None if value is None else without_secrets(value, mark)


@cache
def _mark_key() -> bytes:
    return os.urandom(16)
