"""One try of an exchange against one endpoint: hears the upstream's connection and passes on what comes.

Body bytes go straight to the client; the milestones (head, end, failure) go to the exchange, which owns the attempt
and keeps it as a record when it is over (`ObservedAttempt`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sidecar.core.errors import Reason
from sidecar.forwarding import heads
from sidecar.forwarding.given_up import GivenUp

if TYPE_CHECKING:
    from sidecar.core.snapshot import Endpoint
    from sidecar.forwarding.exchange import Exchange
    from sidecar.upstream.connection import Field, UpstreamConnection
    from sidecar.upstream.pool import Pool


class Attempt:
    """The receiver of one response."""

    __slots__ = (
        "allowed_seconds", "connection", "ended", "endpoint", "exchange", "fields", "is_ended", "is_reused",
        "is_switched", "length", "listed", "pool", "reason", "rest", "sent_ms", "span_id", "started", "status",
        "trailers", "upstream",
    )  # fmt: skip

    fields: list[Field]
    """Of the response's head, with the next two: set with `status`."""
    length: int | None
    listed: bytes
    """The `Connection` field."""
    rest: bytes
    """What came behind a 101."""

    def __init__(
        self, exchange: Exchange, upstream: str, span_id: bytes, started: float, allowed_seconds: float
    ) -> None:
        self.exchange = exchange
        self.upstream = upstream
        self.span_id = span_id
        self.started = started
        self.ended = started
        self.allowed_seconds = allowed_seconds
        self.endpoint: Endpoint | None = None
        self.pool: Pool | None = None
        self.connection: UpstreamConnection | None = None
        self.status = 0
        self.reason: Reason | None = None
        self.sent_ms: int | None = None
        self.is_reused = self.is_ended = self.is_switched = False
        self.trailers: Sequence[Field] = ()

    def __repr__(self) -> str:
        return f"<Attempt {self.upstream} {self.endpoint} status={self.status} reason={self.reason}>"

    def close(self, *, is_request_sent: bool) -> None:
        """Give the connection back if the response ended as it should, and cut it in every other case."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self.is_switched:
            connection.forget()
        elif self.is_ended:
            connection.release(is_reusable=is_request_sent)
        else:
            connection.abort()

    # What the upstream's connection says (see `upstream.connection.Receiver`)

    def interim(self, status: int, fields: list[Field], listed: bytes) -> None:
        self.exchange.client.send_interim(heads.interim_head(status, fields, listed))

    def head(self, status: int, fields: list[Field], length: int | None, listed: bytes) -> None:
        self.status = status
        self.fields = fields
        self.length = length
        self.listed = listed
        self.exchange.head_arrived(self)

    def body(self, data: bytes) -> None:
        exchange = self.exchange
        exchange.response_bytes += len(data)
        exchange.client.send_body(data)

    def flush(self) -> None:
        self.exchange.client.flush()

    def completed(self, trailers: list[Field]) -> None:
        self.is_ended = True
        self.trailers = trailers
        self.exchange.completed(self)

    def switched(self, fields: list[Field], rest: bytes) -> None:
        self.status = 101
        self.fields = fields
        self.listed = b""
        self.rest = rest
        self.is_switched = True
        self.exchange.switched(self)

    def failed(self, reason: Reason, detail: str, is_stale: bool) -> None:
        self.connection = None
        self.exchange.fail(GivenUp(reason, detail, is_stale=is_stale))

    def pause_sending(self) -> None:
        self.exchange.client.pause_reading()

    def resume_sending(self) -> None:
        self.exchange.client.resume_reading()
