"""Certificates that change while they are in use: looked at, loaded beside the old ones, checked, and only then used.

The part `certificates` looks at the content of every file, by whatever way it is replaced (`config/watch.py`), and
loads in a thread what has changed and stands still. What cannot be used changes nothing: it is tried once more after
a moment, since a pair is written in two steps, and then told, counted and shown beside what stays in use. Owned by
the event loop.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import Any, Final

from sidecar.config.watch import POLL_SECONDS, SETTLE_SECONDS, Settling, Watch
from sidecar.core.dataclass import dataclass
from sidecar.core.own_lack import is_own_lack
from sidecar.core.tls_numbers import CertificateNumbers, Handshake
from sidecar.core.wall import to_the_second
from sidecar.downstream.listener import ListenerSocket
from sidecar.runtime.actor import Mailbox
from sidecar.runtime.datapath import DataPath
from sidecar.runtime.listeners import load_listener
from sidecar.runtime.lookout import Lookout
from sidecar.telemetry.log_lines import Level
from sidecar.transport.tls.client import ClientContext, ContextKey, context_key
from sidecar.transport.tls.files import OwnCertificate
from sidecar.transport.tls.served import files_of

SECONDS_A_DAY: Final = 86_400
OWNERS_SECONDS: Final = 1.0
"""Between two looks whether others have certificates now."""
HANDSHAKES_TOLD_SECONDS: Final = 10.0
"""Of each listener, failed handshakes are told at most so often."""
_UNTOLD: Final = frozenset({Handshake.DONE, Handshake.LEFT})
"""Whoever looks whether a port is open leaves without a word, all day long."""

Tell = Callable[[Level, str, str, Mapping[str, object]], None]
"""(level, kind, message, fields) of a line in the log."""


class Rotating(ABC):
    """One who has certificates in use, and can have others."""

    name: str
    """`listener/NAME` or `upstream/NAME`: in metrics, in `/status`, in the log."""
    files: tuple[str, ...]
    digest: str
    """Of the files' content when they were loaded; empty where nobody knows."""

    @abstractmethod
    def load(self) -> Any:
        """Read and check all files; in a thread.

        Raises:
            TlsFileError
        """

    @abstractmethod
    def use(self, loaded: Any) -> None:
        """From now on, for new connections."""

    @abstractmethod
    def own(self) -> Sequence[OwnCertificate]:
        """What is in use."""


class RotatingListener(Rotating):
    """One that accepts TLS."""

    def __init__(self, socket: ListenerSocket) -> None:
        self.name = f"listener/{socket.name}"
        self._socket = socket
        self._policy = socket.policy
        tls, served = socket.policy.tls, socket.served
        self.files = files_of(tls) if tls is not None else ()
        self.digest = served.digest if served is not None else ""

    def load(self) -> Any:
        return load_listener(self._policy)

    def use(self, loaded: Any) -> None:
        now, then = self._socket.policy, self._policy
        if (now.tls, now.protocol) == (then.tls, then.protocol):  # a reload may have come in between
            self._socket.served = loaded

    def own(self) -> Sequence[OwnCertificate]:
        served = self._socket.served
        return [pair.own for pair in served.pairs] if served is not None else ()


class RotatingUpstream(Rotating):
    """What several upstreams may share: the CAs that are trusted there, and who we are for them."""

    digest = ""

    def __init__(self, context: ClientContext, upstream: str) -> None:
        """`upstream`: the first that has it."""
        self.name = f"upstream/{upstream}"
        self._context = context
        self.files = context.key.files

    def load(self) -> Any:
        return ClientContext.load(self._context.key)

    def use(self, loaded: Any) -> None:
        self._context.use(loaded)

    def own(self) -> Sequence[OwnCertificate]:
        own = self._context.own
        return () if own is None else (own,)


def rotating(datapath: DataPath) -> list[Rotating]:
    """All who have certificates now: listeners, and upstreams whose `tls` names files."""
    found: list[Rotating] = [
        RotatingListener(socket)
        for socket in list(datapath.listeners.sockets.values())
        if socket.served is not None
    ]
    known: dict[ContextKey, str] = {}
    for cluster in list(datapath.assembly.clusters.values()):
        if cluster.policy.tls is not None:
            known.setdefault(context_key(cluster.policy), cluster.name)
    for context in datapath.assembly.tls:
        if context.key.files and context.key in known:
            found.append(RotatingUpstream(context, known[context.key]))
    return found


@dataclass(slots=True, eq=False)
class _Kept:
    """What is known of one owner between two looks."""

    watch: Watch
    settling: Settling
    problem: str = ""
    """Why what its files hold now is not used."""
    is_first: bool = False
    """Nobody knows what its files held when they were loaded: they are loaded once more, which is no news."""
    warned: set[str] = field(default_factory=set)
    """Key files that were told to be open to others."""


class Rotation:
    """The part's state, and what is shown of it."""

    def __init__(
        self, rotating: Callable[[], list[Rotating]], clock: Callable[[], float], tell: Tell
    ) -> None:
        """`rotating`: all who have certificates now; it is asked before each look."""
        self._rotating = rotating
        self._clock = clock
        self._tell = tell
        self._kept: dict[tuple[str, tuple[str, ...]], _Kept] = {}
        self.changes = Counter[tuple[str, str]]()
        """By owner and `success` or `failure`."""

    # What is shown

    def numbers(self) -> list[CertificateNumbers]:
        """Of every certificate in use; safe from any thread."""
        now = time.time()
        return [
            CertificateNumbers(owner.name, own.files.chain, own.expires - now)
            for owner in self._rotating()
            for own in owner.own()
        ]

    def told(self) -> list[dict[str, object]]:
        """For `/status`: each owner with what it has in use, and why what its files hold is not used."""
        now = time.time()
        return [
            {
                "owner": owner.name,
                "problem": self._problem(owner),
                "certificates": [
                    {
                        "file": own.files.chain,
                        "expires_at": to_the_second(own.expires),
                        "expires_in_seconds": round(own.expires - now),
                        "is_key_open": own.is_key_open,
                    }
                    for own in owner.own()
                ],
            }
            for owner in self._rotating()
        ]

    def _problem(self, owner: Rotating) -> str | None:
        kept = self._kept.get((owner.name, owner.files))
        return kept.problem or None if kept is not None else None

    # The part

    async def run(self, mailbox: Mailbox[Any]) -> None:
        """A message says that it is worth looking."""
        lookout = Lookout(POLL_SECONDS)
        try:
            while True:
                if await self.look():
                    await mailbox.get(SETTLE_SECONDS / 2)
                else:
                    await self._wait_for_news(mailbox, lookout)
        finally:
            lookout.close()

    async def _wait_for_news(self, mailbox: Mailbox[Any], lookout: Lookout) -> None:
        """Until a file is not as it was, or others have certificates than before."""
        watches = [kept.watch.another() for kept in self._kept.values()]
        if watches:

            def look(now: float) -> list[str | None] | None:
                digests = [watch.look(now) for watch in watches]
                return None if None in digests else digests

            known = [kept.settling.seen for kept in self._kept.values()]
            lookout.watch(self, look, known, partial(mailbox.put, "look"))
        while await mailbox.get(OWNERS_SECONDS) is None:
            if {(owner.name, owner.files) for owner in self._rotating()} != self._kept.keys():
                break
        lookout.rest(self)

    async def look(self) -> bool:
        """Look at all files, and use what can be used; returns whether to come back soon."""
        owners = self._rotating()
        self._keep(owners)
        if not owners:
            return False  # no thread is asked about nothing
        found = [(owner, self._kept[owner.name, owner.files]) for owner in owners]
        now = self._clock()
        digests = await asyncio.to_thread(lambda: [kept.watch.look(now) for _, kept in found])
        for (owner, kept), digest in zip(found, digests, strict=True):
            if digest is not None and kept.settling.saw(digest, self._clock()):
                await self._try(owner, kept, digest)
        return any(kept.settling.is_pending for _, kept in found)

    def _keep(self, owners: Sequence[Rotating]) -> None:
        before = self._kept
        self._kept = {}
        for owner in owners:
            key = owner.name, owner.files
            kept = before.get(key)
            if kept is None:
                watch = Watch(owner.files[0], owner.files)
                kept = _Kept(watch, Settling(owner.digest), is_first=not owner.digest)
                self._warn(owner, kept)
            self._kept[key] = kept

    async def _try(self, owner: Rotating, kept: _Kept, digest: str) -> None:
        is_final = not kept.settling.is_patient(self._clock())
        try:
            loaded = await asyncio.to_thread(owner.load)
        except (OSError, ValueError) as error:
            if is_own_lack(error):
                kept.settling.postponed(self._clock())
            elif is_final:
                kept.settling.refused(digest)
                self._refused(owner, kept, str(error))
            else:
                kept.settling.tried()
            return
        owner.use(loaded)
        kept.settling.taken(digest)
        kept.problem = ""
        self._taken(owner, kept)

    def _taken(self, owner: Rotating, kept: _Kept) -> None:
        is_news, kept.is_first = not kept.is_first, False
        if is_news:
            self._tell_of_change(owner)
        self._warn(owner, kept)

    def _tell_of_change(self, owner: Rotating) -> None:
        self.changes[owner.name, "success"] += 1
        for own in owner.own():
            until = to_the_second(own.expires)
            message = f"{owner.name}: {own.files.chain} is used from now on, and is good until {until}"
            self._tell(Level.INFO, "tls.renewed", message, _fields(owner, own))

    def _refused(self, owner: Rotating, kept: _Kept, problem: str) -> None:
        self.changes[owner.name, "failure"] += 1
        kept.problem = problem
        own = min(owner.own(), key=lambda one: one.expires, default=None)
        stays = (
            f"; the one in use stays, and is good until {to_the_second(own.expires)}"
            if own is not None
            else ""
        )
        fields = _fields(owner, own) if own is not None else {"owner": owner.name}
        self._tell(Level.ERROR, "tls.refused", f"{owner.name}: not used: {problem}{stays}", fields)

    def _warn(self, owner: Rotating, kept: _Kept) -> None:
        for own in owner.own():
            key = own.files.key
            if own.is_key_open and key not in kept.warned:
                kept.warned.add(key)
                remedy = "chmod 640, or defaultMode 0440 of its volume"
                message = f"{key}: everybody on this system may read the key: {remedy}"
                self._tell(Level.WARNING, "tls.key_open", message, {"owner": owner.name, "file": key})


class HandshakesTold:
    """Failed handshakes of listeners, a line for many."""

    def __init__(
        self, sockets: Callable[[], Iterable[ListenerSocket]], clock: Callable[[], float], tell: Tell
    ) -> None:
        self._sockets = sockets
        self._clock = clock
        self._tell = tell
        self._told: dict[str, tuple[float, Counter[Handshake]]] = {}
        """By listener: when something was told last, and how many there had been."""

    def tick(self) -> None:
        """Once a second."""
        now = self._clock()
        for socket in self._sockets():
            last = socket.last_handshakes
            at, before = self._told.get(socket.name, (-HANDSHAKES_TOLD_SECONDS, Counter[Handshake]()))
            if not last or now - at < HANDSHAKES_TOLD_SECONDS:
                continue
            socket.last_handshakes = {}
            for result, (address, detail) in last.items():
                if result not in _UNTOLD:
                    count = socket.handshakes[result] - before[result]
                    self._say(socket.name, result, count, address, detail)
            self._told[socket.name] = now, socket.handshakes.copy()

    def _say(self, listener: str, result: Handshake, count: int, address: str, detail: str) -> None:
        many = f"{count} TLS handshakes have" if count > 1 else "a TLS handshake has"
        who = f" (the last one: {address})" if address else ""
        fields = {"listener": listener, "result": result.value, "count": count, "client": address or None}
        self._tell(
            Level.WARNING,
            "tls.handshake_failed",
            f"listener {listener}: {many} failed: {detail}{who}",
            fields,
        )


def _fields(owner: Rotating, own: OwnCertificate) -> dict[str, object]:
    left = own.expires - time.time()
    return {
        "owner": owner.name,
        "file": own.files.chain,
        "expires_at": to_the_second(own.expires),
        "expires_in_days": round(left / SECONDS_A_DAY, 2),
    }
