"""Which version of HTTP a client begins with, by its first bytes (SPEC-PROTOCOLS 14, detection).

HTTP/2 by all 24 bytes of its preface (RFC 9113 3.4), which no request of HTTP/1.1 begins with.
"""

from __future__ import annotations

from enum import Enum, auto

from sidecar.core.snapshot import HttpVersion
from sidecar.http2.codec import PREFACE


class Sniffed(Enum):
    """What the first bytes are."""

    HTTP1 = auto()
    """Or nothing that is known here: its reader says what is wrong with it."""
    HTTP2 = auto()
    UNDECIDED = auto()
    """The beginning of a preface."""


def sniff(data: bytes, protocol: HttpVersion) -> Sniffed:
    """`protocol` is what the listener speaks. One that speaks HTTP/2 alone takes everything for it, and its codec
    says what is wrong with the rest."""
    if protocol is HttpVersion.HTTP2:
        return Sniffed.HTTP2
    if protocol is HttpVersion.HTTP1 or data[:3] != PREFACE[:3][: len(data)]:
        return Sniffed.HTTP1
    if data[: len(PREFACE)] == PREFACE:
        return Sniffed.HTTP2
    return Sniffed.UNDECIDED if PREFACE.startswith(data) else Sniffed.HTTP1
