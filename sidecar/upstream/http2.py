"""HTTP/2 client side: the bytes of one connection to one endpoint ↔ many requests and their responses at a time.

Decides which streams a lost or draining connection has certainly not processed, whether a silent one is still alive,
when to write, and how much of what came is worked through in one turn of the loop. It knows nothing of routes: each
request is a `SentStream`. Owned by its `Http2Pool`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any, Final, cast

from sidecar.core.errors import Reason
from sidecar.core.memory_budget import SECURED_BYTES, STEP_BYTES, Account, settled
from sidecar.http2 import events
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.errors import ErrorCode
from sidecar.http2.events import Http2Event
from sidecar.http2.slices import DATA_UNITS, END_UNITS, OTHER_UNITS, TINY_SLICE_BYTES, TurnShare
from sidecar.http2.stream import Http2Stream
from sidecar.http2.streams import STREAMS_BEFORE_SETTINGS
from sidecar.transport.kernel import limit_unacknowledged
from sidecar.transport.link import Link
from sidecar.transport.tls.failures import TlsCut, TlsFailed
from sidecar.transport.turns import REQUEST_UNITS, SLICE_UNITS
from sidecar.upstream.http2_stream import Carrier, SentStream
from sidecar.upstream.lease import SharingPool
from sidecar.upstream.securing import processed
from sidecar.upstream.streams import Processed

PING_EVERY_SECONDS: Final = 5.0
"""At most one question for a sign of life in so long."""
SUSPECT_SECONDS: Final = 2.0
"""Without a byte after the question: no new streams."""
DEAD_SECONDS: Final = 10.0
"""Without a byte after the question: closed."""
SEE_OUT_SECONDS: Final = 30.0
"""For the rest of a request whose response is whole already; then it is reset, since nobody waits for it."""
UNACKNOWLEDGED_SECONDS: Final = 20.0
"""What the kernel has sent and the peer's has not acknowledged for so long ends it (`TCP_USER_TIMEOUT`)."""
_PING: Final = b"sidecar?"
_TOO_MANY_PINGS: Final = b"too_many_pings"
_NOTHING: Final[Sequence[Http2Event]] = ()

# Read from module globals in the hot path: a module's own attribute costs a look-up more each time.
_RESPONSE: Final = events.ResponseReceived
_DATA: Final = events.DataReceived
_TRAILERS: Final = events.TrailersReceived
_RESET: Final = events.StreamReset


class Http2UpstreamConnection(Carrier):
    """One connection. `pool` is where it came from."""

    __slots__ = (
        "_account", "_asked_at", "_behind", "_events", "_is_lost", "_is_reading", "_is_suspect", "_is_turn_over",
        "_is_write_due", "_is_write_paused", "_loop", "_lost_by", "_share", "_timer", "_uncredited", "codec",
        "expires", "heard_at", "idle_since", "is_open", "link", "pool", "streams", "was_used",
    )  # fmt: skip

    link: Link

    def __init__(self, pool: SharingPool) -> None:
        self.pool = pool
        self.codec = Connection(Role.CLIENT)
        self.streams: set[SentStream] = set()
        """Not released yet."""
        self.is_open = False
        self.was_used = False
        """A stream has ended here."""
        self.idle_since = 0.0
        """When its last stream ended, in seconds on the loop's clock."""
        self.expires = inf
        """It takes no new streams from then on, so that its place goes to a fresh one. In the endless past: it is
        to be closed."""
        self.heard_at = 0.0
        """When the last byte came."""
        self._account: Account | None = None
        """What it holds above its own 4 KiB of the memory of all connections; None while that is nothing."""
        self._asked_at = -inf
        self._is_suspect = False
        self._events: Sequence[Http2Event] = _NOTHING
        """Told by the codec, and not worked through: this turn of the loop had no time left for them."""
        self._behind = b""
        """Read, and not given to the codec yet, for the same reason."""
        turns = pool.cluster.turns
        self._share = TurnShare(SLICE_UNITS, turns.take, turns.give_back)
        self._is_turn_over = False
        self._uncredited = 0
        """Bytes of bodies that this read has brought, of which the codec is told once for all of them."""
        self._is_lost = False
        """There is no socket any more; its streams hear of it behind what had come before."""
        self._lost_by: Exception | None = None
        """With what, until that is told."""
        self._is_reading = False
        self._is_write_due = False
        self._is_write_paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return (
            f"<Http2UpstreamConnection {self.pool.endpoint} {state}, {self.codec.load.open_streams} streams>"
        )

    def now(self) -> float:
        return self._loop.time()

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Any:
        return self._loop.call_soon(callback, *args)

    @property
    def has_room(self) -> bool:
        """One more stream may be opened here."""
        return self.has_room_at(self.now())

    def has_room_at(self, now: float) -> bool:
        codec = self.codec
        if not self.is_open or self._is_suspect or not codec.can_open():
            return False
        if not codec.peer.is_known and codec.load.open_streams >= self.pool.stream_limit:
            return False
        return self.expires > now

    @property
    def is_idle(self) -> bool:
        return not self.codec.load.open_streams

    def place(self) -> SentStream | None:
        """A place for one request; None if it has none."""
        return SentStream().take(self) if self.has_room else None

    def released(self, now: float) -> None:
        """One stream has ended, however that came: see whether it was the last one, and who may have its place."""
        self.was_used = True
        if not self.codec.load.open_streams:
            self.idle_since = now
            if self.is_open and (self.codec.load.is_draining or self.pool.is_retired or self.expires <= now):
                self.close()
                return
        self.pool.came_free(self, now)

    def see_out(self, stream: Http2Stream) -> None:
        """Its response is whole, and some of its request waits for the upstream still."""
        self._loop.call_later(SEE_OUT_SECONDS, self._cut, stream)

    def _cut(self, stream: Http2Stream) -> None:
        if self.is_open and not stream.is_over:
            self.codec.reset(stream, ErrorCode.CANCEL)
            self._write()
            self.released(self.now())

    # What asyncio does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link = Link(cast(asyncio.Transport, transport))
        limit_unacknowledged(transport, UNACKNOWLEDGED_SECONDS)
        memory = self.pool.cluster.memory
        memory.joined()
        if self.link.tls is not None:
            memory.charge(SECURED_BYTES)
        self.link.bound_unsent()
        self.is_open = True
        self.idle_since = self.heard_at = self.now()
        self._write()

    def connection_lost(self, error: Exception | None) -> None:
        is_open, self.is_open = self.is_open, False
        self._stop_doubting()
        self.link.lost()
        if is_open:
            self._forget()
        self._is_lost, self._lost_by = True, error
        if not self._is_turn_over:
            self._end()

    def _end(self) -> None:
        """It is lost, and all that had come is worked through."""
        error, self._lost_by = self._lost_by, None
        if isinstance(error, TlsFailed) and not isinstance(error, TlsCut):
            is_begun = self.was_used or self.codec.peer.is_known
            self._fail_all(error.reason, error.detail, processed(error, is_begun=is_begun))
        else:
            self._fail_all(Reason.CONNECTION_RESET, "upstream closed the connection")
        self._account = settled(self._account, self.pool.cluster.memory, 0.0, 0)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._is_write_paused = True
        self.codec.hold_data()
        self._charge()

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self._resume()
        self._share.begin()
        try:
            self._handle(self.codec.resume_data())
        except Exception as error:
            self._break_off(error)
        self._share.end()
        self._write()

    def _resume(self) -> None:
        has_to_wait = self._is_write_paused and self.codec.load.unsent_answers > 0
        if self.is_open and not self._is_turn_over and not has_to_wait:
            self.link.resume()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        if self._is_suspect:
            self._is_suspect = False
            self._stop_doubting()
        if self._is_turn_over:
            self._behind += data
            self._charge()
            return
        share = self._share
        share.left = share.take(SLICE_UNITS)  # as `begin`, without the call
        self._read(data)
        left = share.left
        if left > 0:  # as `end`, without the call
            share.left = 0
            share.give_back(left)
        else:
            share.end()

    def _read(self, data: bytes) -> None:
        codec = self.codec
        self._is_reading = True
        try:
            if len(data) > TINY_SLICE_BYTES:
                self._read_slices(data)
            elif data:  # too few frames to be counted
                self._handle(codec.receive(data, self.heard_at))
        except Exception as error:
            self._break_off(error)
        finally:
            self._is_reading = False
        if codec.out or codec.load.unsent_bytes or self._is_write_paused or self._account is not None:
            self._write()  # the read of an answer alone has nothing to write

    def _read_slices(self, data: bytes) -> None:
        share = self._share
        share.begin_slices()
        try:
            while data and not self._is_turn_over:
                told, data, has_time = share.receive(self.codec, data, self.heard_at)
                self._handle(told)
                if data and not has_time and self.is_open and not self._is_turn_over:
                    self._put_off(_NOTHING)
        finally:
            self._behind = data + self._behind if self._is_turn_over else b""

    def _break_off(self, error: Exception) -> None:
        """A mistake of ours ends this connection and the attempts on it, and nothing else."""
        message = "an error in reading from an upstream; its connection is ended"
        self._loop.call_exception_handler({"message": message, "exception": error})
        streams = self._owners()
        self._events = _NOTHING
        self._behind = b""
        self.abort()
        for stream in streams:
            self.pool.cluster.turns.end(stream.broken)

    def abort(self) -> None:
        """Close at once, in whatever state; its streams hear of it when it is lost."""
        if self.is_open:
            self.is_open = False
            self.link.abort()
            self._forget()

    def let_go(self) -> None:
        """Its opening failed or was called off: see HTTP/1.1's."""
        if hasattr(self, "link"):
            self.connection_lost(None)

    def close(self) -> None:
        """Say goodbye, and close: nobody is here any more."""
        if self._is_write_paused:
            self.abort()  # the upstream takes nothing, and would keep the socket
        elif self.is_open:
            self.codec.goaway()
            self._write()
            self.is_open = False
            self.link.close()
            self._forget()

    @property
    def is_leaving(self) -> bool:
        """`leave` was called."""
        return self.expires == -inf

    def leave(self) -> None:
        """Take no new streams, and close: thousands may be idle together, so a few do in a turn of the loop."""
        self.expires = -inf
        self.pool.cluster.turns.end(self._close_idle)

    def _close_idle(self) -> None:
        if self.is_idle:  # else its last stream closes it
            self.close()

    def _forget(self) -> None:
        memory = self.pool.cluster.memory
        memory.left()
        if self.link.tls is not None:
            memory.charge(-SECURED_BYTES)
        self.pool.forget(self)

    def _owners(self) -> list[SentStream]:
        return list(self.streams)

    def _fail_all(self, reason: Reason, detail: str, fate: Processed = Processed.MAYBE) -> None:
        self._fail(self._owners(), reason, detail, fate)

    def _fail(self, streams: list[SentStream], reason: Reason, detail: str, fate: Processed) -> None:
        """A few in a turn of the loop."""
        turns = self.pool.cluster.turns
        for stream in streams:
            turns.end(partial(stream.failed, reason, detail, fate))

    # What the codec tells

    def _handle(self, told: Sequence[Http2Event]) -> None:
        """Work through what the codec tells, as far as this turn of the loop allows."""
        if self._is_turn_over:
            self._events = [*self._events, *told]
            return
        share = self._share
        at, count = 0, len(told)
        if count > 3 and told[-1].__class__ is not _RESPONSE:  # fewer are of one message mostly
            told = events.gathered(told)
        while at < count:
            if share.left <= 0:
                self._put_off(told[at:])
                return
            event: Any = told[at]
            kind = event.__class__
            at += 1
            if kind is _RESPONSE:
                share.left -= REQUEST_UNITS + len(event.fields)
                at = self._response(event, told, at)
            elif kind is _DATA:
                share.left -= OTHER_UNITS
                data, event, at = self._joined(event, told, at)
                owner: SentStream | None = event.stream.owner
                if owner is not None:
                    owner.received(data, is_end=event.is_end)
            else:
                share.left -= END_UNITS if kind is _TRAILERS or kind is _RESET else OTHER_UNITS
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
        self._share.left -= DATA_UNITS * (at - begin) + (END_UNITS if last.is_end else 0)
        self._uncredited += len(data)
        return data, last, at

    def _response(self, event: events.ResponseReceived, told: Sequence[Any], at: int) -> int:
        """A head, and with it its whole body, and a call's trailers, where one read brought them."""
        owner: SentStream | None = event.stream.owner
        if owner is None:
            return at
        if event.is_end:
            owner.answered(event, b"")
            return at
        last = told[at] if at < len(told) else None
        if last.__class__ is not _DATA or last.stream is not event.stream:
            owner.head(event)
            owner.flush()  # a head whose body is still to come says something by itself
            return at
        at += 1
        data = last.data
        if last.is_end:  # as `_joined`, without the call
            self._share.left -= DATA_UNITS + END_UNITS
            self._uncredited += len(data)
            owner.answered(event, data)
            return at
        following = told[at] if at < len(told) else None
        if following.__class__ is _DATA:
            data, last, at = self._joined(last, told, at)
            following = told[at] if at < len(told) else None
        else:
            self._share.left -= DATA_UNITS
            self._uncredited += len(data)
        if last.is_end:
            owner.answered(event, data)
        elif following.__class__ is _TRAILERS and following.stream is event.stream and owner.is_call:
            self._share.left -= END_UNITS
            owner.answered(event, data, following.fields)
            at += 1
        else:
            owner.head(event)
            owner.received(data, is_end=False)
        return at

    def _put_off(self, rest: Sequence[Http2Event]) -> None:
        self._events = rest
        self._is_turn_over = True
        self.link.pause()
        self.pool.cluster.turns.later(self._take_up)

    def _take_up(self) -> None:
        """In a later turn of the loop: go on with what the last one had no time for."""
        rest, self._events = self._events, _NOTHING
        behind, self._behind = self._behind, b""
        self._is_turn_over = False
        self._share.begin()
        try:
            self._handle(rest)
        except Exception as error:
            self._break_off(error)
            behind = b""
        if self._is_turn_over:
            self._behind = behind + self._behind
            self._share.end()
            self._write()
            return
        self._read(behind)
        self._share.end()
        self._resume()
        if self._is_lost and not self._is_turn_over:
            self._end()

    def _interim(self, event: events.InterimReceived) -> None:
        owner: SentStream | None = event.stream.owner
        if owner is not None:
            owner.interim(event)

    def _trailers(self, event: events.TrailersReceived) -> None:
        owner: SentStream | None = event.stream.owner
        if owner is not None:
            owner.ended(event.fields)

    def _reset(self, event: events.StreamReset) -> None:
        owner: SentStream | None = event.stream.owner
        if owner is None:
            self.released(self.now())
        elif not event.is_by_peer:
            owner.failed(Reason.PROTOCOL_ERROR, f"malformed response: {event.detail}", Processed.YES)
        elif event.is_unprocessed:
            owner.failed(
                Reason.CONNECTION_REFUSED, f"upstream refused the stream: {event.detail}", Processed.NEVER
            )
        else:
            owner.failed(Reason.CONNECTION_RESET, f"upstream reset the stream: {event.detail}", Processed.YES)

    def _writable(self, event: events.StreamWritable) -> None:
        owner: SentStream | None = event.stream.owner
        if owner is not None:
            owner.writable()

    def _goaway(self, event: events.GoawayReceived) -> None:
        if _TOO_MANY_PINGS in event.debug:
            self.pool.may_ping = False
        if self.is_idle:
            self.close()

    def _sent(self, event: events.StreamSent) -> None:
        owner: SentStream | None = event.stream.owner
        if owner is None:
            self.released(self.now())
        else:
            owner.sent()

    def _settings(self, event: Http2Event) -> None:
        self.pool.stream_limit = min(self.codec.peer.max_concurrent_streams, STREAMS_BEFORE_SETTINGS)
        for stream in self._owners():
            stream.settings_known()
        self.pool.came_free(self, self.now())

    def _failed(self, event: events.ConnectionFailed) -> None:
        streams = self._owners()
        if self.is_open:
            self._write()
            self.is_open = False
            self.link.close()
            self._forget()
        self._fail(streams, Reason.PROTOCOL_ERROR, f"malformed HTTP/2: {event.detail}", Processed.YES)

    def _ignored(self, event: Http2Event) -> None:
        """Nothing follows from it here."""

    # Writing

    def write_soon(self) -> None:
        """Write what the codec has, once for all that is said in this read or this turn of the loop."""
        if not self._is_reading and not self._is_write_due:
            self._is_write_due = True
            self._loop.call_soon(self._write_due)

    def _write_due(self) -> None:
        self._is_write_due = False
        self._write()

    def _charge(self) -> None:
        """What its streams have been given and the upstream does not take is memory of this connection."""
        size = self.codec.load.unsent_bytes + len(self._behind)
        if self._is_write_paused:
            size += self.link.unsent_bytes
        if size < STEP_BYTES:
            size = 0  # on its way
        if size or self._account is not None:
            # Nobody asks when an account with an upstream moved.
            self._account = settled(self._account, self.pool.cluster.memory, 0.0, size)

    def _write(self) -> None:
        if self.is_open and (self.codec.load.unsent_bytes or self._account is not None):
            self._charge()
        if self._is_write_paused:
            if self.codec.load.unsent_answers and self.is_open:
                self.link.pause()
            return
        data = self.codec.take()
        if data and self.is_open:
            self.link.write(data)

    # Is it alive?

    def ask(self, now: float) -> None:
        """Its streams run out of time: has the connection lost its other end, or is the upstream just slow?"""
        if not self.pool.may_ping or now - self._asked_at < PING_EVERY_SECONDS or not self.is_open:
            return
        if self._is_suspect:
            return  # it has been asked, and its time runs
        self._asked_at = now
        self.codec.ping(_PING)
        self.write_soon()
        self._timer = self._loop.call_later(SUSPECT_SECONDS, self._doubt)

    def _doubt(self) -> None:
        self._timer = None
        if self.heard_at < self._asked_at and self.is_open:
            self._is_suspect = True
            self._timer = self._loop.call_later(DEAD_SECONDS - SUSPECT_SECONDS, self._bury)

    def _bury(self) -> None:
        self._timer = None
        self.abort()

    def _stop_doubting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_HANDLERS: Final[dict[type[Http2Event], Callable[[Http2UpstreamConnection, Any], None]]] = {
    events.InterimReceived: Http2UpstreamConnection._interim,
    events.TrailersReceived: Http2UpstreamConnection._trailers,
    events.StreamReset: Http2UpstreamConnection._reset,
    events.StreamWritable: Http2UpstreamConnection._writable,
    events.PeerSettings: Http2UpstreamConnection._settings,
    events.GoawayReceived: Http2UpstreamConnection._goaway,
    events.ConnectionFailed: Http2UpstreamConnection._failed,
    events.StreamSent: Http2UpstreamConnection._sent,
    events.SettingsAcknowledged: Http2UpstreamConnection._ignored,
    events.PingAcknowledged: Http2UpstreamConnection._ignored,
}
