"""Between control and one worker: messages both ways over a stream, each framed by its length.

Nothing waits for ever and nothing grows without a bound: what is asked has a time, what the other side does not read
is refused beyond a size, a longer frame than allowed ends the channel. Owned by the event loop. Both ends are the
same program, so bodies are pickled: whoever can write to a channel can do all that this process can.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Callable
from typing import Any, Final, cast

from sidecar.core.dataclass import dataclass

LENGTH_BYTES: Final = 4
MAX_FRAME_BYTES: Final = 32 * 1024 * 1024
"""The numbers of 10,000 routes are a third of it."""
MAX_UNSENT_BYTES: Final = 2 * MAX_FRAME_BYTES
MAX_ASKED: Final = 256
"""Questions that wait for an answer, of one side."""

ANSWER: Final = "answer"
FAILED: Final = "failed"


class NoAnswer(Exception):
    """The other side has gone, was too slow, or could not do what it was asked; the text says which."""


class AskRefused(NoAnswer):
    """It has answered that it cannot."""


@dataclass(frozen=True, slots=True)
class Message:
    """One that has arrived."""

    kind: str
    body: Any
    ask: int
    """0: nobody waits for an answer."""


class WorkerChannel(asyncio.Protocol):
    """One end."""

    def __init__(
        self, receive: Callable[[WorkerChannel, Message], None], on_lost: Callable[[WorkerChannel], None]
    ) -> None:
        """`receive` is given what the other side says by itself, `on_lost` is called once."""
        self.refused = 0
        """Messages that could not be sent: the other side does not read, or asks are too many."""
        self._receive = receive
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._last_ask = 0

    @classmethod
    async def over(
        cls,
        end: socket.socket,
        receive: Callable[[WorkerChannel, Message], None],
        on_lost: Callable[[WorkerChannel], None],
    ) -> WorkerChannel:
        """Begin, on one end of a pair of stream sockets."""
        end.setblocking(False)
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(lambda: cls(receive, on_lost), sock=end)
        return channel

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def tell(self, kind: str, body: Any = None) -> bool:
        """Say something. False, and counted, where it cannot be sent; never waits."""
        return self._send(0, kind, body)

    async def ask(self, kind: str, body: Any, seconds: float) -> Any:
        """Say something, and wait for the answer.

        Raises:
            NoAnswer: there was none in time, or there will be none.
            AskRefused: the other side says that it cannot.
        """
        if len(self._asked) >= MAX_ASKED:
            self.refused += 1
            raise NoAnswer(f"{MAX_ASKED} questions wait for an answer already")
        self._last_ask += 1
        number = self._last_ask
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            if not self._send(number, kind, body):
                raise NoAnswer("it is not there, or does not read")
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            raise NoAnswer(f"no answer to {kind} within {seconds:g} s") from None
        finally:
            del self._asked[number]

    def answer(self, message: Message, body: Any) -> None:
        """Answer a question; of one that was only told, nothing is sent."""
        if message.ask and not self._send(message.ask, ANSWER, body):
            self.fail(message, "the answer is too long, or does not fit into what waits already")

    def fail(self, message: Message, why: str) -> None:
        """The same: it cannot be done."""
        if message.ask:
            self._send(message.ask, FAILED, why)

    def _send(self, number: int, kind: str, body: Any) -> bool:
        transport = self._transport
        if transport is None or transport.is_closing():
            self.refused += 1
            return False
        data = pickle.dumps((number, kind, body), pickle.HIGHEST_PROTOCOL)
        if len(data) > MAX_FRAME_BYTES or transport.get_write_buffer_size() + len(data) > MAX_UNSENT_BYTES:
            self.refused += 1
            return False
        transport.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)
        return True

    # As asyncio calls it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= LENGTH_BYTES:
            length = int.from_bytes(buffer[:LENGTH_BYTES], "big")
            if length > MAX_FRAME_BYTES:
                self.close()
                return
            end = LENGTH_BYTES + length
            if len(buffer) < end:
                return
            frame = bytes(buffer[LENGTH_BYTES:end])
            del buffer[:end]
            self._take(*pickle.loads(frame))

    def _take(self, number: int, kind: str, body: Any) -> None:
        if kind not in (ANSWER, FAILED):
            self._receive(self, Message(kind, body, number))
            return
        future = self._asked.get(number)
        if future is None or future.done():
            return
        if kind == ANSWER:
            future.set_result(body)
        else:
            future.set_exception(AskRefused(body))

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        for future in self._asked.values():
            if not future.done():
                future.set_exception(NoAnswer("it has gone"))
        self._on_lost(self)
