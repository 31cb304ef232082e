"""An API server that knows EndpointSlices: lists in pages, watches with versions and bookmarks, and all faults.

Over plain HTTP: the client's TLS is aiohttp's. As the real one: a list has the version of the whole, a watch tells
what comes after a version, 410 for what was compacted, either as a status or as an event.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from sidecar.kubernetes.api import ApiServer
from tests.support.ports import free_ports

PATH = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
Json = dict[str, Any]


def endpoint(address: str, **more: Any) -> Json:
    """One endpoint; `uid`, `ready`, `serving`, `terminating` and `zones` where they are given."""
    conditions = {key: more[key] for key in ("ready", "serving", "terminating") if key in more}
    made: Json = {"addresses": [address], "conditions": conditions}
    made["targetRef"] = {"kind": "Pod", "uid": more.get("uid", f"uid-of-{address}")}
    if "zones" in more:
        made["hints"] = {"forZones": [{"name": zone} for zone in more["zones"]]}
    return made


def sliced(
    name: str, *endpoints: Json | str, port: int = 8080, port_name: str = "http", family: str = "IPv4"
) -> Json:
    """One EndpointSlice of the Service `payments`."""
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "payments"}},
        "addressType": family,
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
        "endpoints": [endpoint(one) if isinstance(one, str) else one for one in endpoints],
    }


class FakeKubernetes:
    """One namespace, `shop`. Change it by `put` and `remove`; make it fail by its attributes."""

    def __init__(self) -> None:
        self.version = 100
        self.compacted = 0
        """Watches from before this are too old."""
        self.slices: dict[str, Json] = {}
        self.log: list[tuple[int, Json]] = []
        self.token = "t0"
        self.refuse_with = 0
        """A status for each request."""
        self.gone_as_event = False
        self.hangs = False
        """Watches say nothing, and lists do not answer."""
        self.garbage: list[bytes] = []
        """Each is sent on the next watch, in place of what it should say; then the watch ends."""
        self.expire_pages = 0
        """So many further pages are 410."""
        self.requests: list[Json] = []
        self._ends = 0
        self.watches = 0
        """That are open now."""
        self._changed = asyncio.Condition()

    async def put(self, *slices: Json) -> None:
        async with self._changed:
            for one in slices:
                kind = "MODIFIED" if one["metadata"]["name"] in self.slices else "ADDED"
                self._note(kind, one)
                self.slices[one["metadata"]["name"]] = one
            self._changed.notify_all()

    async def remove(self, *names: str) -> None:
        async with self._changed:
            for name in names:
                self._note("DELETED", self.slices.pop(name))
            self._changed.notify_all()

    async def bookmark(self) -> None:
        async with self._changed:
            self._note("BOOKMARK", {"metadata": {}})
            self._changed.notify_all()

    async def error(self, code: int) -> None:
        """An ERROR event for all watches."""
        async with self._changed:
            self.version += 1
            self.log.append((self.version, {"type": "ERROR", "object": {"code": code, "message": "no"}}))
            self._changed.notify_all()

    async def compact(self) -> None:
        """Forget the past, and end all watches."""
        async with self._changed:
            self.version += 1
            self.compacted = self.version
            self._changed.notify_all()

    async def claim_deleted(self, one: Json) -> None:
        """Say so, though it is still there."""
        async with self._changed:
            self._note("DELETED", one)
            self._changed.notify_all()

    async def end_watches(self) -> None:
        """As at the end of `timeoutSeconds`."""
        async with self._changed:
            self._ends += 1
            self._changed.notify_all()

    async def no_watches(self) -> None:
        """Wait until no watch is open."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self.watches)

    def count(self, *, is_watch: bool) -> int:
        return sum(("watch" in one["query"]) is is_watch for one in self.requests)

    async def seen(self, count: int, *, is_watch: bool) -> None:
        """Wait for so many requests of a kind in all."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.count(is_watch=is_watch) >= count)

    def _note(self, kind: str, one: Json) -> None:
        self.version += 1
        one["metadata"] = {**one["metadata"], "resourceVersion": str(self.version)}
        self.log.append((self.version, {"type": kind, "object": json.loads(json.dumps(one))}))

    async def serve(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        async with self._changed:
            self.requests.append({"query": query, "token": request.headers.get("Authorization")})
            self._changed.notify_all()
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized")
        if self.refuse_with:
            return _status(self.refuse_with, "it is forbidden")
        if query.get("labelSelector") != "kubernetes.io/service-name=payments":
            return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": []})
        return await self._watch(request, query) if query.get("watch") else await self._list(query)

    async def _list(self, query: dict[str, str]) -> web.Response:
        if self.hangs:
            await asyncio.Event().wait()
        if "continue" in query and self.expire_pages:
            self.expire_pages -= 1
            return _status(410, "the provided continue parameter is too old")
        begin, limit = int(query.get("continue", "0")), int(query["limit"])
        items = list(self.slices.values())
        metadata: Json = {"resourceVersion": str(self.version)}
        if begin + limit < len(items):
            metadata["continue"] = str(begin + limit)
        return web.json_response({"metadata": metadata, "items": items[begin : begin + limit]})

    async def _watch(self, request: web.Request, query: dict[str, str]) -> web.StreamResponse:
        at = int(query["resourceVersion"])
        if at < self.compacted and not self.gone_as_event:
            return _status(410, "too old resource version")
        response = web.StreamResponse()
        await response.prepare(request)
        if self.garbage:
            await response.write(self.garbage.pop(0))
            return response
        if at < self.compacted:
            await response.write(_line({"type": "ERROR", "object": {"code": 410, "message": "too old"}}))
            return response
        self.watches += 1
        ends = self._ends
        try:
            while self.compacted <= at and self._ends == ends:
                async with self._changed:
                    news = [(version, event) for version, event in self.log if version > at]
                    if not news or self.hangs:
                        await self._changed.wait()
                        continue
                for version, event in news:
                    await response.write(_line(event))
                    at = version
            return response
        finally:
            self.watches -= 1
            async with self._changed:
                self._changed.notify_all()


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


def _line(event: Json) -> bytes:
    return json.dumps(event).encode() + b"\n"


@asynccontextmanager
async def fake_kubernetes(folder: Path) -> AsyncIterator[tuple[FakeKubernetes, ApiServer]]:
    """Serve; `folder` gets the token."""
    kubernetes = FakeKubernetes()
    app = web.Application()
    app.router.add_get(PATH, kubernetes.serve)
    (folder / "token").write_text("t0\n")
    # A watch whose client has gone ends at once, as it does at the real one.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield kubernetes, ApiServer(f"http://127.0.0.1:{port}", folder)
    finally:
        await runner.cleanup()
