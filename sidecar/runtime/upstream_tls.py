"""The TLS contexts of all upstreams: made where a configuration needs them, shared, and made anew when files change.

Reading files and CAs takes 20 ms and more, so `prepare` and `Rotation.load` are for a thread; all else is the event
loop's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Snapshot, Upstream
from sidecar.transport.tls.client import ClientContext, ContextKey, LoadedClient, context_key
from sidecar.transport.tls.files import TlsFileError


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a snapshot needs and is not there yet."""

    loaded: Mapping[ContextKey, LoadedClient]


class UpstreamContexts:
    """Those in use, by what makes them differ."""

    def __init__(self) -> None:
        self._contexts: dict[ContextKey, ClientContext] = {}

    def __iter__(self) -> Iterator[ClientContext]:
        return iter(list(self._contexts.values()))

    def prepare(self, snapshot: Snapshot) -> Prepared:
        """Read and check the files of `snapshot`; changes nothing.

        Raises:
            TlsFileError: with the key of the configuration before it.
        """
        loaded: dict[ContextKey, LoadedClient] = {}
        for upstream in snapshot.upstreams.values():
            if upstream.tls is None:
                continue
            key = context_key(upstream)
            if key not in self._contexts and key not in loaded:
                loaded[key] = _load(key, f"upstreams.{upstream.name}.tls")
        return Prepared(loaded)

    def add(self, prepared: Prepared) -> None:
        """They may be used from now on; `retain` lets go of those that nobody needs."""
        for key, loaded in prepared.loaded.items():
            self._contexts.setdefault(key, ClientContext(key, loaded))

    def retain(self, snapshot: Snapshot) -> None:
        needed = {
            context_key(upstream) for upstream in snapshot.upstreams.values() if upstream.tls is not None
        }
        self._contexts = {key: context for key, context in self._contexts.items() if key in needed}

    def of(self, upstream: Upstream) -> ClientContext | None:
        """That of an upstream whose snapshot was prepared; None for one in clear text."""
        return None if upstream.tls is None else self._contexts[context_key(upstream)]


def _load(key: ContextKey, where: str) -> LoadedClient:
    try:
        return ClientContext.load(key)
    except TlsFileError as error:
        raise type(error)(f"{where}: {error}") from error
