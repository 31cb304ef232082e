"""Endpoints that Kubernetes lists (`kubernetes://NAME.NAMESPACE:PORT`): one watch for each Service.

A complete list, in pages, then a watch from there on; a watch that ends is begun again where it was, and one that is
too old for the API server (410) begins with a new list. What is known stays in use meanwhile. A change that would
leave no endpoint is believed only from a complete list. Without access (no token, 401, 403), or while nothing is
known yet, DNS is asked instead; that is told once, and the API server is tried again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Final, Protocol

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Endpoint, Source
from sidecar.kubernetes.api import TOKEN_FOLDERS, Api, ApiError, ApiServer, connected, decoded
from sidecar.kubernetes.slices import MOST_SLICES, Malformed, Service, Slice, SliceBook, read_slice
from sidecar.upstream.followers import Followed, Followers, OnChange, OnError

LABEL: Final = "kubernetes.io/service-name"
PAGE: Final = 16
"""Slices in one page: about 1 MiB, which takes 10 ms to decode."""
MOST_PAGES: Final = 2 * MOST_SLICES // PAGE
MOST_BREAKS: Final = 5
"""Of a watch in a row; then all begins anew, with the certificates as they are by then."""
GONE: Final = 410
DENIED: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class WatchTimes:
    """All in seconds."""

    least_watch: float = 300.0
    """A watch is to last so long at least, and twice as long at most: by chance, so that many do not end together."""
    gather: float = 0.1
    """Changes within this time are taken together."""
    first_retry: float = 1.0
    """After a failure; doubles up to `max_retry`."""
    max_retry: float = 30.0
    denied_retry: float = 60.0
    """After a refusal, which an operator has to lift."""
    settled: float = 30.0
    """A watch that has lasted so long begins the retries afresh."""


class Names(Protocol):
    """DNS, which is asked where the API server does not answer."""

    def watch(self, endpoint: Endpoint) -> tuple[Endpoint, ...]: ...
    def unwatch(self, endpoint: Endpoint) -> None: ...


class _ListAgain(Exception):
    """The watch cannot go on from where it is."""


@dataclass(slots=True, eq=False)
class _Watched:
    """One Service."""

    one: Followed
    service: Service
    book: SliceBook
    version: str = ""
    """Of the last change that has come; a watch goes on from there."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    alias: Endpoint | None = None
    """What DNS is asked for instead."""


class EndpointSlices(Followers):
    """All Services that are watched. Owned by the event loop."""

    def __init__(
        self,
        environ: Mapping[str, str],
        names: Names,
        on_change: OnChange,
        on_error: OnError,
        *,
        server: Callable[[], ApiServer | None] | None = None,
        times: WatchTimes | None = None,
        rng: random.Random | None = None,
        domain: Callable[[], str] | None = None,
    ) -> None:
        """
        Args:
            environ: of a pod, with `KUBERNETES_SERVICE_HOST`.
            names: whose news of what it is asked for here are to go to `resolved`.
            server: finds the API server, in a thread; None where there is none.
            domain: the cluster's, found in a thread.
        """
        super().__init__("kubernetes", self._live_with, on_change, on_error)
        self._server = server or (lambda: ApiServer.of(environ))
        self._domain = domain or cluster_domain
        self._names = names
        self._times = times or WatchTimes()
        self._rng = rng or random.Random()
        address = environ.get("POD_IP") or environ.get("KUBERNETES_SERVICE_HOST") or ""
        self._family = 6 if ":" in address else 4
        self._aliases: dict[Endpoint, list[_Watched]] = {}

    # One Service

    async def _live_with(self, one: Followed) -> None:
        service = Service.of(one.entry)
        watched = _Watched(one, service, SliceBook(service, self._family))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tell(watched))
                group.create_task(self._keep(watched))
        finally:
            self._leave_dns(watched)

    async def _tell(self, watched: _Watched) -> None:
        """Tell changes of a watch, gathered for a moment: a rollout makes hundreds of them."""
        while True:
            await watched.changed.wait()
            await asyncio.sleep(self._times.gather)
            if watched.changed.is_set():  # else a list has told it meanwhile
                self._take_book(watched)

    def _take_book(self, watched: _Watched) -> None:
        watched.changed.clear()
        self._leave_dns(watched)
        endpoints, problem = watched.book.endpoints(), watched.book.missing_port()
        if problem is None:
            self.learned(watched.one, endpoints)
        else:
            self.failed(watched.one, problem)

    async def _keep(self, watched: _Watched) -> None:
        """List and watch, for ever."""
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            began, error = loop.time(), None
            try:
                await self._list_and_watch(watched)
            except _ListAgain:
                pass
            except (ApiError, Malformed) as caught:
                error = caught
                await self._troubled(watched, caught)
            failures = 0 if loop.time() - began >= self._times.settled else failures + 1
            is_denied = isinstance(error, ApiError) and error.status in DENIED
            await asyncio.sleep(self._wait(failures, error, is_denied=is_denied))

    def _wait(self, failures: int, error: Exception | None, *, is_denied: bool) -> float:
        times = self._times
        if error is None and failures <= 1:
            return 0.0  # told to list again, for the first time
        wait = self._growing(failures)
        if is_denied or isinstance(error, NoAccess):
            wait = times.denied_retry
        if isinstance(error, ApiError):
            wait = max(wait, min(error.retry_after_seconds, times.denied_retry))
        return wait * self._rng.uniform(0.5, 1.0)

    async def _list_and_watch(self, watched: _Watched) -> None:
        """Ends with an exception alone."""
        server = await asyncio.to_thread(self._server)
        if server is None:
            raise NoAccess(NO_TOKEN)
        async with connected(server) as api:
            await self._list(api, watched)
            loop, breaks = asyncio.get_running_loop(), 0
            while True:
                began = loop.time()
                try:
                    await self._watch(api, watched)
                except ApiError as error:
                    if error.status == GONE:
                        raise _ListAgain from error
                    if error.status or breaks >= MOST_BREAKS:
                        raise
                    # The connection broke, or was silent for too long: it goes on where it was.
                    self.failed(watched.one, f"the watch broke off, and is begun again: {error}")
                breaks = 0 if loop.time() - began >= self._times.settled else breaks + 1
                if breaks > 1 or loop.time() - began < self._times.first_retry:
                    await asyncio.sleep(self._growing(breaks) * self._rng.uniform(0.5, 1.0))

    def _growing(self, count: int) -> float:
        """After so many failures in a row."""
        times = self._times
        return float(min(times.first_retry * 2.0 ** min(max(count - 1, 0), 20), times.max_retry))

    async def _list(self, api: Api, watched: _Watched) -> None:
        """All slices, in pages; what was known stays until the last one has come."""
        path, query = _path(watched.service), {**_selector(watched.service), "limit": str(PAGE)}
        slices: list[Slice] = []
        for _ in range(MOST_PAGES):
            try:
                data = await api.page(path, query)
            except ApiError as error:
                if error.status == GONE and "continue" in query:
                    raise _ListAgain from error
                raise
            items, metadata = data.get("items"), data.get("metadata")
            if not isinstance(items, list | None) or not isinstance(metadata, dict):
                raise Malformed("a list without items or metadata")
            slices += map(read_slice, items or ())
            if len(slices) > MOST_SLICES:
                raise Malformed(f"the Service has more than {MOST_SLICES} slices")
            token = metadata.get("continue")
            if not token:
                watched.version = _version(metadata)
                watched.book.replace(slices)
                self._take_book(watched)
                return
            query["continue"] = str(token)
        raise Malformed(f"a list of more than {MOST_PAGES} pages")

    async def _watch(self, api: Api, watched: _Watched) -> None:
        """Until the server ends it. Raises: _ListAgain, ApiError, Malformed."""
        seconds = self._times.least_watch * self._rng.uniform(1.0, 2.0)
        query = {
            **_selector(watched.service),
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": watched.version,
            "timeoutSeconds": str(max(round(seconds), 1)),
        }
        async with api.watch(_path(watched.service), query) as found:
            if watched.book.missing_port() is None:
                self.is_well(watched.one)
            async for line in found:
                self._heard(watched, decoded(line))

    def _heard(self, watched: _Watched, event: Mapping[str, Any]) -> None:
        kind, data = event.get("type"), event.get("object")
        if not isinstance(data, dict):
            raise Malformed("an event without an object")
        if kind == "ERROR":
            if data.get("code") == GONE:
                raise _ListAgain
            raise ApiError(f"the watch ended: {str(data.get('message'))[:200]}", 500)
        metadata = data.get("metadata")
        if not isinstance(metadata, dict):
            raise Malformed("an event without metadata")
        book = watched.book
        if kind in ("ADDED", "MODIFIED"):
            book.put(read_slice(data))
        elif kind == "DELETED":
            book.remove(str(metadata.get("name")))
        elif kind != "BOOKMARK":
            raise Malformed("an event of an unknown type")
        watched.version = _version(metadata)
        if kind == "BOOKMARK":
            return
        if watched.one.endpoints and not book.has_usable():
            raise _ListAgain
        watched.changed.set()

    # DNS instead

    async def _troubled(self, watched: _Watched, error: Exception) -> None:
        one = watched.one
        is_denied = isinstance(error, NoAccess) or (isinstance(error, ApiError) and error.status in DENIED)
        if watched.alias is None and (is_denied or not one.endpoints):
            await self._ask_dns(watched)
        meanwhile = f"; {watched.alias} is asked meanwhile" if watched.alias is not None else ""
        remedy = (
            _REMEDY.format(watched.service.namespace) if is_denied and not isinstance(error, NoAccess) else ""
        )
        self.failed(one, f"{error}{remedy}{meanwhile}")

    async def _ask_dns(self, watched: _Watched) -> None:
        service = watched.service
        domain = f"{service.domain}.{await asyncio.to_thread(self._domain)}"
        if service.port.isdigit():
            alias = Endpoint(domain, int(service.port))
        else:
            alias = Endpoint(f"_{service.port}._tcp.{domain}", 0, source=Source.SRV)
        watched.alias = alias
        watched.one.by = "dns" if alias.source is Source.ADDRESS else "srv"
        self._aliases.setdefault(alias, []).append(watched)
        known = self._names.watch(alias)
        if known:
            self.take(watched.one, known)

    def resolved(self, alias: Endpoint, endpoints: tuple[Endpoint, ...]) -> None:
        """What DNS says of something that was asked for here."""
        for watched in self._aliases.get(alias, ()):
            self.take(watched.one, endpoints)

    def _leave_dns(self, watched: _Watched) -> None:
        alias, watched.alias = watched.alias, None
        if alias is None:
            return
        watched.one.by = "kubernetes"
        self._aliases[alias].remove(watched)
        if not self._aliases[alias]:
            del self._aliases[alias]
        self._names.unwatch(alias)


class NoAccess(ApiError):
    """Nobody can be asked."""


NO_TOKEN: Final = (
    f"there is no token of a service account in {TOKEN_FOLDERS[0]}: annotate the pod with"
    ' `sidecar.io/endpoint-slices: "true"` and inject again'
)
_REMEDY: Final = (
    ": let the pod's service account list and watch endpointslices in namespace {0} (RoleBinding in"
    " deploy/endpoint-slices)"
)


def cluster_domain(path: str = "/etc/resolv.conf") -> str:
    """The cluster's domain, as the search list of a pod shows it. Blocking."""
    try:
        with open(path, encoding="utf-8", errors="replace") as text:
            words = text.read().split()
    except OSError:
        words = []
    found = (word.removeprefix("svc.").rstrip(".") for word in words if word.startswith("svc."))
    return next(found, "cluster.local")


def _path(service: Service) -> str:
    return f"/apis/discovery.k8s.io/v1/namespaces/{service.namespace}/endpointslices"


def _selector(service: Service) -> dict[str, str]:
    return {"labelSelector": f"{LABEL}={service.name}"}


def _version(metadata: Mapping[str, Any]) -> str:
    version = metadata.get("resourceVersion")
    if not isinstance(version, str) or not version or len(version) > 64:
        raise Malformed("no resourceVersion")
    return version
