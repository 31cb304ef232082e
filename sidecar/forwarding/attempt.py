"""One try of an exchange against one endpoint: gets a connection, sends the request, passes on what comes back.

Body bytes go straight to the client; the milestones (head, end, failure) go to the exchange, which owns the attempt
and keeps it as a record when it is over (`ObservedAttempt`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING

from sidecar.core import deadline
from sidecar.core.errors import Reason
from sidecar.forwarding import heads
from sidecar.forwarding.given_up import GivenUp
from sidecar.upstream.cluster import ConnectFailed, Grant

if TYPE_CHECKING:
    from sidecar.core.plain import Field
    from sidecar.core.snapshot import Endpoint
    from sidecar.forwarding.exchange import Exchange
    from sidecar.forwarding.live import LiveRoute
    from sidecar.upstream.connection import UpstreamConnection
    from sidecar.upstream.pool import Pool


class Attempt:
    """The sender of one request and the receiver of its response."""

    __slots__ = (
        "_paused_at", "_stop_opening", "allowed_seconds", "connection", "ended", "exchange", "fields", "is_ended",
        "is_switched", "judged_from", "length", "listed", "pool", "reason", "rest", "route", "sent_ms", "span_id",
        "started", "status", "trailers", "upstream",
    )  # fmt: skip

    fields: list[Field]
    """Of the response's head, with the next two: set with `status`."""
    length: int | None
    listed: bytes
    """The `Connection` field."""
    rest: bytes
    """What came behind a 101."""
    judged_from: float
    """When it would have begun, had its client been quick: a slow client makes no slow call."""
    _paused_at: float

    def __init__(
        self,
        exchange: Exchange,
        route: LiveRoute,
        pool: Pool | None,
        upstream: str,
        span_id: bytes,
        started: float,
        allowed_seconds: float,
    ) -> None:
        self.exchange = exchange
        self.route = route
        self.upstream = upstream
        self.span_id = span_id
        self.started = self.ended = self.judged_from = started
        self.allowed_seconds = allowed_seconds
        self.pool = pool
        """None when no address is known; it counts the attempt from `send` or `open` to `end`."""
        self.connection: UpstreamConnection | None = None
        self.status = 0
        self.reason: Reason | None = None
        self.sent_ms: int | None = None
        self.is_ended = self.is_switched = False
        self.trailers: Sequence[Field] = ()
        self._stop_opening: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Attempt {self.upstream} {self.endpoint} status={self.status} reason={self.reason}>"

    @property
    def endpoint(self) -> Endpoint | None:
        return self.pool.endpoint if self.pool is not None else None

    # On its way to the upstream

    def open(self, pool: Pool) -> None:
        """Send once there is a connection: open one, or wait in line where the limit is reached.

        Raises:
            GivenUp: the line is full.
        """
        cluster = pool.cluster
        grant = cluster.grant()
        if grant is Grant.CONNECT:
            self._stop_opening = cluster.open(pool, self._opened)
        elif grant is Grant.WAIT:
            cluster.wait(self._granted)
            self._stop_opening = lambda: cluster.stop_waiting(self._granted)
        else:
            detail = f"{cluster.name}: max_connections and max_pending reached"
            raise GivenUp(Reason.OVERLOADED, detail, retry_after_seconds=1)

    def _granted(self, connection: UpstreamConnection | None) -> None:
        """The wait in line is over: here is a connection, or None for the right to open one."""
        assert self.pool is not None
        self._stop_opening = None
        if connection is None:
            self._stop_opening = self.pool.cluster.open(self.pool, self._opened)
            return
        if connection.pool is not self.pool:  # it is the first that came free, of whatever endpoint
            self.pool.in_flight -= 1
            self.pool = connection.pool
            self.pool.in_flight += 1
        self._opened(connection)

    def _opened(self, opened: UpstreamConnection | ConnectFailed) -> None:
        """A connection, or why there is none."""
        self._stop_opening = None
        exchange = self.exchange
        if isinstance(opened, ConnectFailed):
            exchange.fail(GivenUp(opened.reason, opened.detail))
            return
        if not opened.is_open:
            detail = "upstream closed the connection as soon as it was open"
            exchange.fail(GivenUp(Reason.CONNECTION_RESET, detail))
            return
        try:
            self.send(opened, exchange.service.clock())
        except GivenUp as error:
            exchange.fail(error)

    def send(self, connection: UpstreamConnection, now: float) -> None:
        """Send the request on an open connection that nobody uses.

        Raises:
            GivenUp: no time is left.
        """
        exchange, route = self.exchange, self.route
        seconds_left = exchange.fails_at - now
        if seconds_left < deadline.MIN_SEND_SECONDS:
            connection.release(is_reusable=True)
            raise GivenUp(Reason.DEADLINE_EXCEEDED, "no time was left to send the request")
        self.connection = connection
        connection.begin(self, exchange.method == b"HEAD", exchange.traits.wants_upgrade)
        if route.is_deadline_sent and seconds_left < inf:
            self.sent_ms = int(seconds_left * 1000.0)
        head = heads.request_head(exchange, self, seconds_left)
        if exchange.body is None:
            connection.transport.write(head)
        else:
            exchange.body.send_to(connection.transport, head)

    # What its client does meanwhile

    def request_arrived(self, now: float) -> None:
        """The client has sent the last of a body that came in pieces; a pause that lasts is left out from here on.

        In what was left out before, the upstream's own slowness to take the body is none of the client's.
        """
        body = self.exchange.body
        self.judged_from = now if body is None else now - body.held_back_seconds
        self._paused_at = now

    def pause(self, now: float) -> None:
        """The client takes no more of the answer for now."""
        if self.connection is not None and not self.connection.is_read_paused:
            self._paused_at = now
            self.connection.pause_reading()

    def resume(self, now: float) -> None:
        if self.connection is not None and self.connection.is_read_paused:
            self.judged_from += now - self._paused_at
            self.connection.resume_reading()

    def waits_for_client(self) -> bool:
        """Whether it is the client's turn: to take more of the answer, or to send the rest of its body."""
        connection, body = self.connection, self.exchange.body
        if connection is None:
            return False
        if connection.is_read_paused:
            return True
        if body is None or body.is_complete or connection.transport.get_write_buffer_size():
            return False
        return body.size > 0 or b"expect" not in self.exchange.lookup

    # Its end

    def end(self, now: float) -> None:
        """It is over, however that came: give back what it holds, and cut what did not end as it should."""
        self.ended = now
        if self.pool is not None:
            self.pool.in_flight -= 1
        body = self.exchange.body
        if body is not None:
            body.stop()
        connection = self.connection
        if connection is None:
            if self._stop_opening is not None:
                self._stop_opening()
                self._stop_opening = None
            return
        self.connection = None
        if self.is_ended:
            connection.release(is_reusable=body is None or body.is_complete)
        elif self.is_switched:
            connection.forget()
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
        exchange = self.exchange
        exchange.is_head_sent = True
        exchange.client.send_head(heads.response_lines(exchange, self.route, self), status, length)

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

    def answered(self, status: int, fields: list[Field], length: int, body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.length = length
        self.listed = b""
        self.is_ended = True
        exchange = self.exchange
        exchange.is_head_sent = True
        exchange.response_bytes = length
        lines = heads.kept_lines(exchange, self.route, status, fields, self.route.drop_response)
        exchange.client.send_whole(lines, body)
        exchange.completed(self)

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
        exchange = self.exchange
        if exchange.body is not None:
            exchange.body.hold_back(exchange.service.clock())
        exchange.client.pause_reading()

    def resume_sending(self) -> None:
        exchange = self.exchange
        if exchange.body is not None:
            exchange.body.let_go(exchange.service.clock())
        exchange.client.resume_reading()
