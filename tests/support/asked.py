"""A request to a server beside the data path, for handlers that are called without one."""

from __future__ import annotations

from typing import Any

from sidecar.serving.head import read_request
from sidecar.serving.message import Client, Request, Response


class Nobody(Client):
    """A client that is there, sends no body, and keeps what it is sent."""

    is_closed = False
    is_gone = False
    unsent_bytes = 0

    def __init__(self) -> None:
        self.sent: list[Response | bytes] = []

    def about(self, name: str) -> Any:
        return None

    async def read(self) -> bytes:
        return b""

    async def send(self, response: Response) -> None:
        self.sent.append(response)

    async def begin(self, response: Response) -> None:
        self.sent.append(response)

    async def write(self, data: bytes) -> None:
        self.sent.append(data)

    def abort(self) -> None:
        self.is_closed = self.is_gone = True


def asked(target: str, method: str = "GET", client: Client | None = None, **fields: str) -> Request:
    """As a client of loopback asks, with these fields."""
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: localhost",
        *(f"{key}: {value}" for key, value in fields.items()),
    ]
    return read_request("\r\n".join([*lines, "", ""]).encode(), client or Nobody())
