"""A snapshot as a row of small pickles, to go from one process of ours to another.

Small, because whoever unpacks on an event loop stops between two of them: a thousand routes in one pickle would
hold it for 25 ms, ten take 0.3. Never unpack what another program sent.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeVar

from sidecar.core.snapshot import Listener, Route, Snapshot, Upstream

T = TypeVar("T")

ITEMS = 10
"""Routes or upstreams in one pickle."""
LENGTH_BYTES = 4
PART, PROBLEMS, END = b"p", b"e", b"."
"""What a frame holds, by its first byte: a pickle of `pack`, a pickled `ConfigError`, nothing more to come."""


def frame(payload: bytes) -> bytes:
    """A payload as it goes through a pipe: its length (big-endian) and itself."""
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def pack(snapshot: Snapshot) -> Iterator[bytes]:
    """The snapshot's pickles, in the order in which `Unpacking` wants them."""
    rest = replace(snapshot, listeners={}, upstreams={}, routes=(), passed=dict(snapshot.passed))
    yield _pickled((rest, tuple(snapshot.listeners.values())))
    for upstreams in _slices(snapshot.upstreams.values()):
        yield _pickled(upstreams)
    for routes in _slices(snapshot.routes):
        yield _pickled(routes)


class Unpacking:
    """Puts a snapshot together again, one pickle at a time."""

    __slots__ = ("_listeners", "_rest", "_routes", "_upstreams")

    def __init__(self) -> None:
        self._rest: Snapshot | None = None
        self._listeners: tuple[Listener, ...] = ()
        self._upstreams: dict[str, Upstream] = {}
        self._routes: list[Route] = []

    def add(self, pickled: bytes) -> None:
        loaded = pickle.loads(pickled)
        if self._rest is None:
            self._rest, self._listeners = loaded
            return
        for item in loaded:
            if isinstance(item, Route):
                self._routes.append(item)
            else:
                self._upstreams[item.name] = item

    def snapshot(self) -> Snapshot:
        """The snapshot, once everything was added."""
        assert self._rest is not None, "nothing was added"
        return replace(
            self._rest,
            listeners=MappingProxyType({listener.name: listener for listener in self._listeners}),
            upstreams=MappingProxyType(self._upstreams),
            routes=tuple(self._routes),
            passed=MappingProxyType(dict(self._rest.passed)),
        )


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _slices(items: Any) -> Iterator[tuple[Any, ...]]:
    iterator = iter(items)
    while part := tuple(islice(iterator, ITEMS)):
        yield part
