"""What is wrong with a peer's frames, and how far it reaches: one stream, or the connection (RFC 9113 5.4).

The exceptions never leave this room: `Connection.receive` makes events of them.
"""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """RFC 9113 7. A code that is not here may come from a peer, and counts as INTERNAL_ERROR."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class ConnectionFault(Exception):
    """The peer broke a rule that ends the connection: it gets GOAWAY with `code`."""

    def __init__(self, code: ErrorCode, detail: str, flood: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.flood = flood
        """The bound that was passed, as in `floods.KINDS`; empty where it is none."""


class StreamFault(Exception):
    """The peer broke a rule that ends one stream: it gets RST_STREAM with `code`."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class HeadTooLarge(StreamFault):
    """A head beyond our MAX_HEADER_LIST_SIZE. A request gets 431 (RFC 9113 10.5.1)."""

    def __init__(self, method: bytes, content_type: bytes) -> None:
        super().__init__(ErrorCode.ENHANCE_YOUR_CALM, "the head is too large")
        self.method = method
        """What is known of it, for an answer that its client can read; empty where it says nothing of the kind."""
        self.content_type = content_type


def protocol_error(detail: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.PROTOCOL_ERROR, detail)


def frame_size_error(detail: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, detail)
