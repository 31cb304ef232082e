"""Reviews as they arrive: how large they may be, how many are in memory, and one at a time is read.

A namespace's users decide what is in a pod, and whoever reaches the port may send anything: 8 MB of `{}` become
258 MiB of objects, of the 128 that the webhook has. So a body has a size, a number of values and a time. Small ones,
which pods are, wait for no large one until they are here; and a thread reads one after the other, so that probes are
answered meanwhile. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from sidecar.core.dataclass import dataclass
from sidecar.kubernetes.admission import BadReview, review, shortened, told
from sidecar.kubernetes.settings import Settings
from sidecar.serving.message import Request, Response

MAX_REVIEW_BYTES: Final = 3 * 1024 * 1024
"""An object has at most 1.5 MiB in etcd, and a review may carry it twice."""
SMALL_REVIEW_BYTES: Final = 64 * 1024
"""As almost every pod's; so many are held for each connection at most."""
LARGE_AT_ONCE: Final = 2
"""Larger ones that are held; the next waits, unread, for a place."""
MAX_VALUES: Final = 100_000
"""Braces, brackets and commas in a body, which bound how many objects it becomes: 100 to 160 bytes each."""
BODY_SECONDS: Final = 5.0
"""For a whole body, the wait for a place included: the API server waits no longer (`timeoutSeconds`)."""
LINES_A_SECOND: Final = 20
"""Of the log; what comes on top is counted and told with the next line."""
_MAX_NAME_CHARACTERS: Final = 320

_LOG = logging.getLogger("sidecar.kubernetes")
_TOO_LARGE: Final = f"a review has at most {MAX_REVIEW_BYTES} bytes, and the pod in it at most half of that"
_TOO_MANY: Final = f"a review has at most {MAX_VALUES} values: make the pod's lists and annotations shorter"


@dataclass(frozen=True, slots=True)
class Decided:
    """What goes to the API server, and to the log."""

    status: int
    body: bytes
    line: str


class Reviewer:
    """Reads reviews and answers them."""

    def __init__(self, settings: Settings) -> None:
        self.large = 0
        """Large ones that are held now."""
        self._settings = settings
        self._places = asyncio.Semaphore(LARGE_AT_ONCE)
        self._thread = ThreadPoolExecutor(1, "review")
        self._lines = _Lines()

    async def answer(self, request: Request) -> Response:
        """A decision, or why there is none: 400, 408, 413."""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                decided = await self._decided(request)
        except TimeoutError:
            decided = _refused(408, f"the review did not come within {BODY_SECONDS:g} s")
        is_good = decided.status == 200
        self._lines.tell(logging.INFO if is_good else logging.WARNING, decided.line)
        kind = "application/json" if is_good else "text/plain"
        response = Response(decided.status, decided.body, kind=f"{kind}; charset=utf-8")
        response.closes = not is_good  # the rest of its body is nobody's
        return response

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _decided(self, request: Request) -> Decided:
        length = request.length if request.length >= 0 else None
        if length is not None and length > MAX_REVIEW_BYTES:
            return _refused(413, _TOO_LARGE)
        async with self._place(length):
            body = await _read(request)
            if body is None:
                return _refused(413, _TOO_LARGE)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, _decide, body, self._settings)

    @contextlib.asynccontextmanager
    async def _place(self, length: int | None) -> AsyncIterator[None]:
        """Where a body may be held; a small one always may."""
        if length is not None and length <= SMALL_REVIEW_BYTES:
            yield
            return
        async with self._places:
            self.large += 1
            try:
                yield
            finally:
                self.large -= 1


async def _read(request: Request) -> bytearray | None:
    """The whole body; None as soon as it is too large."""
    body = bytearray()
    while piece := await request.client.read():
        if len(body) + len(piece) > MAX_REVIEW_BYTES:
            return None
        body += piece
    return body


def _decide(body: bytearray, settings: Settings) -> Decided:
    """In the thread. It raises nothing: with an exception all objects of a review would live on until the loop has
    looked at it, and those of the next one beside them."""
    if body.count(b"{") + body.count(b"[") + body.count(b",") > MAX_VALUES:
        return _refused(413, _TOO_MANY)
    try:
        data = json.loads(body)
        answer = review(data, settings)
        line = f"pod {_name(data['request'])}: {told(answer)}"
        return Decided(200, json.dumps(answer, separators=(",", ":")).encode(), line)
    except (BadReview, ValueError, RecursionError) as error:
        return _refused(400, shortened(str(error)))


def _refused(status: int, text: str) -> Decided:
    return Decided(status, f"{text}\n".encode(), f"a bad review: {text}")


def _name(request: dict[str, Any]) -> str:
    """Of the pod, as a controller makes it: often without a name of its own yet. In quotes: nobody has checked it."""
    pod = request.get("object")
    metadata = pod.get("metadata") if isinstance(pod, dict) else None
    found = metadata if isinstance(metadata, dict) else {}
    name = found.get("name") or found.get("generateName") or request.get("name") or ""
    return repr(f"{shortened(str(request.get('namespace') or ''))}/{name}"[:_MAX_NAME_CHARACTERS])


class _Lines:
    """Tells the log no more than `LINES_A_SECOND`."""

    def __init__(self) -> None:
        self._second = 0
        self._told = 0
        self._kept_back = 0

    def tell(self, level: int, line: str) -> None:
        second = int(asyncio.get_running_loop().time())
        if second != self._second:
            self._second, self._told = second, 0
        if self._told >= LINES_A_SECOND:
            self._kept_back += 1
            return
        self._told += 1
        if self._kept_back:
            line = f"{line} ({self._kept_back} lines before it were left out)"
            self._kept_back = 0
        _LOG.log(level, "%s", line)
