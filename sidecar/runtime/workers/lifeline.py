"""Between the supervisor and each child: whole messages, with open files where needed (SCM_RIGHTS, unix(7)).

Who reads its end knows that the other has died. Neither side ever waits for the other: a child that does not read is
one that hangs.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Sequence
from typing import Final

from sidecar.runtime.workers.orders import Order

MAX_BYTES: Final = 64 * 1024
"""Of one message: some hundreds of addresses."""
MAX_FILES: Final = 250
"""With one message; the kernel takes 253 (SCM_MAX_FD)."""


class LifelineCut(Exception):
    """The other side has gone."""


class LifelineFull(LifelineCut):
    """The other side is there and does not read."""


class Lifeline:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end

    @classmethod
    def pair(cls) -> tuple[Lifeline, Lifeline]:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        return self._end.fileno()

    def close(self) -> None:
        self._end.close()

    def send(self, order: Order, files: Sequence[int] = ()) -> None:
        """Raises: LifelineCut, LifelineFull."""
        data = pickle.dumps(order, pickle.HIGHEST_PROTOCOL)
        try:
            if files:
                socket.send_fds(self._end, [data], list(files))
            else:
                self._end.send(data)
        except BlockingIOError as error:
            raise LifelineFull(f"{type(order).__name__} could not be sent") from error
        except OSError as error:
            raise LifelineCut(f"{type(order).__name__} could not be sent: {error}") from error

    def receive(self) -> tuple[Order, list[int]] | None:
        """The next message with its files, which are the caller's to close; None where there is none now.

        Raises:
            LifelineCut: the other side has gone.
        """
        try:
            data, files, flags, _ = socket.recv_fds(self._end, MAX_BYTES, MAX_FILES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise LifelineCut(str(error)) from error
        if not data:
            raise LifelineCut("the other side has gone")
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            for one in files:
                os.close(one)
            raise LifelineCut("a message was cut short: raise the limit of open files")
        for one in files:
            os.set_inheritable(one, False)
        order: Order = pickle.loads(data)
        return order, files
