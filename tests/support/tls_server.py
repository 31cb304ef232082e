"""A TLS server of Python's own, in threads: it sends its alerts, as servers in the world do (asyncio's does not)."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

ECHO = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Serve = Callable[["ssl.SSLSocket"], None]


def answers(sock: ssl.SSLSocket) -> None:
    """Each read is a request."""
    while sock.recv(65536):
        sock.sendall(ECHO)


class TlsServer:
    """`served` has the certificates of clients, None for one without; `failed` what went wrong."""

    def __init__(self, context: ssl.SSLContext, serve: Serve = answers) -> None:
        self._context = context
        self._serve = serve
        self._bound = socket.create_server(("127.0.0.1", 0))
        self._open: list[Any] = []
        self.port: int = self._bound.getsockname()[1]
        self.served: list[Any] = []
        self.resumed: list[bool | None] = []
        self.failed: list[Exception] = []

    def run(self) -> None:
        while True:
            try:
                sock, _ = self._bound.accept()
            except OSError:
                return
            self._open.append(sock)
            threading.Thread(target=self._one, args=(sock,), daemon=True).start()

    def _one(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(60)
            with self._context.wrap_socket(sock, server_side=True) as secure:
                self._open.append(secure)
                self.served.append(secure.getpeercert())
                self.resumed.append(secure.session_reused)
                self._serve(secure)
        except (OSError, ValueError) as error:
            self.failed.append(error)
            with contextlib.suppress(OSError):
                sock.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._bound.shutdown(socket.SHUT_RDWR)
        self._bound.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.close()


@contextlib.contextmanager
def tls_server(context: ssl.SSLContext, serve: Serve = answers) -> Iterator[TlsServer]:
    """Run it in a thread of its own, which ends with the block."""
    server = TlsServer(context, serve)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(20)
