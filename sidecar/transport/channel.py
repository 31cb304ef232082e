"""One side of a tunnel, whatever carries it: a connection (`Link`) or a stream of HTTP/2 (`StreamLink`).

Who listens is told as asyncio tells a protocol: `data_received`, `eof_received`, `connection_lost`, `pause_writing`,
`resume_writing`. `connection_lost` is the last and never comes from within a call.
"""

from __future__ import annotations

from typing import Any, Protocol


class Channel(Protocol):
    """Bytes both ways; each direction ends by itself."""

    def write(self, data: Any, /) -> None:
        """Send bytes; what the other side does not take yet waits in memory. Nothing once its writing has ended."""

    def pause(self) -> None:
        """Take no more for now."""

    def resume(self) -> None: ...

    def end_writing(self) -> None:
        """Nothing more will be written; the other side hears that once it has what was."""

    def close(self) -> None:
        """End it once what was written has gone out; the other side has ended already."""

    def break_off(self) -> None:
        """End both directions once what was written has gone out, though the other side has not ended."""

    def abort(self) -> None:
        """End it now; what was not sent is lost."""

    def lost(self) -> None:
        """It has ended (`connection_lost`): let go of it."""

    def set_sink(self, protocol: Any) -> None:
        """From now on `protocol` hears of it."""

    def untaken_bytes(self) -> int:
        """Written, and not taken by the other side yet."""

    @property
    def can_half_close(self) -> bool:
        """Whether one direction can end while the other goes on."""

    @property
    def unsent_bytes(self) -> int:
        """Written, and still in this process without anybody else being charged for it."""

    @property
    def is_lost(self) -> bool: ...
