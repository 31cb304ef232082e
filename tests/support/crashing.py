"""`sidecar run`, but one part crashes: python -m tests.support.crashing PART TIMES FILE.

The part works as ever until SIGUSR1 comes, then its life ends with an exception; so do the next TIMES - 1 lives,
as they begin.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

from sidecar.__main__ import main
from sidecar.runtime.actor import Mailbox, Part, Parts, Run


class Planted(Exception):
    """The crash."""


def plant(name: str, times: int) -> None:
    """Make the part `name` of this process crash."""
    add = Parts.add

    def crashing(run: Run[Any]) -> Run[Any]:
        left = times
        signalled = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, signalled.set)

        async def live(mailbox: Mailbox[Any]) -> None:
            nonlocal left
            if not left:
                return await run(mailbox)
            waiting = asyncio.ensure_future(signalled.wait())
            working = asyncio.ensure_future(run(mailbox))
            await asyncio.wait([waiting, working], return_when=asyncio.FIRST_COMPLETED)
            working.cancel()
            await asyncio.wait([working])
            left -= 1
            raise Planted(name)

        return live

    def add_crashing(self: Parts, part: Part[Any]) -> Part[Any]:
        if part.name == name:
            part.run = crashing(part.run)
        return add(self, part)

    Parts.add = add_crashing  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    plant(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(["run", sys.argv[3]]))
