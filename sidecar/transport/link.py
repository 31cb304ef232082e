"""A connection's transport, with what only the kernel knows of it and what only the kernel can do.

Decides nothing: both ends of the data path write to a `Link` and never to a transport, so that a TLS transport, one
that was handed over or one that was intercepted can stand behind it. `write`, `writelines`, `pause` and `resume` are
the transport's own methods, kept as attributes: nothing is added to the cost of a call. After `close`, `reset`,
`abort` or `lost` they do nothing, where uvloop's would raise.

Owned by the connection that was made with the transport. `lost` lets go of it, so that no cycle is left.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sidecar.core.request import Asked
from sidecar.core.secured import TlsFacts
from sidecar.transport import kernel
from sidecar.transport.unread import unread

Address = tuple[str, int]

USUAL_BUFFER_BYTES = 64 * 1024
"""What waits to be sent before `pause_writing` is called, as asyncio and uvloop have it."""


class Link:
    """One connected transport, in clear text or not."""

    __slots__ = (
        "_buffer_bytes", "_poll", "_transport", "asked", "pause", "peer", "resume", "tls", "write", "writelines",
    )  # fmt: skip

    write: Callable[[Any], None]
    """Send bytes; what the other side does not take yet waits in memory."""
    writelines: Callable[[Iterable[Any]], None]
    pause: Callable[[], None]
    """Read no more for now: neither bytes nor the other side's end will be told."""
    resume: Callable[[], None]
    peer: Address | None
    """The other side's address; None for a UNIX socket."""
    tls: TlsFacts | None
    """What the handshake came to; None in clear text."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport: asyncio.Transport | None = transport
        self._poll: Callable[[int], list[tuple[int, int]]] | None = None
        self._buffer_bytes = USUAL_BUFFER_BYTES
        self.asked: Asked | None = None
        """Where it was going, if that was somewhere else. Written by whoever finds out, before any request."""
        self.write = transport.write
        self.writelines = transport.writelines
        self.pause = transport.pause_reading
        self.resume = transport.resume_reading
        self.tls = transport.get_extra_info("tls")
        peer = transport.get_extra_info("peername")
        self.peer = (peer[0], peer[1]) if isinstance(peer, tuple) else None

    def __repr__(self) -> str:
        return f"<Link {self.peer} {'closing' if self.is_closing else 'open'}>"

    # What is known of it

    @property
    def local(self) -> Address | None:
        """Our own address on it; None for a UNIX socket, and once it is lost."""
        name = self._transport.get_extra_info("sockname") if self._transport is not None else None
        return (name[0], name[1]) if isinstance(name, tuple) else None

    @property
    def address(self) -> str:
        """The other side's, without its port; empty for a UNIX socket."""
        return self.peer[0] if self.peer is not None else ""

    @property
    def is_in_process(self) -> bool:
        """The other side is this process too (`in_process.py`): it has no port."""
        return self.peer is not None and not self.peer[1]

    @property
    def identity(self) -> str | None:
        """Who the other side has proved to be; None in clear text, and for a client without a certificate."""
        return self.tls.identity if self.tls is not None else None

    @property
    def sni(self) -> str | None:
        """The name that the client asked for in its handshake; None in clear text, and where it asked for none."""
        return self.tls.sni if self.tls is not None else None

    @property
    def alpn(self) -> str | None:
        """The protocol that the handshake agreed on; None in clear text, and where it agreed on none."""
        return self.tls.alpn if self.tls is not None else None

    @property
    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    @property
    def is_lost(self) -> bool:
        """Whether it has closed, and everything is over."""
        return self._transport is None

    @property
    def can_half_close(self) -> bool:
        """Whether one direction can end while the other goes on."""
        return self._transport is not None and self._transport.can_write_eof()

    def fileno(self) -> int:
        """The socket's descriptor, for those who only wait on it; -1 where there is none."""
        return kernel.fileno(self._transport) if self._transport is not None else -1

    def has_left(self) -> bool:
        """True if the other side has closed or reset, whatever of its bytes still waits to be read."""
        return self._transport is not None and kernel.has_left(self._transport)

    def is_reset(self) -> bool:
        """True if the connection is gone in both directions."""
        return self._transport is not None and kernel.is_reset(self._transport)

    def is_readable(self) -> bool:
        """True if bytes or an end wait in the kernel that the loop has not told yet."""
        poll = self._poll or self._poller()
        return poll is None or bool(poll(0))

    def is_ended(self) -> bool:
        """True if the other side has ended its direction, or reset: `has_left`, in a quarter of the time."""
        poll = self._poll or self._poller()
        return poll is None or any(events & kernel.ENDED for _, events in poll(0))

    def _poller(self) -> Callable[[int], list[tuple[int, int]]] | None:
        if self._transport is not None:
            self._poll = kernel.poll_readable(self._transport)
        return self._poll

    @property
    def unsent_bytes(self) -> int:
        """Written, and still in this process."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def untaken_bytes(self) -> int:
        """Written, and not taken by the other side's system: in this process and in the kernel."""
        return kernel.untaken_bytes(self._transport) if self._transport is not None else 0

    def unread(self) -> Iterator[bytes]:
        """What the kernel still holds behind a reset; only within `connection_lost`."""
        if self._transport is None:
            return iter(())
        # A TLS transport alone can read what is encrypted.
        return self._transport.unread() if self.tls is not None else unread(self._transport)  # type: ignore[attr-defined]

    # What can be done with it

    def write_last(self, data: bytes) -> None:
        """`write`, where nothing but an end of the connection follows."""
        if self.tls is None:
            self.write(data)
        elif self._transport is not None:
            self._transport.write_last(data)  # type: ignore[attr-defined]

    def set_sink(self, protocol: Any) -> None:
        """From now on `protocol` hears what arrives (`data_received`, `eof_received`, `connection_lost`, …)."""
        if self._transport is not None:
            self._transport.set_protocol(protocol)

    def bound_buffers(self, size: int) -> None:
        """How much may wait in each direction from now on, see `kernel.bound_buffers`."""
        if size != self._buffer_bytes and self._transport is not None:
            self._buffer_bytes = size
            kernel.bound_buffers(self._transport, size)

    def pause_again(self) -> None:
        """Something has come all the same: uvloop begins to read when `connection_made` returns, whatever that has
        said."""
        self.resume()
        self.pause()

    def bound_unsent(self) -> None:
        """See `kernel.bound_unsent`; for connections that were not accepted."""
        if self._transport is not None:
            kernel.bound_unsent(self._transport.get_extra_info("socket"))

    def keep_alive(self) -> None:
        """See `kernel.keep_alive`; for connections that may carry nothing for hours."""
        if self._transport is not None:
            kernel.keep_alive(self._transport.get_extra_info("socket"))

    def end_writing(self) -> None:
        """Say that nothing more will be written, once what was written has gone out; reading goes on."""
        if self.can_half_close and not self.is_closing:
            assert self._transport is not None
            with contextlib.suppress(
                OSError
            ):  # the other side has reset it; the loop tells of that by itself
                self._transport.write_eof()
        self._mute()

    def break_off(self) -> None:
        """In TCP as `end_writing`: whoever is listening reads on until the other side ends as well."""
        self.end_writing()

    def close(self) -> None:
        """Close once what was written has gone out."""
        self._mute()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now; what was not sent is lost."""
        self._mute()
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Close with a reset, not a FIN: an answer that ends with its connection must not look whole."""
        self._mute()
        if self._transport is not None:
            kernel.set_reset_on_close(self._transport)
            self._transport.abort()

    def lost(self) -> None:
        """The transport has closed (`connection_lost`): let go of it."""
        self._mute()
        self.pause = self.resume = _nothing
        self._transport = self._poll = None

    def _mute(self) -> None:
        self.write = self.writelines = _ignore


def _ignore(data: Any) -> None:
    """In the place of `write` once there is nobody to write to."""


def _nothing() -> None:
    """In the place of `pause` and `resume` once there is nothing to read."""
