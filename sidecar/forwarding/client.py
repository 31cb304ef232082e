"""The client's side of an exchange, as `forwarding/` sees it; `downstream/connection.py` is the real one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from sidecar.forwarding.given_up import GivenUp

if TYPE_CHECKING:
    from sidecar.core.snapshot import FallbackPolicy
    from sidecar.forwarding.exchange import Exchange


class Client(Protocol):
    """Takes one answer at a time. `end` comes last, also after `answer` and `abort`; not at all if the client
    itself went away."""

    peer: tuple[str, int] | None
    """The client's address, None for UNIX sockets."""

    def send_interim(self, head: bytes) -> None:
        """A 1xx head, complete."""

    def send_head(self, lines: list[bytes], status: int, length: int | None) -> None:
        """The final head without its framing; `length` is None when it is not known."""

    def send_body(self, data: bytes) -> None: ...
    def send_whole(self, lines: list[bytes], body: bytes) -> None:
        """`send_head`, with the body's length among the lines, and all of the body."""

    def flush(self) -> None:
        """Write what waits for the first body bytes."""

    def end(self, trailers: bytes) -> None:
        """The exchange is over; `trailers` are lines, or empty. The next request may begin before this returns."""

    def answer(self, exchange: Exchange, error: GivenUp, fallback: FallbackPolicy | None) -> int:
        """Write an answer in the sidecar's own name, or the fallback's response; returns its status."""

    def proxy_status_line(self, exchange: Exchange) -> bytes:
        """The `Proxy-Status` line for an answer that a fallback's upstream gave."""

    def abort(self) -> None:
        """Cut the connection: what was sent so far must not look complete."""

    def pause_reading(self) -> None:
        """The upstream takes no more of the request body for now."""

    def resume_reading(self) -> None: ...
    def hand_over(self, protocol: asyncio.BaseProtocol) -> tuple[asyncio.Transport, bytes]:
        """After a switch: the transport goes to `protocol`; also what was read ahead."""
