"""`sidecar run`, but parts crash: python -m tests.support.crashing PART,… TIMES FILE.

A part works as ever until its SIGUSR1 comes, the first one for the first part; then its life ends with an exception,
and so do the next TIMES - 1 lives, as they begin.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Any

from sidecar.__main__ import main
from sidecar.runtime.actor import Mailbox, Part, Parts, Run


class Planted(Exception):
    """The crash."""


def plant(names: Sequence[str], times: int) -> None:
    """Make these parts of this process crash."""
    add = Parts.add
    signalled = {name: asyncio.Event() for name in names}
    next_one = iter(signalled.values())

    def crashing(name: str, run: Run[Any]) -> Run[Any]:
        left = times

        async def live(mailbox: Mailbox[Any]) -> None:
            nonlocal left
            if not left:
                return await run(mailbox)
            waiting = asyncio.ensure_future(signalled[name].wait())
            working = asyncio.ensure_future(run(mailbox))
            await asyncio.wait([waiting, working], return_when=asyncio.FIRST_COMPLETED)
            working.cancel()
            await asyncio.wait([working])
            left -= 1
            raise Planted(name)

        return live

    def add_crashing(self: Parts, part: Part[Any]) -> Part[Any]:
        if part.name in signalled:
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: next(next_one).set())
            part.run = crashing(part.name, part.run)
        return add(self, part)

    Parts.add = add_crashing  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    plant(sys.argv[1].split(","), int(sys.argv[2]))
    sys.exit(main(["run", sys.argv[3]]))
