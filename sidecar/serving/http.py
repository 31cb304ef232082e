"""A small HTTP/1.1 server beside the data path, whose connections are bounded in number and in time.

A connection without a request under way never keeps somebody else out, nor one whose body does not come: where there
is no room, the one that has waited longest makes it. So whoever holds idle connections, in whatever number, holds up
no operator and no probe.
What handlers may hold is bounded by themselves: streams in `admin/events.py`, long answers in
`admin/long_answers.py`, reloads by their mailbox, bodies in `kubernetes/reviewing.py`; all together to less than
`HttpServer.max_connections`. The admin and probe listeners are such servers, and the webhook is.

It is our own since it is in every process: aiohttp took 15 of 57 MiB and a quarter of a start's CPU, and the bounds
had to be ours in any case. What is read is read by the data path's own checks (`http1/`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Final

from sidecar.core.snapshot import Address
from sidecar.serving.accepting import Accepting
from sidecar.serving.connection import Connection, Door
from sidecar.serving.message import BadBody, ClientGone, Handler, Request, Response
from sidecar.serving.routes import Unmatched
from sidecar.transport.bind import bind

MAX_CONNECTIONS: Final = 256
"""Of one server, at most."""

_RECEIVE_BYTES: Final = 65_536
"""In the kernel, for each connection: uvloop takes up to 250 KiB of them in one read, however little is wanted."""

_LOG = logging.getLogger("sidecar.serving")
_MAX_LOGGED: Final = 256
"""Characters of a client's own text."""


class HttpServer(Door):
    """Serves one handler at an address; may be started again after its end. Owned by the event loop."""

    def __init__(
        self,
        key: str,
        *,
        end_seconds: float,
        tls: Callable[[], ssl.SSLContext] | None = None,
        socket_mode: int | None = None,
        fields: Mapping[str, str] | None = None,
        on_ending: Callable[[], None] = lambda: None,
    ) -> None:
        """`key`: of the address in the configuration. `end_seconds`: how long the end waits for answers under way.

        `tls` is asked for its context at each connection, so that another one may take its place; None: clear text.
        It needs asyncio's own loop, which the webhook has.
        `socket_mode`: of a UNIX socket's file; None: what the umask leaves. `fields`: of every answer that does not
        say otherwise. `on_ending`: called when the end begins, so that answers without an end have one.
        """
        self._socket_mode = socket_mode
        self.max_connections = MAX_CONNECTIONS
        """At once; lowered where the process may have few open files."""
        self.refused = 0
        """Connections that were closed because there were too many."""
        self.tls = tls
        self.fields = fields or {}
        self._on_ending = on_ending
        self._key = key
        self._end_seconds = end_seconds
        self._handler: Handler | None = None
        self._bound: socket.socket | None = None
        self._accepting: Accepting | None = None
        self._connections: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}
        """Those without a request under way, or with one whose body does not come; longest first."""
        self._has_none = asyncio.Event()
        """The last of the connections has ended."""
        self._turns = asyncio.Lock()
        self._adopting: set[asyncio.Task[object]] = set()

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    @property
    def port(self) -> int:
        """Where it listens, which is not told where the configuration says 0."""
        assert self._bound is not None
        return int(self._bound.getsockname()[1])

    @property
    def bound_port(self) -> int:
        """The same for whoever asks at any time: 0 while it does not listen, and for a UNIX socket."""
        is_tcp = self._bound is not None and self._bound.family != socket.AF_UNIX
        return self.port if is_tcp else 0

    @property
    def listening(self) -> socket.socket | None:
        """None while it does not."""
        return self._bound

    def start(self, handler: Handler, address: Address) -> socket.socket:
        """Bind and serve. Returns what listens.

        Raises:
            OSError: the address cannot be bound; the text names its key and a remedy.
        """
        self._bound = bind(address, self._key, self._socket_mode)
        self._bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        self._handler = handler
        self._accepting = Accepting(self._bound, self.adopt, self._make_room)
        return self._bound

    def adopt(self, sock: socket.socket, data: bytes = b"") -> None:
        """Serve a connection that was accepted; somebody else may have read `data` of it."""
        if self._handler is None:
            sock.close()
            return
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.connect_accepted_socket(lambda: Connection(self, data), sock))
        self._adopting.add(task)
        task.add_done_callback(self._adopted)

    def _adopted(self, task: asyncio.Task[object]) -> None:
        self._adopting.discard(task)
        if not task.cancelled():
            task.exception()  # it was gone before it was adopted: nobody is left to be told

    def leave(self) -> None:
        """Accept nothing more; connections that there are go on until `stop`."""
        if self._accepting is not None:
            self._accepting.close()
        self._accepting, self._bound = None, None

    async def stop(self) -> None:
        """Accept nothing more, and end every connection; at once if it was not started."""
        self.leave()
        self._handler = None
        self._on_ending()
        if self._adopting:  # they are turned away
            await asyncio.wait(self._adopting, timeout=self._end_seconds)
        for connection in [one for one in self._connections if one.task is None]:
            connection.close()
        await self._end_tasks()
        await self._end_connections()

    async def _end_tasks(self) -> None:
        """Answers under way have their time; then they are cut."""
        under_way = [one.task for one in self._connections if one.task is not None]
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=self._end_seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=self._end_seconds)

    async def _end_connections(self) -> None:
        """What has been said is sent, if somebody takes it."""
        for connection in list(self._connections):
            connection.close()
        if self._connections:
            self._has_none.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._end_seconds):
                    await self._has_none.wait()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # transports end in the next turn

    # What connections say

    @property
    def is_ending(self) -> bool:
        return self._handler is None

    def admit(self, connection: Connection) -> bool:
        if self._handler is None:
            return False
        if len(self._connections) >= self.max_connections:
            self.refused += 1
            if not self._make_room():
                return False
        self._connections.add(connection)
        return True

    def _make_room(self) -> bool:
        """Close whoever has waited longest. Returns whether anybody does."""
        longest = next(iter(self._waiting), None)
        if longest is None:
            return False
        longest.abort()
        self.forget(longest)
        return True

    async def turn(self) -> None:
        async with (
            self._turns
        ):  # of many one has something to do in each: the data path has its own in between
            await asyncio.sleep(0)

    async def answer(self, request: Request) -> Response | None:
        handler = self._handler
        if handler is None:
            return Response(503, "the server ends\n")
        await self.turn()
        try:
            return await handler(request)
        except ClientGone:
            raise
        except Unmatched as error:
            return Response(error.status, f"{error}\n", fields=error.fields)
        except BadBody as error:
            response = Response(400, f"{error}\n")
            response.closes = True  # nobody knows where its body ends
            return response
        except Exception:
            _LOG.exception("%s %s broke off", request.method, request.path[:_MAX_LOGGED])
            return Response(500, "a bug in this server; its log has the details\n")

    def waits(self, connection: Connection) -> None:
        self._waiting[connection] = None

    def works(self, connection: Connection) -> None:
        self._waiting.pop(connection, None)

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._waiting.pop(connection, None)
        if not self._connections:
            self._has_none.set()
