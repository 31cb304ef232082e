"""An aiohttp server beside the data path, whose connections are bounded in number and in time.

aiohttp bounds neither how many there are nor how long a client may take over an answer, and lets a head take as long
as an idle connection lives. Here a connection without a request under way never keeps somebody else out: where there
is no room, the one that has waited longest makes it. So whoever holds idle connections, in whatever number, holds up
no operator and no probe. What handlers may hold is bounded by themselves: streams in `admin/events.py`, long answers
in `admin/long_answers.py`, reloads by their mailbox, bodies in `kubernetes/reviewing.py`; all together to less than
`HttpServer.max_connections`. The admin and probe listeners are such servers, and the webhook is.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web, web_response
from aiohttp.http_exceptions import HttpProcessingError

from sidecar.core.snapshot import Address
from sidecar.serving.bounds import MAX_CONNECTIONS
from sidecar.serving.connection import IDLE_SECONDS, Connection, Door
from sidecar.transport.bind import BACKLOG, bind

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SERVER_NAME: Final = "sidecar"
"""In `Server`: which Python and which aiohttp this is helps those alone who look for a hole in them."""


class HttpServer(Door):
    """Serves an application at an address; may be started again after its end. Owned by the event loop."""

    def __init__(
        self,
        key: str,
        *,
        end_seconds: float,
        tls: Callable[[], ssl.SSLContext] | None = None,
        socket_mode: int | None = None,
    ) -> None:
        """`key`: of the address in the configuration. `end_seconds`: how long the end waits for answers under way.

        `tls` is asked for its context at each connection, so that another one may take its place; None: clear text.
        `socket_mode`: of a UNIX socket's file; None: what the umask leaves.
        """
        self._socket_mode = socket_mode
        self.max_connections = MAX_CONNECTIONS
        """At once; lowered where the process may have few open files."""
        self.refused = 0
        """Connections that were closed because there were too many."""
        self.tls = tls
        self._key = key
        self._end_seconds = end_seconds
        self._runner: web.AppRunner | None = None
        self._server: asyncio.AbstractServer | None = None
        self._bound: socket.socket | None = None
        self._connections: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}
        """Those without a request under way, longest first."""
        self._by_handler: dict[web.RequestHandler, Connection] = {}
        self._beginning = asyncio.Lock()
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

    async def start(self, app: web.Application, address: Address) -> socket.socket:
        """Bind and serve. Returns what listens.

        Raises:
            OSError: the address cannot be bound; the text names its key and a remedy.
        """
        self._bound = bind(address, self._key, self._socket_mode)
        app.middlewares.insert(0, self._handling)
        self._runner = _runner(app, self._end_seconds)
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        serve = loop.create_server if address.path is None else loop.create_unix_server
        self._server = await serve(lambda: Connection(self), sock=self._bound, backlog=BACKLOG)
        return self._bound

    def adopt(self, sock: socket.socket, data: bytes) -> None:
        """Serve a connection that somebody else has accepted, and read `data` of."""
        if self._server is None:
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
        if self._server is not None:
            self._server.close()

    async def stop(self) -> None:
        """Accept nothing more, and end every connection; at once if it was not started."""
        if self._server is not None:
            self._server.close()
        elif self._bound is not None:  # the start broke off
            self._bound.close()
        running, self._runner, self._server, self._bound = self._runner, None, None, None
        if running is not None:
            await running.cleanup()

    # What connections say

    def admit(self, connection: Connection) -> web.RequestHandler | None:
        """What is to handle its requests; None: there is no room, or the server ends."""
        if self._runner is None or self._runner.server is None:
            return None
        if len(self._connections) >= self.max_connections:
            self.refused += 1
            longest = next(iter(self._waiting), None)
            if longest is None:
                return None
            longest.abort()
            self.forget(longest)
        handler = self._runner.server()
        self._connections.add(connection)
        self._by_handler[handler] = connection
        return handler

    def waits(self, connection: Connection) -> None:
        self._waiting[connection] = None

    def works(self, connection: Connection) -> None:
        self._waiting.pop(connection, None)

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._waiting.pop(connection, None)
        if connection.handler is not None:
            self._by_handler.pop(connection.handler, None)

    @web.middleware
    async def _handling(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = self._by_handler.get(request.protocol)
        if connection is None:  # it is gone; its request is none the less there
            return await handler(request)
        connection.begin_request()
        try:
            # Of many that come together one begins in a turn of the loop: the data path has its own in between.
            async with self._beginning:
                await asyncio.sleep(0)
            return await handler(request)
        finally:
            connection.end_request()


def _runner(app: web.Application, end_seconds: float) -> web.AppRunner:
    """A request that is not HTTP gets its 400 and is not logged: whoever can connect could fill the log."""
    # Answers to what is no HTTP pass no hook of an application, so what aiohttp writes by itself is changed.
    vars(web_response)["SERVER_SOFTWARE"] = SERVER_NAME
    logger = logging.getLogger("sidecar.admin.http")
    logger.addFilter(_is_not_a_clients_mistake)
    return web.AppRunner(
        app,
        access_log=None,
        logger=logger,
        shutdown_timeout=end_seconds,
        auto_decompress=False,  # nobody reads a body: a small one would only be blown up to be thrown away
        keepalive_timeout=2 * IDLE_SECONDS,  # never reached: aiohttp takes the half of a head for idleness
    )


def _is_not_a_clients_mistake(record: logging.LogRecord) -> bool:
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)
