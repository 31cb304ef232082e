"""What stands between an upstream of HTTP/1.1 and the handshake of a WebSocket whose client speaks HTTP/2."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.core.errors import Reason
from sidecar.core.head import ResponseHead
from sidecar.core.plain import Field
from sidecar.upstream.streams import Processed, ResponseSink


class HandshakeSink(ResponseSink):
    """Passes on all but a 2xx. To an upstream of HTTP/1.1 that is an answer without a switch (RFC 9110 7.8); by
    HTTP/2 it would tell the client that its WebSocket is open (RFC 8441 5)."""

    __slots__ = ("_sink",)

    def __init__(self, sink: ResponseSink) -> None:
        self._sink = sink

    def interim(self, head: ResponseHead) -> None:
        self._sink.interim(head)

    def head(self, head: ResponseHead) -> None:
        if not self._declines(head):
            self._sink.head(head)

    def data(self, data: bytes | memoryview) -> None:
        self._sink.data(data)

    def flush(self) -> None:
        self._sink.flush()

    def end(self, trailers: Sequence[Field]) -> None:
        self._sink.end(trailers)

    def answered(self, head: ResponseHead, body: bytes | memoryview, trailers: Sequence[Field] = ()) -> None:
        if not self._declines(head):
            self._sink.answered(head, body, trailers)

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        self._sink.switched(head, rest)

    def failed(self, reason: Reason, detail: str, processed: Processed) -> None:
        self._sink.failed(reason, detail, processed)

    def declined(self, detail: str) -> None:
        self._sink.declined(detail)

    def broken(self) -> None:
        self._sink.broken()

    def blocked(self) -> None:
        self._sink.blocked()

    def writable(self) -> None:
        self._sink.writable()

    def _declines(self, head: ResponseHead) -> bool:
        if head.status >= 300:
            return False
        self._sink.declined(
            f"the upstream has answered {head.status} to the handshake of a WebSocket, not 101"
        )
        return True
