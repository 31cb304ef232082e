"""What a server beside the data path is asked and what it answers, in HTTP's terms: no bytes, no time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final, overload

TEXT: Final = "text/plain; charset=utf-8"


class Pairs:
    """Names with values, in their order: parameters of a query, or fields of a head with names in lower case."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = tuple(pairs)

    def __contains__(self, name: str) -> bool:
        return any(one == name for one, _ in self._pairs)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._pairs)

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of that name."""
        return next((value for one, value in self._pairs if one == name), default)

    def all(self, name: str) -> list[str]:
        """Every value of that name."""
        return [value for one, value in self._pairs if one == name]

    def items(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)


class Response:
    """An answer that is whole in memory, or the head of one that is written piece by piece."""

    __slots__ = ("body", "closes", "fields", "status")

    def __init__(
        self,
        status: int = 200,
        body: bytes | str = b"",
        *,
        kind: str = TEXT,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        """`kind`: its Content-Type. Text goes out as UTF-8."""
        self.status = status
        self.body = body.encode() if isinstance(body, str) else body
        self.fields = {"Content-Type": kind, **(fields or {})}
        self.closes = False
        """The connection ends behind it, whatever the client has asked for."""


class Client(ABC):
    """Who has sent a request: its connection, as handlers see it."""

    @property
    @abstractmethod
    def is_closed(self) -> bool:
        """Nothing can be sent any more."""

    @property
    @abstractmethod
    def is_gone(self) -> bool:
        """The same, or it has ended its side: whoever reads events without an end does so when it leaves."""

    @property
    @abstractmethod
    def unsent_bytes(self) -> int:
        """Of answers, that nobody has taken."""

    @abstractmethod
    def about(self, name: str) -> Any:
        """What the transport knows: `peername`, `sockname`, `socket`, `peercert`; None for what it does not."""

    @abstractmethod
    async def read(self) -> bytes:
        """The next piece of the request's body; empty behind its end. Raises: ClientGone, BadBody."""

    @abstractmethod
    async def send(self, response: Response) -> None:
        """A whole answer. Returns when little of it waits to be taken. Raises: ClientGone."""

    @abstractmethod
    async def begin(self, response: Response) -> None:
        """The head of an answer whose pieces follow. Raises: ClientGone."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """The next piece; as `send`."""

    @abstractmethod
    def abort(self) -> None:
        """Cut it, whatever has not been sent yet."""


class ClientGone(ConnectionError):
    """Who has sent the request has left: nobody is there to be answered."""


class BadBody(Exception):
    """A request whose body cannot be read to its end; the text says why."""


class Request:
    """One request. Lives as long as its handler runs."""

    __slots__ = (
        "client", "expects_continue", "headers", "keeps_alive", "length", "matched", "method", "path", "query",
        "raw_path", "version",
    )  # fmt: skip

    def __init__(
        self,
        client: Client,
        method: str,
        version: str,
        headers: Pairs,
        raw_path: str,
        path: str,
        query: Pairs,
    ) -> None:
        self.client = client
        self.method = method
        self.version = version
        """`1.0` or `1.1`."""
        self.headers = headers
        self.raw_path = raw_path
        """As it was sent."""
        self.path = path
        """Without escapes."""
        self.query = query
        self.matched: Mapping[str, str] = {}
        """Parts of the path that the route gives names."""
        self.length = 0
        """Of its body, in bytes; -1: nobody knows before its end."""
        self.keeps_alive = True
        self.expects_continue = False
        """Its body comes when it is told to send it (RFC 9110 10.1.1)."""

    @property
    def remote(self) -> str | None:
        """The address that it came from; None for a UNIX socket."""
        name = self.client.about("peername")
        return str(name[0]) if isinstance(name, tuple) and name else None


Handler = Callable[[Request], Awaitable[Response | None]]
"""What it returns is sent; None: it has done so itself."""
