"""What of a request says to which endpoint it is to go, for `load_balancing: {policy: ring_hash}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.ring import key_of
from sidecar.core.snapshot import HashKey, HashOn

if TYPE_CHECKING:
    from sidecar.forwarding.story import Story


def key_in(story: Story, hash_key: HashKey | None) -> int | None:
    """The key of a request; None where it has none, or there is nothing to look for."""
    if hash_key is None:
        return None
    if hash_key.on is HashOn.CLIENT:
        peer = story.peer
        return None if peer is None else key_of(peer[0].encode())
    lookup = story.request.lookup
    if hash_key.on is HashOn.HEADER:
        value = lookup.get(hash_key.name)
    else:
        value = _cookie(lookup.get(b"cookie", b""), hash_key.name)
    return key_of(value) if value else None


def _cookie(field: bytes, name: bytes) -> bytes | None:
    """The first cookie of this name (RFC 6265 5.4: user agents send the more specific one first)."""
    for pair in field.replace(b",", b";").split(b";"):  # HTTP/2 may have joined several fields by either
        found, _, value = pair.strip().partition(b"=")
        if found == name:
            return value
    return None
