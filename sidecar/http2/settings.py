"""What each side tells the other at the beginning (RFC 9113 6.5), and the bounds that are ours alone."""

from __future__ import annotations

from typing import Final

from sidecar.core.contract import SLOTTED
from sidecar.core.path_dataclass import dataclass

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6
ENABLE_CONNECT_PROTOCOL: Final = 0x8
"""RFC 8441 3."""
NO_RFC7540_PRIORITIES: Final = 0x9
"""RFC 9218 2.1."""

DEFAULT_WINDOW: Final = 65_535
"""In bytes, for a stream and for a connection, before anything else was said (RFC 9113 6.9.2)."""
MAX_WINDOW: Final = 2**31 - 1
MIN_FRAME_SIZE: Final = 16_384
MAX_FRAME_SIZE_LIMIT: Final = 2**24 - 1
UNLIMITED: Final = 2**32 - 1


AGE_SECONDS: Final = 600.0
"""Of a connection with an upstream, give or take a tenth: then others are opened, and new pods get their share."""
AGE_JITTER: Final = 0.1


def age_seconds(chance: float) -> float:
    """How long a connection takes new streams. `chance`: 0 to 1, so that not all end together."""
    return AGE_SECONDS * (1.0 + AGE_JITTER * (2.0 * chance - 1.0))


@dataclass(frozen=True, **SLOTTED)
class Http2Settings:
    """What we promise a peer, sizes in bytes. The frame size stays at 16 KiB, the smallest: a stream's frame is then
    soon over, and others get their turn."""

    max_concurrent_streams: int = 1000
    """Streams that a client may have open at once, until they are released; more are refused."""
    stream_window: int = 256 * 1024
    connection_window: int = 1024 * 1024
    max_header_list_bytes: int = 64 * 1024
    """Of one head: names and values and 32 for each field (RFC 9113 10.5.1). A request with more is answered 431."""
    header_table_bytes: int = 4096
    max_continuations: int = 8
    """CONTINUATION frames of one head."""

    def __post_init__(self) -> None:
        if not 0 < self.max_concurrent_streams <= UNLIMITED:
            raise ValueError(f"max_concurrent_streams is {self.max_concurrent_streams}; say 1 to {UNLIMITED}")
        for name in ("stream_window", "connection_window"):
            value = getattr(self, name)
            if not DEFAULT_WINDOW <= value <= MAX_WINDOW:
                raise ValueError(f"{name} is {value}; say {DEFAULT_WINDOW} to {MAX_WINDOW}")
        if not 0 <= self.header_table_bytes <= 65_536:
            raise ValueError(f"header_table_bytes is {self.header_table_bytes}; say 0 to 65536")


OURS: Final = Http2Settings()


class PeerLimits:
    """What the peer allows us; RFC 9113's defaults until it says something else. Its connection alone writes it."""

    __slots__ = (
        "header_table_bytes", "is_connect_protocol_enabled", "is_known", "max_concurrent_streams", "max_frame_bytes",
        "max_header_list_bytes", "no_priorities", "stream_window",
    )  # fmt: skip

    def __init__(self) -> None:
        self.is_known = False
        """Its first SETTINGS have come."""
        self.max_concurrent_streams = UNLIMITED
        self.stream_window = DEFAULT_WINDOW
        self.max_frame_bytes = MIN_FRAME_SIZE
        self.header_table_bytes = 4096
        self.max_header_list_bytes = UNLIMITED
        """Advisory (RFC 9113 6.5.2); held by nobody here."""
        self.no_priorities: int | None = None
        """NO_RFC7540_PRIORITIES: its first SETTINGS say it once and for all."""
        self.is_connect_protocol_enabled = False
        """A server takes extended CONNECT (RFC 8441)."""
