"""TLS between a transport of the loop and a protocol of ours, by OpenSSL's memory buffers.

To the loop it is a protocol, to our connections a transport: a `Link` stands on it as on any other, and the path in
clear text has nothing of it. Why not the loop's own TLS: a handshake costs 792 µs here and 883 there, a direction can
end while the other goes on, and nothing reads on for 30 s after `close`. Decides nothing of who is trusted: the
context and `Handshaking` do.

Bounds: what one read of the loop brings is decrypted and told at once, or in a few turns if its records are tiny, and
reading pauses meanwhile; so nothing waits here but that and the beginning of a record (16 KiB). What is written is
encrypted at once, so what waits to be sent is the transport's, and counted there.
Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from itertools import chain
from typing import Any, Final, cast

from mypy_extensions import mypyc_attr, trait

from sidecar.core.contract import NO_SLOTS
from sidecar.core.errors import Reason
from sidecar.core.secured import TlsFacts
from sidecar.transport.tls.failures import TlsCut, TlsFailed, failure
from sidecar.transport.tls.names import Certificate
from sidecar.transport.tls.records import Records
from sidecar.transport.unread import unread

RECORD_BYTES: Final = 16 * 1024
"""The most that one record holds (RFC 8446 5.1)."""
ANSWER_BYTES: Final = 64 * 1024
"""Of answers to changes of keys while something is unsent: who asks for more, and does not read, wants our memory."""
MOST_RECORDS: Final = 1000
"""Read at a time. One read of the loop brings 16 of those that are full, or 11,000 of one byte, which take 17 ms."""
HELLO_BYTES: Final = 16 * 1024
"""Of a client's first message."""
HANDSHAKE_BYTES: Final = 128 * 1024
"""Of all that the other side says in a handshake: its chain has the most of it."""
SHUTDOWN_SECONDS: Final = 2.0
"""For the other side to end its direction, once everything has gone out to it; then it is aborted."""
STALLED_LOOKS: Final = 15
"""So many times 2 s without one byte taken of what is unsent when it is closed; then it is aborted."""

Wrap = Callable[[ssl.MemoryBIO, ssl.MemoryBIO], ssl.SSLObject]
"""(what comes in, what goes out) → the connection's TLS, by the context that is current."""


@mypyc_attr(allow_interpreted_subclasses=True)
@trait
class Handshaking(ABC):
    """Who began it, and hears how the handshake ends: one of the two, once."""

    __slots__ = ()

    @abstractmethod
    def shaken(self, transport: TlsTransport) -> None:
        """It is done, and `attach` is to come: nothing is read until then.

        Raises:
            TlsFailed: the other side is not who it should be; `failed` follows.
        """

    @abstractmethod
    def failed(self, transport: TlsTransport, error: TlsFailed) -> None:
        """There will be none. The transport closes by itself."""


@mypyc_attr(allow_interpreted_subclasses=True)
class OpenHandshaking(Handshaking):
    """What a class extends that is not compiled, as in tests: it can't extend a trait."""

    __slots__ = NO_SLOTS


class _Phase(Enum):
    SHAKING = auto()
    OPEN = auto()
    CLOSING = auto()
    """We have closed it, or it has failed: what comes is not read."""
    LOST = auto()


_OPEN: Final = _Phase.OPEN  # an enum's own lookup costs 15 to 50 ns


class TlsTransport:
    """One connection. `write` and its like do nothing once it is closed."""

    __slots__ = (
        "_answered_bytes", "_error", "_has_end", "_has_written_end", "_incoming", "_is_behind", "_is_kept",
        "_is_paused", "_is_peer_gone", "_is_raw_ended", "_is_server", "_loop", "_most_bytes", "_outgoing", "_owner",
        "_phase", "_protocol", "_raw", "_records", "_rest", "_shaken_bytes", "_timer", "_tls", "_unfed", "facts",
        "session_taker", "sni",
    )  # fmt: skip

    facts: TlsFacts | None
    """What was agreed on; None until the handshake is done."""

    def __init__(self, owner: Handshaking, wrap: Wrap, *, is_server: bool = False) -> None:
        self._owner: Handshaking | None = owner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = wrap(self._incoming, self._outgoing)
        self._most_bytes = HELLO_BYTES if is_server else HANDSHAKE_BYTES
        self._shaken_bytes = 0
        self._answered_bytes = 0
        self._unfed = b""
        """Read, and not given to OpenSSL yet."""
        self._records = Records()
        self._phase = _Phase.SHAKING
        self._raw: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._protocol: Any = None
        self._error: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._has_end = False
        """The other side has ended its direction."""
        self._has_written_end = False
        self._is_paused = False
        """By the protocol."""
        self._rest: list[bytes] = []
        """Read ahead of a reset, and not asked for yet."""
        self._is_behind = False
        """Something of one read is left for a later turn; the loop reads no more until then."""
        self._is_server = is_server
        self._is_raw_ended = False
        """Our own direction of the connection has."""
        self._is_peer_gone = False
        """Its direction of the connection has ended."""
        self._is_kept = False
        """The protocol goes on writing after that."""
        self.facts = None
        self.sni: str | None = None
        """The name that a client has asked for, where somebody writes it down."""
        self.session_taker: Callable[[TlsTransport], None] | None = None
        """Called once, after the first data: a session of TLS 1.3 comes no earlier (RFC 8446 4.6.1)."""

    def __repr__(self) -> str:
        return f"<TlsTransport {self._phase.name.lower()}>"

    # What the handshake's owner does

    @property
    def tls(self) -> ssl.SSLObject:
        """For what only the handshake's owner asks: certificate, session."""
        assert self._tls is not None, "it is lost"
        return self._tls

    @property
    def peer_certificate(self) -> Certificate:
        """Of the other side, if its chain was verified; else empty.

        Raises:
            TlsFailed: it cannot be read, or a session is resumed whose certificate has expired since.
        """
        try:
            certificate: Certificate = self.tls.getpeercert() or {}
        except ValueError as error:
            raise TlsFailed(Reason.TLS_CERTIFICATE, "certificate refused: it cannot be read") from error
        if certificate and ssl.cert_time_to_seconds(certificate["notAfter"]) < time.time():
            raise TlsFailed(Reason.TLS_CERTIFICATE, "certificate refused: it has expired")
        return certificate

    def attach(self, protocol: Any) -> None:
        """After `shaken`: from now on `protocol` hears what arrives.

        Raises:
            TlsFailed: it is lost again.
        """
        if self._phase is not _OPEN:
            error = self._error
            raise error if isinstance(error, TlsFailed) else _closed_early()
        self._owner = None
        self._protocol = protocol
        protocol.connection_made(self)
        self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        if self._phase is _OPEN and not self._is_paused:
            self.resume_reading()

    # What the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        if not self._is_server:  # the client speaks first
            self._shake()

    def data_received(self, data: bytes) -> None:
        if self._phase is _OPEN:
            self._unfed = self._unfed + data if self._unfed else data
            self._read()
        elif self._phase is _Phase.SHAKING:
            self._incoming.write(data)
            self._shaken_bytes += len(data)
            self._shake()

    def eof_received(self) -> bool:
        """The connection has ended in one direction, which is more than the end of TLS, and ought to come after."""
        self._is_peer_gone = True
        if self._phase is _OPEN and not self._has_end:
            self._error = TlsCut()
        return self._is_kept and self._phase is _OPEN

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        was = self._phase
        if was is _OPEN and error is not None:
            self._read_ahead_of_reset()
        owner, self._owner = self._owner, None
        protocol, self._protocol = self._protocol, None
        try:
            if protocol is not None:
                protocol.connection_lost(self._error or error)
            elif owner is not None and was is _Phase.SHAKING:
                owner.failed(self, _closed_early())
        finally:
            self._phase = _Phase.LOST
            self._error = self._error or error
            self._raw = self._tls = self.session_taker = None
            self._rest = []

    # The handshake

    def _shake(self) -> None:
        tls, owner = self._tls, self._owner
        assert tls is not None
        assert owner is not None
        try:
            if self._shaken_bytes > self._most_bytes:
                raise TlsFailed(Reason.TLS_PROTOCOL, f"a handshake of more than {self._most_bytes} bytes")
            tls.do_handshake()
            self._phase = _OPEN
            self.facts = _facts(tls, self.sni)
            if not self._has_tickets_alone:
                self._flush()
            self._unfed = self._incoming.read()  # from here on in pieces
            owner.shaken(self)
            if self._protocol is None:
                self._pause()  # until there is one
        except ssl.SSLWantReadError:
            self._flush()
            if self._shaken_bytes:
                self._most_bytes = HANDSHAKE_BYTES
        except (ssl.SSLError, TlsFailed) as error:
            found = error if isinstance(error, TlsFailed) else failure(error)
            self._fail(found)
            owner.failed(self, found)

    @property
    def _has_tickets_alone(self) -> bool:
        """What there is to say behind the handshake is nothing that the other side waits for. It goes with what is
        said first: by itself it costs a call of the kernel here, and one more on the other side."""
        return self._is_server and self.facts is not None and self.facts.version == "1.3"

    def _pause(self) -> None:
        if self._phase is _OPEN and self._raw is not None and not self._raw.is_closing():
            self._raw.pause_reading()

    # Reading

    def _read(self) -> None:
        """Tell all that has come, at once, as a transport in clear text would."""
        if self._protocol is None:
            return
        data, error = self._decrypted()
        if data:
            if self.session_taker is not None:
                taker, self.session_taker = self.session_taker, None
                taker(self)
            self._protocol.data_received(data)
        if self._phase is not _OPEN:
            return
        if error is not None:
            self._fail(error)
        elif (self._incoming.pending or self._unfed) and not self._has_end:
            self._put_off()
        elif self._has_end and not self._is_kept and not self._is_paused:
            self._is_kept = bool(self._protocol.eof_received())
            if not self._is_kept:
                self.close()

    def _put_off(self) -> None:
        """What is left to a later turn of the loop, since nobody may hold it with tiny records."""
        self._pause()
        self._is_behind = True
        self._loop.call_soon(self._read_rest)

    def _decrypted(self) -> tuple[bytes, TlsFailed | None]:
        tls, incoming = self._tls, self._incoming
        assert tls is not None
        first, failed = b"", None
        more: list[bytes] = []
        records, brought = self._records, 0
        unsaid = self._outgoing.pending
        """Tickets that go with what is written first."""
        try:
            while len(more) < MOST_RECORDS:
                if not (incoming.pending or tls.pending()):
                    if records.given > brought:
                        if not records.is_settled(brought, self._loop.time()):
                            failed = TlsFailed(Reason.TLS_PROTOCOL, "too many changes of keys")
                            break
                        brought = 0
                    if not self._unfed:
                        break
                    size = records.cut(self._unfed)
                    incoming.write(self._unfed[:size])
                    self._unfed = self._unfed[size:]
                try:
                    data = tls.read(RECORD_BYTES)
                except ssl.SSLWantReadError:
                    continue
                if not data:
                    self._has_end = True
                    break
                brought += 1
                if first:
                    more.append(data)
                else:
                    first = data
        except ssl.SSLZeroReturnError:
            self._has_end = True
        except ssl.SSLError as error:
            failed = failure(error)
        records.brought(brought)
        if self._has_end:
            self._unfed = b""  # OpenSSL reads nothing behind the end, and nobody else may (RFC 8446 6.1)
        if self._outgoing.pending > unsaid:
            refused = self._answer(self._outgoing.pending - unsaid)
            failed = failed or refused
        return (b"".join((first, *more)) if more else first), failed

    def _answer(self, size: int) -> TlsFailed | None:
        """A change of keys; or it is an alert that says what is wrong. Returns why no more may come."""
        if not self.get_write_buffer_size():
            self._answered_bytes = 0
        self._answered_bytes += size
        self._flush()
        if self._answered_bytes > ANSWER_BYTES:
            return TlsFailed(Reason.TLS_PROTOCOL, "too many changes of keys that are not answered")
        return None

    def unread(self) -> Iterator[bytes]:
        """What the kernel still held behind a reset; only within `connection_lost`."""
        rest, self._rest = self._rest, []
        return iter(rest)

    def _read_ahead_of_reset(self) -> None:
        """What the other side has sent before it: an answer, or the alert that says why."""
        if self._raw is None or self._tls is None:
            return
        for piece in chain((b"",), unread(self._raw)):  # first what is here already, and was not told
            self._unfed += piece
            self._error = self._keep_rest()
            if self._error is not None:
                return

    def _keep_rest(self) -> TlsFailed | None:
        while True:
            data, error = self._decrypted()
            if data:
                self._rest.append(data)
            if error is not None or not (data or self._unfed):
                return error

    # Writing

    def write(self, data: Any) -> None:
        raw = self._raw
        if raw is not None and self._encrypts(data):
            raw.write(self._outgoing.read())

    def write_last(self, data: Any) -> None:
        """`write`, where nothing but an end follows: what TLS says then goes along, by one call of the kernel."""
        if self._encrypts(data):
            self._add_end()
            self._flush()

    def _encrypts(self, data: Any) -> bool:
        """False where nothing can be written any more."""
        if self._phase is not _OPEN or not data:
            return False
        tls = self._tls
        assert tls is not None
        try:
            sent = tls.write(data)
            while sent < len(data):
                sent += tls.write(memoryview(data)[sent:])
        except ssl.SSLError as error:
            if not self._has_written_end:
                self._fail(failure(error))
            return False
        return True

    def writelines(self, lines: Iterable[Any]) -> None:
        self.write(b"".join(lines))

    def _flush(self) -> None:
        raw = self._raw
        if self._outgoing.pending and raw is not None and not raw.is_closing() and not self._is_raw_ended:
            raw.write(self._outgoing.read())

    # Its end

    def can_write_eof(self) -> bool:
        return self._phase is _OPEN

    def write_eof(self) -> None:
        """End this direction, of TLS and of the connection; the other goes on."""
        if self._phase is _OPEN and not self._has_written_end:
            self._say_end()
            if self._raw is not None and not self._raw.is_closing() and self._raw.can_write_eof():
                self._end_raw(self._raw)

    def _end_raw(self, raw: asyncio.Transport) -> None:
        """From here on nothing can be said, not even an answer to a change of keys."""
        self._is_raw_ended = True
        with contextlib.suppress(OSError):  # the other side has reset it; the loop tells of that by itself
            raw.write_eof()

    def _say_end(self) -> None:
        self._add_end()
        self._flush()

    def _add_end(self) -> None:
        """Behind what is to be written."""
        if self._tls is not None and not self._has_written_end:
            self._has_written_end = True
            waiting = self._incoming.read()  # `unwrap` reads on, and fails by what is data
            with contextlib.suppress(ssl.SSLError):  # it wants to read the other side's end, which may come
                self._tls.unwrap()
            self._incoming.write(waiting)

    def close(self) -> None:
        """Close once what was written, and the end of TLS, have gone out and the other side has ended too.

        Its tickets, or its own end, may lie unread in the kernel or be on their way: closing at once would answer
        them with a reset, which takes from it what it has not read yet (RFC 9112 9.6).
        """
        if self._phase is _OPEN:
            self._say_end()
            self._linger()

    def _linger(self) -> None:
        raw, was, self._phase = self._raw, self._phase, _Phase.CLOSING
        if raw is None or raw.is_closing():
            return
        is_in_vain = was is _Phase.SHAKING and not self._is_server  # nothing of ours is on its way
        if is_in_vain or self._has_end or self._is_peer_gone or not raw.can_write_eof():
            raw.close()
        else:
            self._end_raw(raw)
            raw.resume_reading()
        self._timer = self._loop.call_later(SHUTDOWN_SECONDS, self._look, raw.get_write_buffer_size(), 0)

    def _look(self, unsent: int, looks: int) -> None:
        """Whether what was unsent is being taken."""
        raw = self._raw
        if raw is None:
            return
        left = raw.get_write_buffer_size()
        looks = looks + 1 if left == unsent else 0
        if not unsent or looks >= STALLED_LOOKS:
            raw.abort()
        else:
            self._timer = self._loop.call_later(SHUTDOWN_SECONDS, self._look, left, looks)

    def _fail(self, error: TlsFailed) -> None:
        """Say so to the other side, and close. To the protocol it is lost at once: nothing can be sent on it."""
        self._error = error
        self._flush()
        if self._protocol is not None and self._raw is not None and self._raw.get_write_buffer_size():
            self.abort()  # nobody counts any more what is unsent
        else:
            self._linger()  # it is to read why
        if self._protocol is not None:
            protocol, self._protocol = self._protocol, None
            self._loop.call_soon(protocol.connection_lost, error)

    def close_early(self) -> None:
        """Nobody waits for the handshake any more. What it has failed by still goes out."""
        if self._phase in (_Phase.SHAKING, _OPEN):
            self.abort()

    def abort(self) -> None:
        """Close now; what was not sent is lost."""
        if self._phase is not _Phase.LOST:
            self._phase = _Phase.CLOSING
            if self._raw is not None:
                self._raw.abort()

    def is_closing(self) -> bool:
        return self._phase is not _OPEN or self._raw is None or self._raw.is_closing()

    # The transport's own

    def pause_reading(self) -> None:
        self._is_paused = True
        self._pause()

    def resume_reading(self) -> None:
        self._is_paused = False
        if self._phase is not _OPEN:
            return
        is_end_due = self._has_end and not self._is_kept
        # Either came with what was told last, or is more than a turn takes.
        if is_end_due or self._incoming.pending or self._unfed:
            self._is_behind = True
            self._loop.call_soon(self._read_rest)
        else:
            self._resume()

    def _read_rest(self) -> None:
        if self._phase is not _OPEN or self._is_paused:
            return  # `resume_reading` comes back to it
        was_behind, self._is_behind = self._is_behind, False
        self._read()
        if was_behind and not self._is_behind and not self._is_paused:
            self._resume()

    def _resume(self) -> None:
        if self._phase is _OPEN and self._raw is not None and not self._raw.is_closing():
            self._raw.resume_reading()

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size() if self._raw is not None else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._raw is not None:
            self._raw.set_write_buffer_limits(high=high, low=low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "tls":
            return self.facts
        return self._raw.get_extra_info(name, default) if self._raw is not None else default


def _closed_early() -> TlsFailed:
    return TlsFailed(Reason.TLS_PROTOCOL, "the other side closed in the handshake")


def _facts(tls: ssl.SSLObject, sni: str | None) -> TlsFacts:
    cipher = tls.cipher()
    version = (tls.version() or "").removeprefix("TLSv")
    return TlsFacts(
        version,
        cipher[0] if cipher else "",
        tls.selected_alpn_protocol(),
        sni,
        None,
        bool(tls.session_reused),
    )
