"""What arrives over channels is handled here, one registered handler for each kind: the same at both ends.

A part's whole life (`actor.py`). A question is answered, or refused with a reason; a handler that fails for another
reason than its own `OSError` or `Refused` fails the question and the part with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from sidecar.admin.answers import Refused
from sidecar.runtime.actor import Mailbox
from sidecar.runtime.workers.channel import Message, WorkerChannel

MAX_AT_ONCE: Final = 32
"""Messages that are being handled; the next waits in the mailbox."""
CAPACITY: Final = 1024
"""Of the mailbox."""


class Arrived(NamedTuple):
    channel: WorkerChannel
    message: Message


Handle = Callable[[WorkerChannel, Message], Awaitable[Any]]


def handling(handle: Handle) -> Callable[[Mailbox[Arrived]], Awaitable[None]]:
    """The run of a part that handles what arrives, several at once: a slow one does not hold up the next."""

    async def run(mailbox: Mailbox[Arrived]) -> None:
        room = asyncio.Semaphore(MAX_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                await room.acquire()
                arrived = await mailbox.get()
                if arrived is None:
                    room.release()
                    continue
                task = group.create_task(_one(handle, *arrived))
                task.add_done_callback(lambda _: room.release())

    return run


async def _one(handle: Handle, channel: WorkerChannel, message: Message) -> None:
    try:
        channel.answer(message, await handle(channel, message))
    except (OSError, Refused) as error:
        channel.fail(message, str(error))
    except BaseException as error:
        channel.fail(message, f"{type(error).__name__}: {error}")
        raise
