"""A loop and transports for whole connections: as asyncio's, a closed transport tells its protocol a turn later."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from tests.bench.fuzz.targets import Feed
from tests.support.by_hand import HandLoop, HandTransport

_FOR_EVER: Final = 10_000.0
"""Seconds."""


class WireTransport(HandTransport):
    """Whose protocol hears of its end, whoever ended it."""

    def __init__(self, loop: HandLoop) -> None:
        super().__init__()
        self.loop = loop
        self.is_lost = False
        self._is_ending = False

    def close(self) -> None:
        super().close()
        self._end(None)

    def abort(self) -> None:
        super().abort()
        self._end(None)

    def lose(self, error: Exception | None = None) -> None:
        """The other side has gone."""
        self._is_closing = True
        self._end(error)

    def receive(self, data: bytes) -> None:
        """From the other side. A transport that is paused or closed tells nothing."""
        if data and not self.is_paused and not self._is_closing:
            self.protocol.data_received(data)

    def end_input(self) -> None:
        """The other side sends nothing more."""
        if not self.is_paused and not self._is_closing and not self.protocol.eof_received():
            self.close()

    def _end(self, error: Exception | None) -> None:
        if not self._is_ending:
            self._is_ending = True
            self.loop.call_soon(self._tell, error)

    def _tell(self, error: Exception | None) -> None:
        self.is_lost = True
        self.protocol.connection_lost(error)


def leaving(feed: Feed) -> Feed:
    """The same; behind it no loop is told to be running any more, whatever it raised."""

    def left(data: bytes) -> None:
        try:
            feed(data)
        finally:
            asyncio._set_running_loop(None)

    return left


def run_in(loop: HandLoop) -> None:
    """Let what asks for the running loop find this one, within a feed that is `leaving`."""
    asyncio._set_running_loop(loop)  # type: ignore[arg-type]


def raise_errors(loop: HandLoop) -> None:
    """Raises: the first error that a callback raised or a connection told the loop's handler."""
    if loop.errors:
        raise loop.errors[0]


def connect(protocol: Any, loop: HandLoop) -> WireTransport:
    transport = WireTransport(loop)
    transport.protocol = protocol
    protocol.connection_made(transport)
    return transport


def wait_for_ever(loop: HandLoop) -> None:
    """Until every timer has fired."""
    loop.settle()
    loop.advance(_FOR_EVER)
