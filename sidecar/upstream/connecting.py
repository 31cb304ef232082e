"""Opening one connection, for whoever waits for it.

Several may wait for the same one where requests share a connection: each gets a place on it, and a failure is one
failure, told to each. Where requests do not share, as in HTTP/1.1, one waits. When nobody waits any more it is called
off; a connection that is there already then goes to the pool for the next one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from sidecar.core.errors import Reason
from sidecar.core.own_lack import is_own_lack
from sidecar.core.tracebacks import drop_tracebacks
from sidecar.transport.dialing import dial
from sidecar.transport.link import USUAL_BUFFER_BYTES
from sidecar.transport.tls.client import ServerIdentity
from sidecar.transport.tls.failures import TlsFailed
from sidecar.upstream.lease import LeasePool, Seeker
from sidecar.upstream.raw import RawConnection
from sidecar.upstream.securing import Securing


class ConnectFailed(Exception):
    """No connection could be had; `reason` says why, the text is for the log."""

    def __init__(self, reason: Reason, detail: str, *, is_counted: bool = True) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.is_counted = is_counted
        """It says something of the upstream."""


class Connecting:
    """One connection on its way. Its place is reserved, and comes free again in every case that leaves no connection,
    also when the task was cancelled before its first step."""

    __slots__ = ("_is_told", "_on_end", "_task", "on_left_over", "pool", "seekers", "waits")

    def __init__(
        self,
        pool: LeasePool,
        seconds: float,
        on_end: Callable[[Connecting, bool], None],
    ) -> None:
        """`on_end` is called before anybody who waits is told, with whether there is a connection."""
        self.pool = pool
        self.seekers: list[Seeker] = []
        """Who waits, first come first served."""
        self.waits: list[Any] = []
        """Their places, where several share it."""
        self.on_left_over: Callable[[Connecting, list[Seeker]], None] | None = None
        """Called with those whom the connection has no place for."""
        self._on_end = on_end
        self._is_told = False
        """Somebody has heard of its failure."""
        self._task = asyncio.get_running_loop().create_task(_connect(pool, seconds))
        self._task.add_done_callback(self._done)

    def __repr__(self) -> str:
        return f"<Connecting {self.pool.endpoint} for {len(self.seekers)}>"

    @property
    def is_called_off(self) -> bool:
        """Nobody waited any more: nobody is to join it, since it brings nothing."""
        return self._task.cancelling() > 0

    def cancel(self, seeker: Seeker) -> None:
        """One does not wait any more; with nobody left it is called off."""
        if seeker in self.seekers:
            self.seekers.remove(seeker)
            self.waits = [wait for wait in self.waits if wait.seeker is not seeker]
        if not self.seekers:
            self._task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        try:
            self._tell(task)
        finally:
            self.waits.clear()  # each of them points here: no cycle may be left

    def _tell(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        self._on_end(self, not task.cancelled() and error is None)
        if isinstance(error, ConnectFailed):
            drop_tracebacks(
                error
            )  # this task keeps it, and behind it are a timeout's frames, which keep the task
            self._refuse_all(error.reason, error.detail, is_counted=error.is_counted)
        elif error is not None:
            self._refuse_all(Reason.OVERLOADED, "an error in the sidecar", is_counted=True)
            raise error  # a mistake of ours: the loop's exception handler tells it
        else:
            seekers, self.seekers = self.seekers, []
            if not task.cancelled():
                self._hand_out(task.result(), seekers)

    def _refuse_all(self, reason: Reason, detail: str, *, is_counted: bool) -> None:
        """A few in a turn of the loop; all that share this connection are one failure."""
        turns = self.pool.cluster.turns
        for seeker in list(self.seekers):
            turns.end(partial(self._refuse, seeker, reason, detail, is_counted=is_counted))

    def _refuse(self, seeker: Seeker, reason: Reason, detail: str, *, is_counted: bool) -> None:
        if seeker in self.seekers:  # else it does not wait any more
            self.seekers.remove(seeker)
            is_counted, self._is_told = is_counted and not self._is_told, True
            seeker.not_leased(reason, detail, is_counted=is_counted)

    def _hand_out(self, connection: Any, seekers: list[Seeker]) -> None:
        pool: LeasePool = connection.pool  # another one than was thought, if the handshake said so
        left: list[Seeker] = []
        if self.pool.is_shared and not pool.is_shared:
            seekers, left = seekers[:1], seekers[1:]
        left = pool.hand_out(connection, seekers) + left
        if left and self.on_left_over is not None:
            self.on_left_over(self, left)


async def _connect(pool: LeasePool, seconds: float) -> Any:
    if pool.secure is not None:
        return await _connect_securely(pool, pool.secure, seconds)
    connection = pool.new_connection()
    is_connected = False
    try:
        async with asyncio.timeout(seconds):
            await _open(connection, pool)
        is_connected = True
    except (TimeoutError, OSError) as error:
        raise _failed(error, pool, seconds, "connection") from error
    finally:
        if not is_connected:
            connection.abort()
            connection.let_go()
    pool.add(connection)
    return connection


async def _connect_securely(pool: LeasePool, who: ServerIdentity, seconds: float) -> Any:
    securing = Securing(who)
    transport = securing.transport
    what, is_connected = "connection", False
    try:
        async with asyncio.timeout(seconds):
            await _open(transport, pool)
            what = "TLS handshake"
            await securing.done()
        facts = transport.facts
        assert facts is not None
        pool = pool.cluster.pool_speaking(pool, facts.alpn)
        pool.shaken(facts)
        connection = pool.new_connection()
        transport.attach(connection)
        is_connected = True
    except TlsFailed as error:
        detail = f"{pool.endpoint}: {error.detail}"
        raise ConnectFailed(error.reason, detail, is_counted=not error.is_ours) from error
    except (TimeoutError, OSError) as error:
        raise _failed(error, pool, seconds, what) from error
    finally:
        if not is_connected:
            transport.close_early()
    pool.add(connection)
    return connection


def _failed(error: OSError, pool: LeasePool, seconds: float, what: str) -> ConnectFailed:
    if isinstance(error, TimeoutError):
        preposition = "to" if what == "connection" else "with"
        return ConnectFailed(
            Reason.CONNECTION_TIMEOUT, f"no {what} {preposition} {pool.endpoint} within {seconds:g} s"
        )
    is_ours = is_own_lack(error) or error.errno == errno.EADDRNOTAVAIL
    reason = Reason.OVERLOADED if is_ours else Reason.CONNECTION_REFUSED
    return ConnectFailed(reason, f"{pool.endpoint}: {_why(error)}")


async def _open(protocol: Any, pool: LeasePool) -> None:
    loop = asyncio.get_running_loop()  # the protocol has no asyncio class: loops ask for the methods alone
    endpoint, cluster, departure = pool.endpoint, pool.cluster, pool.cluster.departure
    buffer_bytes = cluster.memory.buffer_bytes
    is_usual = buffer_bytes >= USUAL_BUFFER_BYTES
    if endpoint.path is not None:
        await loop.create_unix_connection(lambda: protocol, endpoint.path)
    elif (own := _in_own_pod(protocol, pool)) is not None:
        pool.is_own_pod = True
        departure.in_process += 1
        # Made for accepted ones, but any will do: uvloop has it own the socket before it can be called off.
        await loop.connect_accepted_socket(lambda: protocol, own)
    elif is_usual and not departure.is_to_pod and not isinstance(protocol, RawConnection):
        await loop.create_connection(lambda: protocol, endpoint.host, endpoint.port)
    else:
        sock = await dial(
            loop,
            endpoint.host,
            endpoint.port,
            is_to_pod=departure.is_to_pod,
            buffer_bytes=None if is_usual else buffer_bytes,
            on_bound=protocol.leaves_from if isinstance(protocol, RawConnection) else None,
        )
        await loop.create_connection(lambda: protocol, sock=sock)


def _in_own_pod(protocol: Any, pool: LeasePool) -> socket.socket | None:
    """A connection that this process serves itself. Bytes that are no requests go to the app directly: no rule of a
    listener holds for them."""
    reach = pool.cluster.departure.own_pod
    pool.is_own_pod = False
    if reach is None or isinstance(protocol, RawConnection):
        return None
    return reach(pool.endpoint, pool.secure is not None)


def _why(error: OSError) -> str:
    """The system's words for it: asyncio's own text repeats the address, and differs between loops."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
