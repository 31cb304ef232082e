"""A request body is held for a moment only, and its client is read no faster than the upstream takes it."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from sidecar.forwarding.body import MAX_HELD_BYTES, RequestBody

HIGH_WATER_BYTES = 64 * 1024


class PausedOrNot:
    """A client of which only that is known."""

    is_paused = False

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Socket:
    """An upstream's transport that says within `write` that it has enough, as asyncio's do, and only once."""

    def __init__(self, client: PausedOrNot, room_bytes: int) -> None:
        self.written = bytearray()
        self._client = client
        self._high_water_bytes = room_bytes + HIGH_WATER_BYTES
        self._is_told = False

    def write(self, data: bytes) -> None:
        self.written += data
        if len(self.written) > self._high_water_bytes and not self._is_told:
            self._is_told = True
            self._client.pause_reading()

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.write(b"".join(parts))


def held_body(size: int) -> tuple[RequestBody, PausedOrNot]:
    client = PausedOrNot()
    body = RequestBody(cast(Client, client), is_chunked=False)
    body.arrived(bytes(size))
    return body, client


def test_a_client_is_paused_while_nobody_takes_its_body() -> None:
    assert not held_body(MAX_HELD_BYTES)[1].is_paused
    assert held_body(MAX_HELD_BYTES + 1)[1].is_paused


@pytest.mark.parametrize(("room_bytes", "is_paused"), [(0, True), (MAX_HELD_BYTES + 5, False)])
def test_a_client_goes_on_when_its_body_is_taken_unless_that_fills_the_socket(
    room_bytes: int, *, is_paused: bool
) -> None:
    """The socket tells once: a client that is read on would fill the memory instead."""
    body, client = held_body(MAX_HELD_BYTES + 1)
    socket = Socket(client, room_bytes)
    body.send_to(cast(asyncio.Transport, socket), b"head")
    assert len(socket.written) == len(b"head") + MAX_HELD_BYTES + 1
    assert client.is_paused is is_paused
