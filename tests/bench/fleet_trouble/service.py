"""An upstream that fails, or is well and holds what reaches it; and which process has sent that.

While all breakers of a fleet refuse, whatever reaches it is a probe."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.upstream import Peer


@dataclass
class Service:
    """Owned by one event loop."""

    is_failing: bool = False
    held: set[int] = field(default_factory=set)
    """Ports of those that wait for an answer."""
    most_held: int = 0
    """At once, since the holding began."""
    _may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._may_answer.set()

    async def serve(self, peer: Peer) -> None:
        """One connection."""
        while True:
            await peer.head()
            if not self._may_answer.is_set() and not await self._hold(peer):
                return
            status = b"500 No" if self.is_failing else b"200 OK"
            await peer.send(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)

    def hold(self) -> None:
        """From now on it is well, and answers nobody until `release`."""
        self.is_failing, self.most_held = False, 0
        self._may_answer.clear()

    def release(self) -> None:
        """Answer all that wait, and whoever comes."""
        self._may_answer.set()

    async def until_held(self, count: int) -> None:
        """Wait until so many wait for their answers."""
        while len(self.held) != count:
            self._changed.clear()
            await self._changed.wait()

    async def _hold(self, peer: Peer) -> bool:
        """Whether who asked is still there when it may be answered."""
        for _ in range(2):  # the end of a connection that came before this request is seen before it
            await asyncio.sleep(0)
        port = peer.writer.get_extra_info("peername")[1]
        gone, released = asyncio.ensure_future(peer.closed()), asyncio.ensure_future(self._may_answer.wait())
        self.held.add(port)
        self.most_held = max(self.most_held, len(self.held))
        self._changed.set()
        try:
            await asyncio.wait((gone, released), return_when=asyncio.FIRST_COMPLETED)
            return not gone.done()
        finally:
            self.held.discard(port)
            self._changed.set()
            for task in (gone, released):
                task.cancel()
            await asyncio.wait((gone, released))


def owner_of(port: int, pids: Iterable[int]) -> int | None:
    """Which of these processes has a connection from this port of loopback (/proc/net/tcp, proc(5))."""
    local = f"0100007F:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[1] == local and row[9] != "0"}
    for pid in pids:
        for file in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if os.readlink(file) in inodes:
                    return pid
            except FileNotFoundError:  # closed meanwhile
                continue
    return None
