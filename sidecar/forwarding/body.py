"""The request's body on its way to the upstream: held for a moment, then passed on as it arrives.

Decides when the client must stop sending: while nobody takes the body, and while the upstream's socket is full.
Owned by its exchange; made only for requests that have a body.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from mypy_extensions import trait

from sidecar.core.head import RequestHead
from sidecar.core.memory_budget import STEP_BYTES, MemoryBudget
from sidecar.core.plain import Field
from sidecar.forwarding.streams import ServerStream
from sidecar.upstream.streams import ClientStream

MAX_HELD_BYTES: Final = 64 * 1024
"""Kept while there is no upstream connection yet; beyond it the client is not read any more. Where there are many
connections it is less, see `core/memory_budget.py`."""


@trait
class BodyTee(ABC):
    """Who has a copy of a body, as it comes."""

    __slots__ = ()

    @abstractmethod
    def teed(self, data: bytes | memoryview) -> None:
        """The next piece of it."""

    @abstractmethod
    def tee_ended(self, trailers: Sequence[Field]) -> None:
        """It is whole."""

    @abstractmethod
    def tee_gone(self) -> None:
        """The request is over; nothing more comes."""


class RequestBody:
    """From the client's stream to the upstream's."""

    __slots__ = (
        "_charged", "_held", "_kept", "_memory", "_most_held", "_most_kept", "_tee", "_to", "_trailers",
        "held_bytes", "is_complete", "is_untouched", "size", "stream",
    )  # fmt: skip

    stream: ServerStream
    """Whose body it is; held back and let go here."""
    size: int
    """Body bytes that have arrived."""
    held_bytes: int
    """Kept here, for want of an upstream that takes it."""
    is_complete: bool
    is_untouched: bool
    """No upstream has been given any of it, so another one still can."""
    _kept: list[bytes | memoryview] | None
    """All of it, given to an upstream that may say that it has done nothing with it."""
    _charged: int
    """Of what is kept, to the memory of all connections."""

    def take(self, stream: ServerStream, most_held: int = MAX_HELD_BYTES) -> RequestBody:
        """Set what it has; comes first. Returns itself: the call of an `__init__` takes 800 instructions more.
        `most_held`: bytes that are kept while there is no upstream connection yet."""
        self._most_held = most_held
        self.stream = stream
        self.size = 0
        self.held_bytes = 0
        self.is_complete = False
        self.is_untouched = True
        self._trailers: Sequence[Field] = ()
        self._held: list[bytes | memoryview] = []
        self._kept = None
        self._to: ClientStream | None = None
        self._tee: BodyTee | None = None
        self._most_kept = 0
        self._memory: MemoryBudget | None = None
        return self

    def __repr__(self) -> str:
        return f"<RequestBody {self.size} bytes{', whole' if self.is_complete else ''}>"

    @property
    def is_all_that_comes(self) -> bool:
        """It is whole, or so much of it waits here that its client is held back."""
        return self.is_complete or self.size >= self._most_held

    @property
    def untaken_bytes(self) -> int:
        """Given to an upstream that does not take it for now."""
        return self._to.unsent_bytes if self._to is not None else 0

    def keep_to_resend(self, most: int, memory: MemoryBudget) -> None:
        """Up to `most` bytes are kept to be sent again, though they come in pieces (`retry.buffer`), while `memory`
        has room for them."""
        self._most_kept, self._memory = most, memory
        self._charged = 0

    def tee_to(self, tee: BodyTee) -> None:
        """Give a copy of it to somebody else, from its beginning, which is still here."""
        for piece in self._held:
            tee.teed(piece)
        if self.is_complete:
            tee.tee_ended(self._trailers)
        else:
            self._tee = tee

    def hold_back(self) -> None:
        """The upstream takes no more for now."""
        self.stream.hold()

    def let_go(self) -> None:
        """It does again."""
        self.stream.resume()

    def arrived(self, data: bytes) -> None:
        self.size += len(data)
        if self._tee is not None:
            self._tee.teed(data)
        if self._to is not None:
            self.is_untouched = False
            if self._kept is not None:
                self._keep(data)
            self._to.send_data(data)
            return
        self._held.append(data)
        self.held_bytes += len(data)
        if self.size > self._most_held:
            self.stream.hold()

    def _keep(self, data: bytes) -> None:
        """A further piece, unless it is too much by now."""
        if self.size > self._most_kept or self._kept is None:
            self._kept = None
        else:
            self._kept.append(data)
        self._charge_kept()

    def _charge_kept(self) -> None:
        """Before anybody is refused for want of memory, what is kept for another try is given up."""
        if self._memory is None:
            return
        if self._memory.is_full:
            self._kept = None
        size = self.size if self._kept is not None and self.size > STEP_BYTES else 0
        if size != self._charged:
            self._memory.charge(size - self._charged)
            self._charged = size

    def arrived_whole(self, data: bytes | memoryview) -> None:
        """All of it is here, before the exchange begins: there is nobody to hold back."""
        self.size = self.held_bytes = len(data)
        self.is_complete = True
        if data:  # HTTP/2 may end a body that has nothing in it
            self._held = [data]

    def completed(self, trailers: Sequence[Field]) -> None:
        self.is_complete = True
        self._trailers = trailers
        if self._tee is not None:
            self._tee.tee_ended(trailers)
            self._tee = None
        if self._to is not None:
            self._to.end(trailers)

    @property
    def is_resendable(self) -> bool:
        """It can be given to another upstream, if the last one has certainly done nothing with it."""
        return self.is_untouched or self._kept is not None or self.held_bytes == self.size

    def keep_whole(self) -> None:
        """Before `send`: where what is held is all of it, it stays here as well, until the exchange ends."""
        if self.is_complete and self.size <= MAX_HELD_BYTES:
            self._kept = list(self._held)
            if self._memory is not None:
                self._charge_kept()

    def send(self, stream: ClientStream, head: RequestHead) -> None:
        """Send `head` to `stream` with what was held: from now on what arrives goes there, too."""
        held, held_bytes = self._held, self.held_bytes
        self._held = []
        self.held_bytes = 0
        if held_bytes > STEP_BYTES:
            self.stream.resume()  # now: where what is held fills the upstream's socket, the client stays paused
        is_complete, size = self.is_complete, self.size
        if self._most_kept and size <= self._most_kept:
            self._kept = list(held)
            self._charge_kept()
        if size or is_complete:
            self.is_untouched = False
        if is_complete and held:
            stream.send_head(head, held, self._trailers)
            self._to = stream
            return
        stream.send_head(head, held)
        self._to = stream
        if is_complete:
            stream.end(self._trailers)

    def again(self) -> list[bytes | memoryview]:
        """All of one that is complete and `is_resendable`, for an attempt beside the one that has it."""
        return list(self._held if self._kept is None else self._kept)

    @property
    def trailers(self) -> Sequence[Field]:
        return self._trailers

    def stop(self) -> None:
        """The attempt is over: nothing more goes to its stream."""
        if self._to is not None:
            self._to = None
            if self._kept is not None:
                self._held, self._kept = self._kept, None
                self.held_bytes = self.size
                if self._memory is not None:
                    self._charge_kept()

    def keep_no_more(self) -> None:
        """An answer goes to the client: nothing is sent again."""
        self._kept, self._most_kept = None, 0
        self._charge_kept()

    def release(self, nobody: ServerStream) -> None:
        """The exchange is over: `nobody` stands in its client's place, and nothing is sent again."""
        self.stream = nobody
        if self._tee is not None:
            self._tee.tee_gone()
            self._tee = None
        self._kept = None
        if self._memory is not None:
            self._charge_kept()
