"""TLS on a connection that is being opened to an upstream: the handshake, and who is there.

Whoever waits for the connection hears of a failure as of one to connect. Nothing falls back to clear text.
"""

from __future__ import annotations

import asyncio

from sidecar.transport.tls.client import ServerIdentity
from sidecar.transport.tls.failures import TlsFailed
from sidecar.transport.tls.transport import Handshaking, TlsTransport, Wrap
from sidecar.upstream.streams import Processed


class Securing(Handshaking):
    """One handshake, whose end is a future."""

    __slots__ = ("_done", "_who", "transport")

    def __init__(self, who: ServerIdentity) -> None:
        """Raises:
        ssl.SSLError, ValueError: the name can be asked of nobody.
        """
        self._who = who
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport = who.begin(self._made)

    def _made(self, wrap: Wrap) -> TlsTransport:
        return TlsTransport(self, wrap)

    async def done(self) -> None:
        """Return when the other side has proved who it is.

        Raises:
            TlsFailed: it has not.
        """
        await self._done

    def shaken(self, transport: TlsTransport) -> None:
        self._who.verify(transport)
        if not self._done.done():
            self._done.set_result(None)

    def failed(self, transport: TlsTransport, error: TlsFailed) -> None:
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()  # who waited may have left, and nobody is to complain of that


def processed(error: TlsFailed, *, is_begun: bool) -> Processed:
    """Whether an upstream may have acted on a request whose connection ended so.

    With TLS 1.3 a server says that it does not take our certificate after the handshake, in the place of the first
    answer (RFC 8446 4.4.3): then it has read nothing of the request.
    """
    return Processed.NEVER if error.is_ours and not is_begun else Processed.MAYBE
