"""How the admin server answers: JSON, in pieces where it is long, and problem documents (RFC 9457)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from time import perf_counter
from typing import Any, Final

from sidecar.serving.message import Response

TURN_SECONDS: Final = 0.001
"""Work on a long answer between two turns of the loop, so that requests need not wait for it."""

_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Refused(Exception):
    """A request that is not done; becomes a problem document."""

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        """`more` are further members of the document."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.more = more


def answer(data: Mapping[str, Any], status: int = 200) -> Response:
    """A JSON object."""
    return _response(_dumps(data), status)


async def listed(
    head: Mapping[str, Any],
    key: str,
    items: Iterable[Mapping[str, Any] | Sequence[Any] | None],
    *,
    inside: str | None = None,
) -> Response:
    """A JSON object that ends with a long list; each item is made when its turn comes.

    An item that is None is left out: it only took its time.
    `inside` names a member of `head`, an object, that is to hold the list; None: the whole does.
    """
    parts: list[str] = []
    began = perf_counter()
    for item in items:
        if item is not None:
            parts.append(_dumps(item))
        if perf_counter() - began > TURN_SECONDS:
            await asyncio.sleep(0)
            began = perf_counter()
    member = f"{_dumps(key)}:[{','.join(parts)}]"
    if inside is not None:
        member = f"{_dumps(inside)}:{_extended(head[inside], member)}"
        head = {name: value for name, value in head.items() if name != inside}
    return _response(_extended(head, member), 200)


def problem(refused: Refused) -> Response:
    """`Refused` as an answer."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(refused.status).phrase,
        "status": refused.status,
        "detail": refused.detail,
        **refused.more,
    }
    return _response(_dumps(document), refused.status, "application/problem+json", refused.headers)


def _extended(data: Mapping[str, Any], member: str) -> str:
    return f"{_dumps(data)[:-1]}{',' if data else ''}{member}}}"


def _response(
    text: str, status: int, kind: str = "application/json", more: Mapping[str, str] | None = None
) -> Response:
    return Response(
        status,
        # "replace": what a client wrote may hold halves of characters, in a header field for one
        f"{text}\n".encode("utf-8", "replace"),
        kind=f"{kind}; charset=utf-8",
        fields={"Cache-Control": "no-store", **(more or {})},
    )
