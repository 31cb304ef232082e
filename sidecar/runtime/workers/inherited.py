"""What all processes of a pod have from before the first fork, and those that are started again later too."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import field, replace

from sidecar.config.process.pickles import LENGTH_BYTES, Unpacking, frame, pack
from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Snapshot
from sidecar.runtime.activation import Activated
from sidecar.runtime.crossing import Crossing
from sidecar.runtime.workers.sockets import SharedSockets


@dataclass(slots=True)
class Inherited:
    """Made once, by the supervisor, which alone changes it."""

    count: int
    """Of the workers."""
    begun_with: Snapshot
    """The configuration of the start; its pages are shared."""
    sockets: SharedSockets
    crossing: Crossing
    """The table of live inbound exchanges, and who tells whom; workers count from 0 there."""
    secret: bytes
    """By which all processes give a transition the same ids (`telemetry/spans.py`)."""
    pod: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What its workers call it where they speak of their breakers."""
    generation: int = 1
    _packed: int | None = None
    """A file in memory with the snapshot in use; None: it is the first."""

    remembered: int | None = None
    """A file in memory that one control process leaves to the next."""
    _left: tuple[int, ...] = ()
    """See `left_by_control`."""
    has_served: bool = False
    """All have come once: who is started now comes in the place of another one."""
    log_level: str | None = None
    """What an operator has set; None: nobody has."""

    @classmethod
    def make(cls, snapshot: Snapshot, count: int, activated: Activated | None = None) -> Inherited:
        """Bind, and whatever else must be there before the first fork. `activated`: what systemd has opened.

        Raises:
            OSError: an address cannot be bound.
        """
        sockets = SharedSockets(count, activated)
        sockets.bind_all(snapshot)
        return cls(count, snapshot, sockets, Crossing(count), os.urandom(32))

    def configured(self, generation: int, packed: int) -> None:
        """Another snapshot is in use; `packed` is a file made by `packed_file`."""
        if self._packed is not None:
            os.close(self._packed)
        self._packed, self.generation = packed, generation

    def remember(self, file: int) -> None:
        """Keep this for the next control process."""
        if self.remembered is not None:
            os.close(self.remembered)
        self.remembered = file

    @property
    def left_by_control(self) -> tuple[int, ...]:
        """What control listens on, while another program has that too: a control process that comes meanwhile could
        not bind it."""
        return self._left

    def keep_of_control(self, files: Sequence[int]) -> None:
        """These are what it listens on; they stay the caller's. None: nobody else has them."""
        for file in self._left:
            os.close(file)
        self._left = tuple(os.dup(file) for file in files)

    def latest(self) -> Snapshot:
        """The one in use as its file has it, with what waits for the next start."""
        return self.begun_with if self._packed is None else _unpacked(self._packed)

    def as_begun(self, latest: Snapshot) -> Snapshot:
        """The one in use, for a process that begins: what waits for the next start (`RESTART_KEYS` of
        `config/tell/diff.py`) is as the other processes of the pod have it."""
        begun = self.begun_with
        return replace(
            latest,
            probes=begun.probes,
            admin=begun.admin,
            telemetry=begun.telemetry,
            workers=begun.workers,
        )


def packed_file(snapshot: Snapshot) -> int:
    """A file in memory (memfd_create(2)) that holds a snapshot. The caller closes it. Takes a while: for a thread."""
    file = os.memfd_create("sidecar-snapshot", os.MFD_CLOEXEC)
    try:
        with open(file, "wb", closefd=False) as output:
            for part in pack(snapshot):
                output.write(frame(part))
    except BaseException:
        os.close(file)
        raise
    return file


def _unpacked(file: int) -> Snapshot:
    unpacking = Unpacking()
    for part in _parts(file):
        unpacking.add(part)
    return unpacking.snapshot()


def _parts(file: int) -> Iterator[bytes]:
    """By position: every process has the same place in it."""
    at = 0
    while length := os.pread(file, LENGTH_BYTES, at):
        size = int.from_bytes(length, "big")
        yield os.pread(file, size, at + LENGTH_BYTES)
        at += LENGTH_BYTES + size
