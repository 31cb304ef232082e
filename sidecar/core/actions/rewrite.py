"""A request's target with another path: for what an upstream is asked for, and where a client is sent.

Paths are taken as the client sent them: nothing is unescaped or joined (`core/path.py` says why), and a query stays
as it is. A target that has no path (`*`, RFC 9112 3.2.4) is left alone.
"""

from __future__ import annotations


def with_prefix(target: bytes, prefix: bytes, matched: int) -> bytes:
    """`target` with `prefix` in place of its first `matched` bytes, of which a slash at the end is none.

    A slash at the end of `prefix` is left out before a rest, as in Gateway API's ReplacePrefixMatch.
    """
    if target[:1] != b"/":
        return target
    changed = prefix.rstrip(b"/") + target[matched:]
    return changed if changed.startswith(b"/") else b"/" + changed


def with_path(target: bytes, path: bytes) -> bytes:
    """`target` with `path` in place of its own; the query stays."""
    if target[:1] != b"/":
        return target
    _, mark, query = target.partition(b"?")
    return path + mark + query
