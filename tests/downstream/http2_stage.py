"""A client's connection that speaks HTTP/2, without a socket, before a data path that is moved by hand."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.core.head import response_head
from sidecar.core.plain import Field
from sidecar.downstream.http2 import Http2ClientConnection
from sidecar.downstream.phase import Phase
from sidecar.http2.hpack_decoder import HpackDecoder
from tests.downstream.stage import Stage
from tests.http2.wire import ACK, HEADERS, PREFACE, SETTINGS, Frame, frame, frames_of, setting
from tests.support.by_hand import HandLease, Path


def field(name: str, value: str) -> Field:
    key = name.encode()
    return key, b"%b: %b\r\n" % (key, value.encode()), value.encode()


class Http2Stage(Stage):
    """One client that has sent its preface and SETTINGS. Each request needs a lease from `upstream`."""

    served: Http2ClientConnection

    def __init__(
        self, path: Path | None = None, *, listener: str = "inbound", settings: bytes | None = None
    ) -> None:
        super().__init__(path, listener=listener)
        self.send(PREFACE + (setting() if settings is None else settings) + frame(SETTINGS, ACK, 0))
        served = self.transport.protocol
        assert isinstance(served, Http2ClientConnection)
        self.served = served
        self._decoder = HpackDecoder()
        self.frames()

    def send(self, *reads: bytes) -> None:
        for data in reads:
            self.transport.protocol.data_received(data)
            self.loop.turn()

    def frames(self, *kinds: int) -> list[Frame]:
        """What was written since the last call, of these kinds if any are named."""
        self.loop.settle()
        return [one for one in frames_of(self.transport.take()) if not kinds or one.kind in kinds]

    def heads(self, found: Sequence[Frame]) -> list[dict[str, str]]:
        """The fields of each header block in them. All blocks must be read, in their order."""
        blocks = [self._decoder.decode(one.payload) for one in found if one.kind == HEADERS]
        return [{key.decode(): value.decode() for key, _, value in block} for block in blocks]

    def answer_head(
        self, lease: HandLease, *fields: Field, status: int = 200, length: int | None = None
    ) -> None:
        assert lease.heard_by is not None
        lease.heard_by.head(response_head(status, list(fields), length))
        lease.heard_by.flush()

    def answer_data(self, lease: HandLease, data: bytes) -> None:
        assert lease.heard_by is not None
        lease.heard_by.data(data)
        lease.heard_by.flush()

    def answer_end(self, lease: HandLease, *trailers: Field) -> None:
        assert lease.heard_by is not None
        lease.heard_by.end(trailers)

    @property
    def phase(self) -> Phase:
        return self.served.phase

    def lose(self, error: Exception | None = None) -> None:
        self.served.connection_lost(error)
