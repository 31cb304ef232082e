"""Control's side of breakers that act as one: passes on what each worker says of its own to the others.

What is to be remembered for a worker that comes later, and who may probe, is `core/fleet/relay.py`'s to say. Owned by
control's event loop.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any

from sidecar.core.fleet.encoding import BadMessage, decode, encode
from sidecar.core.fleet.messages import FleetBatch
from sidecar.core.fleet.relay import Relay
from sidecar.runtime.workers.hub import Hub, WorkerLink


class Relaying:
    """Of one pod."""

    def __init__(self, hub: Hub, pod: str, clock: Callable[[], float], kind: str) -> None:
        """`pod`: the id that all workers have. `kind`: of the messages. A worker has one `Fleet` for each."""
        self.relay = Relay(uuid.uuid4().hex, pod)
        self.passed = 0
        """Batches that were passed on."""
        self.refused = 0
        """Messages that are none."""
        self._hub = hub
        self._clock = clock
        self._processes: dict[int, str] = {}
        """Of each worker, by its number: what its present life calls itself."""
        self._kind = kind
        hub.handlers[kind] = self._heard
        hub.on_joined.append(self._joined)
        hub.on_left.append(self._left)

    def __repr__(self) -> str:
        return f"<Relaying {len(self._processes)} workers, {self.passed} passed, {self.refused} refused>"

    async def _heard(self, link: WorkerLink, messages: tuple[bytes, ...]) -> None:
        others: list[FleetBatch] = []
        back: list[FleetBatch] = []
        for data in messages:
            try:
                batch = decode(data)
            except BadMessage:
                self.refused += 1
                continue
            self._is_now(link.number, batch.sender)
            relayed = self.relay.heard(batch, self._clock())
            others += relayed.others
            back += relayed.back
        self._say(link, back)
        self.passed += len(others)
        for other in self._hub.present:
            if other is not link:
                self._say(other, others)

    def _joined(self, link: WorkerLink) -> None:
        self._say(link, self.relay.joined(self._clock()))

    def _left(self, link: WorkerLink) -> None:
        self._is_now(link.number, None)

    def _is_now(self, number: int, process: str | None) -> None:
        """What was lent to another life of this worker is free."""
        before = self._processes.pop(number, None)
        if before is not None and before != process:
            self.relay.left(before)
        if process is not None:
            self._processes[number] = process

    def _say(self, link: WorkerLink, batches: Iterable[FleetBatch]) -> None:
        """Where its channel takes no more it is cut off soon (`hub.silent`), and told all of it when it comes
        again."""
        body: Any = tuple(map(encode, batches))
        if body:
            link.channel.tell(self._kind, body)
