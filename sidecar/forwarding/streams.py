"""The contracts between an exchange and the connection of its client, whatever protocol that speaks.

`ServerStream` is a client's one request as the exchange answers it; `RequestSink` is who hears of the request: the
exchange. No call on a stream calls its sink before it returns; after `end` and the client's end, or `reset`, nothing
more comes. For HTTP/1.1 the connection itself is the stream, so nothing is allocated for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from mypy_extensions import mypyc_attr, trait

from sidecar.core.errors import Reason
from sidecar.core.head import ResponseHead
from sidecar.core.plain import Field
from sidecar.transport.channel import Channel


@trait
class RequestSink(ABC):
    """Hears of one request, on the loop and in order, from its head on."""

    __slots__ = ()

    @abstractmethod
    def data(self, data: bytes) -> None:
        """Body bytes: all that one read brought, joined."""

    @abstractmethod
    def end(self, trailers: Sequence[Field]) -> None:
        """The body is whole. Not called for a request without one."""

    @abstractmethod
    def gone(self, reason: Reason, detail: str) -> None:
        """The client went away, or what it sends cannot be trusted any more."""

    @abstractmethod
    def blocked(self) -> None:
        """The client takes no more of the answer for now."""

    @abstractmethod
    def writable(self) -> None:
        """It does again."""


@mypyc_attr(allow_interpreted_subclasses=True)
@trait
class ServerStream(ABC):
    """A client's one request, as the exchange sees it. Takes one answer."""

    __slots__ = ()

    @property
    @abstractmethod
    def peer(self) -> tuple[str, int] | None:
        """The client's address, None for UNIX sockets."""

    @abstractmethod
    def send_interim(self, head: ResponseHead) -> None:
        """A 1xx that is not the answer."""

    @abstractmethod
    def send_switch(self, head: ResponseHead, upgrade: bytes) -> None:
        """101: from here on the connection speaks `upgrade`; `hand_over` comes next."""

    @abstractmethod
    def send_head(self, head: ResponseHead) -> None:
        """The answer's head. It may wait for the first data, or `flush`."""

    @abstractmethod
    def send_data(self, data: bytes | memoryview) -> None: ...

    @abstractmethod
    def send_whole(self, head: ResponseHead, body: bytes | memoryview) -> None:
        """`send_head` and all of the body, as long as the head says. `end` follows."""

    @abstractmethod
    def flush(self) -> None:
        """Let nothing wait any more."""

    @abstractmethod
    def end(self, trailers: Sequence[Field]) -> None:
        """The answer is whole. The client's next request may begin before this returns."""

    @abstractmethod
    def reset(self, reason: Reason) -> None:
        """Cut it: what was sent so far must not look complete."""

    @abstractmethod
    def hold(self) -> None:
        """Take no more of the request for now: the upstream takes no more."""

    @abstractmethod
    def resume(self) -> None:
        """It does again, or has just taken what was held for it: who was not held back hears that, too."""

    @abstractmethod
    def hand_over(self, protocol: Any) -> tuple[Channel, bytes, bool]:
        """After a switch: `protocol` hears what arrives from now on. Returns the link, what was read ahead, and
        whether the client has ended its direction already."""


@mypyc_attr(allow_interpreted_subclasses=True)
class NoClient(ServerStream):
    """Stands where an exchange had its client: whatever is still said changes nothing."""

    __slots__ = ()

    @property
    def peer(self) -> tuple[str, int] | None:
        return None

    def send_interim(self, head: ResponseHead) -> None: ...
    def send_switch(self, head: ResponseHead, upgrade: bytes) -> None: ...
    def send_head(self, head: ResponseHead) -> None: ...
    def send_data(self, data: bytes | memoryview) -> None: ...
    def send_whole(self, head: ResponseHead, body: bytes | memoryview) -> None: ...
    def flush(self) -> None: ...
    def end(self, trailers: Sequence[Field]) -> None: ...
    def reset(self, reason: Reason) -> None: ...
    def hold(self) -> None: ...
    def resume(self) -> None: ...

    def hand_over(self, protocol: Any) -> tuple[Channel, bytes, bool]:
        raise RuntimeError("a request that has ended has no connection to hand over")


NO_CLIENT: Final = NoClient()


class ResetClient(NoClient):
    """A client that has had RST_STREAM or GOAWAY for its answer; the exchange is for log and metrics alone."""

    __slots__ = ("_peer",)

    def __init__(self, peer: tuple[str, int] | None) -> None:
        self._peer = peer

    @property
    def peer(self) -> tuple[str, int] | None:
        return self._peer
