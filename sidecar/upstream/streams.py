"""The contracts between an attempt and the connection that carries it, whatever protocol that speaks.

`ClientStream` is an upstream's side of one request; `ResponseSink` is who hears of its response: an attempt. No call
on a stream calls its sink before it returns; after `end` and the upstream's end, `reset` or `failed`, nothing more
comes. For HTTP/1.1 the connection itself is the stream, so nothing is allocated for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, Final

from mypy_extensions import mypyc_attr, trait

from sidecar.core.errors import Reason
from sidecar.core.head import RequestHead, ResponseHead
from sidecar.core.plain import Field


class Processed(Enum):
    """Whether an upstream that failed may have acted on the request."""

    NEVER = auto()
    """It certainly has not: whatever its method, the request may be sent again."""
    MAYBE = auto()
    YES = auto()
    """It has said something to it: it has begun to answer, has reset the stream, or speaks no HTTP/2."""


@mypyc_attr(allow_interpreted_subclasses=True)
class ResponseSink(ABC):
    """Hears of one response, on the loop and in order. One of `end`, `answered`, `switched`,
    `failed` and `declined` comes last, once."""

    __slots__ = ()

    @abstractmethod
    def interim(self, head: ResponseHead) -> None:
        """A 1xx that is not the answer."""

    @abstractmethod
    def head(self, head: ResponseHead) -> None: ...

    @abstractmethod
    def data(self, data: bytes | memoryview) -> None:
        """Body bytes: all that one read brought, joined."""

    @abstractmethod
    def flush(self) -> None:
        """All that came in one read has been told."""

    @abstractmethod
    def end(self, trailers: Sequence[Field]) -> None: ...

    @abstractmethod
    def answered(self, head: ResponseHead, body: bytes | memoryview, trailers: Sequence[Field] = ()) -> None:
        """`head`, `data` and `end` in one, for a response that came whole in one read. A length of None: no field
        says it, and the body's own holds (HTTP/2 ends a message by itself). `trailers`: of a call whose client
        speaks HTTP/2, which takes them behind any head."""

    @abstractmethod
    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """101: from here on the connection is the sink's; `rest` came behind the head. A 2xx to an extended CONNECT
        is told so too."""

    @abstractmethod
    def failed(self, reason: Reason, detail: str, processed: Processed) -> None:
        """No whole response will come."""

    @abstractmethod
    def declined(self, detail: str) -> None:
        """The upstream's protocol has no such request, or its answer is one that cannot be passed on: no fault of its
        own. In the place of `failed`."""

    @abstractmethod
    def broken(self) -> None:
        """A mistake of ours ended it; the upstream has no part in it."""

    @abstractmethod
    def blocked(self) -> None:
        """The upstream takes no more of the request for now."""

    @abstractmethod
    def writable(self) -> None:
        """It does again."""


@mypyc_attr(allow_interpreted_subclasses=True)
@trait
class ClientStream(ABC):
    """An upstream's one request, as the attempt that sends it sees it."""

    __slots__ = ()

    @abstractmethod
    def send_head(
        self, head: RequestHead, held: Sequence[Any] = (), trailers: Sequence[Field] | None = None
    ) -> None:
        """The request's head, with what is there of its body. `trailers`: what ends the body, where that is all of it
        and not empty: `end` is not called then. None: it is."""

    @abstractmethod
    def send_data(self, data: bytes) -> None: ...

    @abstractmethod
    def end(self, trailers: Sequence[Field]) -> None:
        """The request's body is whole. Not called for a request without one."""

    @abstractmethod
    def reset(self, reason: Reason) -> None:
        """Give it up, and let the upstream know. The sink hears nothing more."""

    @abstractmethod
    def hold(self) -> None:
        """Send no more of the response for now: its client takes no more."""

    @abstractmethod
    def resume(self) -> None: ...

    @property
    @abstractmethod
    def unsent_bytes(self) -> int:
        """Of the request: written, and not taken by the upstream's system yet."""


@mypyc_attr(allow_interpreted_subclasses=True)
class NoUpstream(ClientStream):
    """Stands where an attempt had a stream: whatever it still does changes nothing."""

    __slots__ = ()

    def send_head(
        self, head: RequestHead, held: Sequence[Any] = (), trailers: Sequence[Field] | None = None
    ) -> None: ...
    def send_data(self, data: bytes) -> None: ...
    def end(self, trailers: Sequence[Field]) -> None: ...
    def reset(self, reason: Reason) -> None: ...
    def hold(self) -> None: ...
    def resume(self) -> None: ...

    @property
    def unsent_bytes(self) -> int:
        return 0


NO_UPSTREAM: Final = NoUpstream()
