"""HTTP/2 server side: the bytes of one client connection ↔ many requests and their answers at a time.

Decides when to read, when to write, and when the connection ends. It knows nothing of routes: each request is a
`ServedStream` with an exchange of its own. What HTTP/2 allows is the codec's to know (`sidecar/http2`). A client that
stalls one stream stops no other: the link is never paused for one. Owned by its listener.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

from sidecar.core.errors import Reason
from sidecar.core.memory_budget import (
    CONNECTION_BYTES,
    SECURED_BYTES,
    STEP_BYTES,
    Account,
    Claim,
    Held,
    settled,
)
from sidecar.downstream import http2_request
from sidecar.downstream.client_lines import Known
from sidecar.downstream.http2_stream import Host, ServedStream
from sidecar.downstream.phase import LAST_CALL_SECONDS, Phase, Then
from sidecar.downstream.phase_clock import UNSEEN, PhaseClock
from sidecar.downstream.secured import Secured
from sidecar.forwarding.exchange import Exchange
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.streams import ResetClient
from sidecar.forwarding.sweep import Expiring, Sweep
from sidecar.forwarding.visitors import Lack
from sidecar.http2 import events
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.errors import ErrorCode
from sidecar.http2.events import Http2Event
from sidecar.http2.floods import TRUSTED, UNTRUSTED
from sidecar.http2.slices import DATA_UNITS, END_UNITS, OTHER_UNITS, TINY_SLICE_BYTES, TurnShare
from sidecar.transport.link import Link
from sidecar.transport.turns import REQUEST_UNITS, SLICE_UNITS

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms

UNREAD_REQUESTS: Final = 100
"""Read from a client that takes nothing of what is written to it; then it is not read any more. Answers without a
body wait for no window, so that nothing else would bound them."""

# Read from module globals in the hot path: an enum's own lookup costs 15 to 50 ns each time.
_IDLE: Final = Phase.IDLE
_ANSWER: Final = Phase.ANSWER
_UNSENT: Final = Phase.UNSENT
_CLOSING: Final = Phase.CLOSING
_CLOSED: Final = Phase.CLOSED
_ENDED: Final = (_CLOSING, _CLOSED)
_REQUEST: Final = events.RequestReceived
_DATA: Final = events.DataReceived
_RESET: Final = events.StreamReset


class Http2ClientConnection(PhaseClock, Host):
    """One client, and its streams."""

    __slots__ = (
        "_account", "_behind", "_events", "_has_said_last", "_is_reading",
        "_is_turn_over", "_is_write_due", "_is_write_paused", "_kept_bytes", "_share", "_since",
        "_streams", "_uncredited", "_unread_requests", "_untaken", "bucket", "codec",
        "due", "forwarded", "is_draining", "lack", "link", "listener", "phase", "secured", "service",
    )  # fmt: skip

    def __init__(self, listener: ListenerTerms, link: Link, secured: Secured | None = None) -> None:
        self.listener = listener
        self.secured = secured
        self.service = listener.service
        self.link = link
        self.codec = Connection(Role.SERVER, limits=TRUSTED if listener.is_trusted else UNTRUSTED)
        self.phase = Phase.HEAD
        self._since = 0.0
        """When the phase's clock started."""
        self.due = inf
        self.bucket: set[Expiring] | None = None
        self.forwarded: Known | None = None
        """A host, and the lines that tell an upstream of this client's address."""
        self.is_draining = False
        self.lack: Lack | None = None
        self._has_said_last = False
        """The GOAWAY that names the last stream is out: nothing new can come."""
        self._streams: set[ServedStream] = set()
        """Whose exchange has not ended."""
        self._events: Sequence[Http2Event] = ()
        """Told by the codec, and not worked through: this turn of the loop had no time left for them."""
        self._behind = b""
        """Read, and not given to the codec yet, for the same reason."""
        turns = self.service.turns
        self._share = TurnShare(SLICE_UNITS, turns.take, turns.give_back)
        self._is_turn_over = False
        self._is_reading = False
        self._is_write_due = False
        self._is_write_paused = False
        self._uncredited = 0
        """Bytes of bodies that this read has brought, of which the codec is told once for all of them."""
        self._unread_requests = 0
        """That came since the client takes nothing."""
        self._untaken = UNSEEN
        """What waited for the client at the last look."""
        self._account: Account | None = None
        """What it holds above its own 4 KiB of the memory of all connections; None while that is nothing."""
        self._kept_bytes = 0
        """Of requests that have no upstream's connection yet."""

    def __repr__(self) -> str:
        return f"<Http2ClientConnection {self.link.peer} {self.phase.name} {self.codec.load.open_streams} streams>"

    @property
    def is_secured(self) -> bool:
        return self.secured is not None

    def was_idle(self, at: float) -> bool:
        """Without a stream since that time, and with nothing on its way that the kernel knows of: others may get its
        place. A visitor has none."""
        is_idle = self.phase is _IDLE and self._since <= at and self.lack is None
        return is_idle and not self._behind and not self.link.is_readable()

    is_silent = False
    """It began with the preface."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Its link was made before it, of this transport."""

    def start(self, data: bytes) -> None:
        """Take the link over. `data` is what the client has sent so far: the preface, and what came with it."""
        now = self.service.clock()
        self._enter(Phase.HEAD, now)
        self.data_received(data)
        if self.listener.is_ending:
            self.drain()

    def _overdue(self, then: Then, now: float) -> None:
        self._close(now)

    # What asyncio does

    def connection_lost(self, error: Exception | None) -> None:
        self._give_back()
        Sweep.remove(self)
        self.listener.forget(self)
        self.link.lost()
        self._end_streams(Reason.CLIENT_GONE, "the client went away")

    def _give_back(self) -> None:
        """It is over: nothing of it is kept, and nothing is charged for it any more."""
        self._enter(_CLOSED, self._since)
        self._behind = b""
        self._events = ()
        account, self._account = self._account, None
        if account is not None:
            account.hold(0)

    def eof_received(self) -> bool:
        return False  # a client that sends no more is taken to be gone, as in HTTP/1.1

    def pause_writing(self) -> None:
        self._is_write_paused = True
        self.codec.hold_data()
        self._charge()
        if self.phase is _IDLE or self.phase is _ANSWER:
            self._untaken = UNSEEN
            self._enter(_UNSENT, self.service.clock())

    def resume_writing(self) -> None:
        self._is_write_paused = False
        if self._account is not None:
            self._charge()
        self._unread_requests = 0
        if self.phase is _UNSENT:
            self._enter(_ANSWER, self.service.clock())
        self._resume()
        self._share.begin()
        try:
            self._handle(self.codec.resume_data())
            self._write()
            self._settle()
        except Exception as error:
            self._break_off(error)
        self._share.end()

    def data_received(self, data: bytes) -> None:
        if self._behind or self._is_turn_over:
            self._behind += data
            self._charge()
            return
        share = self._share
        share.left = share.take(SLICE_UNITS)  # as `begin`, without the call
        try:
            self._read(data)
        except Exception as error:
            self._break_off(error)
        left = share.left
        if left > 0:  # as `end`, without the call
            share.left = 0
            share.give_back(left)
        else:
            share.end()

    def _break_off(self, error: Exception) -> None:
        """A mistake of ours ends this connection and its exchanges, and nothing else."""
        message = "an error in reading from a client; its connection is ended"
        self.service.loop.call_exception_handler({"message": message, "exception": error})
        self.link.reset()
        self._end_streams(Reason.CONNECTION_RESET, "an error in the sidecar")

    def _end_streams(self, reason: Reason, detail: str) -> None:
        """A few in a turn of the loop."""
        for stream in list(self._streams):
            self.service.turns.end(partial(stream.gone, reason, detail))

    # What it holds of the memory of all connections

    def keeps(self, change: int) -> None:
        """So many bytes more, or less, of its streams' requests wait for a connection with an upstream."""
        self._kept_bytes += change
        self._charge()

    def _charge(self) -> None:
        if self.phase is _CLOSED:
            return  # its streams may hear of that a little later
        size = self.codec.load.unsent_bytes + self._kept_bytes + len(self._behind)
        if self._is_write_paused:
            size += self.link.unsent_bytes
        account, now = self._account, self.service.clock()
        if account is None:
            if size < STEP_BYTES:
                return
        elif size < account.charged_bytes:
            account.moved_at = now
        self._account = settled(account, self.service.memory, now, size)

    def claim(self, now: float) -> Claim | None:
        """What its end would give back, for whoever must choose."""
        if self.phase is _CLOSED:
            return None
        account = self._account
        size, since = CONNECTION_BYTES, self._since
        if self.secured is not None:
            size += SECURED_BYTES
        untaken, came = self._untaken_by_upstreams()
        if account is not None:
            size, since = size + account.charged_bytes, account.moved_at
        if untaken:
            size, since = size + untaken, came if account is None else max(since, came)
        if account is None and not untaken and self.codec.load.open_streams:
            return None
        return Claim(self, self.link.address, size, now - since, self.link.is_in_process)

    def _untaken_by_upstreams(self) -> tuple[int, float]:
        """How much of its requests upstreams do not take, and when the last of it came. The upstreams' connections
        are charged for it, and the end of this one gives it back."""
        parts = [part for part in (stream.untaken for stream in self._streams) if part[0]]
        return sum(size for size, _ in parts), max((came for _, came in parts), default=0.0)

    def end_for_memory(self) -> Held | None:
        """Give back what it holds; returns what that was, None if it must not be ended any more."""
        held = Held.ANSWER if self.codec.load.unsent_bytes or self._is_write_paused else Held.IDLE
        if held is Held.IDLE and self.codec.load.open_streams:
            if self._account is None and not self._untaken_by_upstreams()[0]:
                return None
            held = Held.BODY
        self._end_streams(Reason.OVERLOADED, "its connection was closed to give memory back")
        self.link.abort()
        self._give_back()  # now, or others would be closed for it until the loop has told of its end
        return held

    # From bytes to requests

    def _read(self, data: bytes) -> None:
        codec = self.codec
        self._is_reading = True
        try:
            if len(data) > TINY_SLICE_BYTES:
                self._read_slices(data)
            elif data:  # too few frames to be counted
                self._handle(codec.receive(data, self.service.clock()))
        finally:
            self._is_reading = False
        load = codec.load
        if codec.out or load.unsent_bytes or self._is_write_paused or self._account is not None:
            self._write()  # the read of a request alone has nothing to write
        if not load.open_streams:
            self._settle()

    def _read_slices(self, data: bytes) -> None:
        share = self._share
        share.begin_slices()
        try:
            while data and not self._is_turn_over:
                told, data, has_time = share.receive(self.codec, data, self.service.clock())
                self._handle(told)
                if data and not has_time and not (self._is_turn_over or self.link.is_closing):
                    self._put_off(())
        finally:
            self._behind = data + self._behind

    def _handle(self, told: Sequence[Http2Event]) -> None:
        """Work through what the codec tells, as far as this turn of the loop allows."""
        if self._is_turn_over:
            self._events = [*self._events, *told]
            return
        share = self._share
        at, count = 0, len(told)
        if count > 3 and told[-1].__class__ is not _REQUEST:  # fewer are of one message mostly
            told = events.gathered(told)
        while at < count:
            if share.left <= 0:
                self._put_off(told[at:])
                return
            event: Any = told[at]
            kind = event.__class__
            at += 1
            if kind is _REQUEST:
                share.left -= REQUEST_UNITS + len(event.head.fields)
                at = self._request(event, told, at)
            elif kind is _DATA:
                share.left -= OTHER_UNITS
                data, last, at = self._joined(event, told, at)
                owner: ServedStream | None = event.stream.owner
                if owner is not None:
                    owner.received(data, is_end=last.is_end)
            else:
                share.left -= END_UNITS if kind is _RESET else OTHER_UNITS
                _HANDLERS[kind](self, event)
        if self._uncredited:
            size, self._uncredited = self._uncredited, 0
            self.codec.credit_connection(size)

    def _joined(
        self, event: events.DataReceived, told: Sequence[Any], at: int
    ) -> tuple[bytes, events.DataReceived, int]:
        """See `events.joined`; it is to be credited on the connection."""
        begin, data, last = at - 1, event.data, event
        if not event.is_end and at < len(told) and told[at].__class__ is _DATA:
            data, last, at = events.joined(event, told, at)
        self._share.left -= DATA_UNITS * (at - begin)
        self._uncredited += len(data)
        return data, last, at

    def _put_off(self, rest: Sequence[Http2Event]) -> None:
        self._events = rest
        self._is_turn_over = True
        if self.phase is _IDLE:
            self._enter(_ANSWER, self.service.clock())  # it must not end as idle meanwhile
        self.link.pause()
        self.service.turns.later(self._take_up)

    def _take_up(self) -> None:
        rest, self._events = self._events, ()
        self._is_turn_over = False
        self._share.begin()
        behind, self._behind = self._behind, b""
        try:
            self._handle(rest)
            if self._is_turn_over:
                self._behind = behind + self._behind
                self._write()
            else:
                self._read(behind)
        except Exception as error:
            self._break_off(error)
        self._share.end()
        self._resume()

    def _resume(self) -> None:
        if not self._is_turn_over and not self._has_to_wait and not self.link.is_closing:
            self.link.resume()

    @property
    def _has_to_wait(self) -> bool:
        """It takes no answers: then nothing more is read that calls for one (RFC 9113 10.5)."""
        if not self._is_write_paused:
            return False
        return self.codec.load.unsent_answers > 0 or self._unread_requests >= UNREAD_REQUESTS

    # What the codec tells

    def _request(self, event: events.RequestReceived, told: Sequence[Any], at: int) -> int:
        """A head, and with it its body as far as the same read brought it. `told[at]` is what follows `event`;
        returns where to go on."""
        phase = self.phase
        if phase is _CLOSING or phase is _CLOSED:
            self.codec.release(event.stream)
            return at
        if self._is_write_paused:
            self._unread_requests += 1
        if phase is not _UNSENT:
            self.phase = _ANSWER  # as `_enter`, without the clock: nothing ends this phase
        stream = ServedStream().take(self, event.stream)
        self._streams.add(stream)
        part = None if event.is_end or at >= len(told) else told[at]
        if part.__class__ is not _DATA or part.stream is not event.stream:
            stream.begin(event)
        elif part.is_end and not event.head.protocol:  # as below, without the call
            at += 1
            data = part.data
            self._share.left -= DATA_UNITS
            self._uncredited += len(data)
            stream.begin(event, data)
        else:
            data, last, at = self._joined(part, told, at + 1)
            if last.is_end and not event.head.protocol:
                stream.begin(event, data)
            else:
                stream.begin(event)
                stream.received(data, is_end=last.is_end)
        if self.lack is not None and not self._has_said_last:
            self._take_no_more()
        return at

    def _too_large(self, event: events.RequestTooLarge) -> None:
        if self.phase is _CLOSING or self.phase is _CLOSED:
            self.codec.release(event.stream)
            return
        if self._is_write_paused:
            self._unread_requests += 1
        if self.phase is not _UNSENT:
            self.phase = _ANSWER
        stream = ServedStream().take(self, event.stream)
        self._streams.add(stream)
        stream.refuse(event)

    def _malformed(self, event: events.RequestMalformed) -> None:
        if event.code != ErrorCode.REFUSED_STREAM:
            self._tell(event.detail)

    def _tell(self, detail: str) -> None:
        """To log and metrics, as a 400: what was answered by RST_STREAM or GOAWAY alone."""
        request = http2_request.refused(self.listener, self.secured)
        exchange = Exchange().take(self.service, ResetClient(self.link.peer), request)
        exchange.begin(GivenUp(Reason.BAD_REQUEST, detail))

    def _trailers(self, event: events.TrailersReceived) -> None:
        owner: ServedStream | None = event.stream.owner
        if owner is not None:
            owner.ended(event.fields)

    def _reset(self, event: events.StreamReset) -> None:
        owner: ServedStream | None = event.stream.owner
        if owner is not None:
            owner.gone(Reason.CLIENT_GONE if event.is_by_peer else Reason.BAD_REQUEST, event.detail)

    def _writable(self, event: events.StreamWritable) -> None:
        owner: ServedStream | None = event.stream.owner
        if owner is not None:
            owner.writable()

    def _sent(self, event: events.StreamSent) -> None:
        owner: ServedStream | None = event.stream.owner
        if owner is not None:
            owner.sent()

    def _settings(self, event: Http2Event) -> None:
        if self.phase is Phase.HEAD:
            self._enter(_ANSWER if self.codec.load.open_streams else _IDLE, self.service.clock())

    def _failed(self, event: events.ConnectionFailed) -> None:
        reason = Reason.CLIENT_GONE if event.code == ErrorCode.NO_ERROR else Reason.BAD_REQUEST
        self._close(self.service.clock())
        if reason is Reason.BAD_REQUEST and not self._streams:  # else they tell
            self._tell(event.detail)
        self._end_streams(reason, event.detail)

    def _ignored(self, event: Http2Event) -> None:
        """Nothing follows from it here."""

    # Writing

    def write_soon(self) -> None:
        """Write what the codec has, once for all that is said in this read or this turn of the loop."""
        if not self._is_reading and not self._is_write_due:
            self._is_write_due = True
            self.service.loop.call_soon(self._write_due)

    def write_end(self) -> None:
        """The same where an answer has just ended: at once, if no other one could go with it."""
        if self.codec.load.open_streams > 1 or self._is_write_due:
            self.write_soon()
        elif not self._is_reading:
            self._write()

    def _write_due(self) -> None:
        self._is_write_due = False
        self._write()

    def _write(self) -> None:
        if self.codec.load.unsent_bytes or self._account is not None:
            self._charge()
        if self._is_write_paused:
            if self._has_to_wait and not self.link.is_closing:
                self.link.pause()
            return
        data = self.codec.take()
        if data:
            self.link.write(data)

    # The end

    def released(self, stream: ServedStream) -> None:
        """The exchange of one stream is over; what is left of its answer may wait for the client still."""
        self._streams.discard(stream)
        if not self._is_reading:
            self._settle()

    def _settle(self) -> None:
        """See whether the last stream has ended, however that came."""
        if self.codec.load.open_streams or self.phase is not _ANSWER or self._is_turn_over:
            return
        now = self.service.clock()
        self._enter(_IDLE, now)
        if self._has_said_last:
            self._close(now)

    def drain(self) -> None:
        """Ask the client to open no more streams here, and close when the last one has ended (RFC 9113 6.8)."""
        if self.is_draining or self.phase in _ENDED:
            return
        self.is_draining = True
        self.codec.drain()
        self._write()
        self.service.loop.call_later(LAST_CALL_SECONDS, self.service.turns.end, self._take_no_more)

    def turn_away(self, lack: Lack) -> None:
        """There is none of that for it: its first request is answered no, and it ends."""
        self.lack = lack

    is_retired = False
    """Nobody takes its place."""

    def retire(self) -> None:
        """It is old, or was made on other terms than those of its listener now."""
        self.service.turns.end(self.drain)

    def _take_no_more(self) -> None:
        if self.phase in _ENDED:
            return
        self._has_said_last = True
        self.codec.goaway()
        for stream in list(self._streams):
            stream.skip_no_more()
        self._write()
        if not self.codec.load.open_streams:
            self._close(self.service.clock())

    def _close(self, now: float) -> None:
        """Say goodbye, and close once what was written has gone out."""
        if self.phase in _ENDED:
            return
        if not self._has_said_last:
            self.codec.goaway()
        self._write()
        self._untaken = UNSEEN
        self._enter(_CLOSING, now)
        self.link.close()


_HANDLERS: Final[dict[type[Http2Event], Callable[[Http2ClientConnection, Any], None]]] = {
    events.TrailersReceived: Http2ClientConnection._trailers,
    events.StreamReset: Http2ClientConnection._reset,
    events.StreamWritable: Http2ClientConnection._writable,
    events.PeerSettings: Http2ClientConnection._settings,
    events.ConnectionFailed: Http2ClientConnection._failed,
    events.RequestTooLarge: Http2ClientConnection._too_large,
    events.RequestMalformed: Http2ClientConnection._malformed,
    events.StreamSent: Http2ClientConnection._sent,
    events.SettingsAcknowledged: Http2ClientConnection._ignored,
    events.PingAcknowledged: Http2ClientConnection._ignored,
    events.GoawayReceived: Http2ClientConnection._ignored,
}
