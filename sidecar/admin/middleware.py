"""What is around every handler of the admin server: who may ask, how it is refused, what the event log keeps."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from sidecar.admin import request_facts
from sidecar.admin.answers import Refused, problem
from sidecar.admin.guard import READING, Guard
from sidecar.serving.message import ClientGone, Handler, Request, Response
from sidecar.serving.routes import Unmatched

BROWSER_FIELDS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer that says no other: it is what it says, and in no page or frame of others, where clicks on buttons
can be stolen."""
BROKEN_OFF: Final = 499
"""Status in the log of a change whose answer the end of the process broke off."""

_LOG = logging.getLogger("sidecar.admin")
Audit = Callable[[str, Mapping[str, Any]], None]


def around_all(handler: Handler, guard: Guard, audit: Audit) -> Handler:
    """Has `handler` handle nothing that `guard` refuses, and tells `audit` of every change, refused ones too."""

    async def around(request: Request) -> Response | None:
        async def guarded() -> Response | None:
            await guard.check(request)
            return await handler(request)

        if request.method in READING:
            return await _problems(guarded, request)
        fields = request_facts.summary(request)
        status = BROKEN_OFF
        try:
            response = await _problems(guarded, request)
            status = status if response is None else response.status
        finally:
            audit(f"{request.method} {fields['path']}: {status}", {**fields, "status": status})
        return response

    return around


async def _problems(handle: Callable[[], Awaitable[Response | None]], request: Request) -> Response | None:
    """Whatever goes wrong is told as a problem document."""
    try:
        return await handle()
    except Refused as refused:
        return problem(refused)
    except Unmatched as error:
        return problem(Refused(error.status, _detail(error, request), headers=error.fields))
    except ClientGone:
        raise
    except Exception:
        _LOG.exception("%s %s broke off", request.method, request.path[: request_facts.MAX_TEXT])
        return problem(Refused(500, "a bug in the admin server; its log has the details"))


def _detail(error: Unmatched, request: Request) -> str:
    if error.fields:
        return f"{request.method} is not for {request.path[:100]}: GET reads, POST changes"
    return f"there is nothing at {request.path[:100]}; /openapi.json says what there is"
