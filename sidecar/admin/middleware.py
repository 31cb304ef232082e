"""What is around every handler of the admin server: who may ask, how it is refused, what the event log keeps."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from aiohttp import web

from sidecar.admin import request_facts
from sidecar.admin.answers import Refused, problem
from sidecar.admin.guard import READING, Guard
from sidecar.serving.http import Handler

BROWSER_FIELDS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer: it is what it says, and in no page or frame of others, where clicks on buttons can be stolen."""
BROKEN_OFF: Final = 499
"""Status in the log of a change whose answer the end of the process broke off."""

_LOG = logging.getLogger("sidecar.admin")
Audit = Callable[[str, Mapping[str, Any]], None]


class Middleware(Protocol):
    """What aiohttp calls around a handler."""

    def __call__(self, request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]: ...


def around_all(guard: Guard, audit: Audit) -> Middleware:
    """Handles nothing that `guard` refuses, and tells `audit` of every change, refused ones too."""

    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        async def guarded() -> web.StreamResponse:
            await guard.check(request)
            return await handler(request)

        if request.method in READING:
            return await _problems(guarded, request)
        fields = request_facts.summary(request)
        status = BROKEN_OFF
        try:
            response = await _problems(guarded, request)
            status = response.status
        finally:
            audit(f"{request.method} {fields['path']}: {status}", {**fields, "status": status})
        return response

    return around


async def for_browsers(_request: web.Request, response: web.StreamResponse) -> None:
    """Add `BROWSER_FIELDS` where a handler has not said otherwise."""
    for name, value in BROWSER_FIELDS.items():
        response.headers.setdefault(name, value)


async def _problems(
    handle: Callable[[], Awaitable[web.StreamResponse]], request: web.Request
) -> web.StreamResponse:
    """Whatever goes wrong is told as a problem document."""
    try:
        return await handle()
    except Refused as refused:
        return problem(refused)
    except web.HTTPException as error:
        kept = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return problem(Refused(error.status, _detail(error, request), headers=kept))
    except Exception:
        _LOG.exception("%s %s broke off", request.method, request.path[: request_facts.MAX_TEXT])
        return problem(Refused(500, "a bug in the admin server; its log has the details"))


def _detail(error: web.HTTPException, request: web.Request) -> str:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{request.method} is not for {request.path[:100]}: GET reads, POST changes"
    if isinstance(error, web.HTTPNotFound):
        return f"there is nothing at {request.path[:100]}; /openapi.json says what there is"
    return error.text or error.reason
