"""What may be changed over the admin API, each by a POST: overrides, reload, drain, end, log level."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Final

from sidecar.admin import request_facts
from sidecar.admin.answers import Refused, answer, listed
from sidecar.admin.breakers import breakers_of, find_route
from sidecar.admin.process import Ending, Process, Undecided
from sidecar.admin.readings import Readings
from sidecar.admin.request_facts import nearest
from sidecar.core.breaker import Breaker, Override
from sidecar.core.override import Command
from sidecar.core.snapshot import Route, Scope
from sidecar.serving.message import Request, Response
from sidecar.serving.routes import Routes

LEVELS = ("debug", "info", "warning", "error")
OVERRIDE_SECONDS: Final = 30 * 60
"""An override's length unless `for` says another: one that is forgotten does not last for ever."""
EVER: Final = "ever"
"""`for` an override without an end."""
MAX_OVERRIDE_SECONDS: Final = 366 * 86400
"""Beyond it a date may not exist; who wants longer gives no end."""
MAX_BY: Final = 128
"""Characters of `by`."""
_BY: Final = re.compile(f"[!-~]{{1,{MAX_BY}}}")


class Changes:
    """Handlers; the event log entry of each is written in one place, `middleware.py`."""

    def __init__(self, process: Process, readings: Readings) -> None:
        self._process = process
        self._readings = readings

    def add_to(self, routes: Routes) -> None:
        add = routes.post
        for action in Override:
            add(f"/breakers/{{route}}/{action.value}", partial(self._override, action))
        add("/reload", self._reload)
        add("/drain", self._drain)
        add("/quitquitquit", self._quit)
        add("/loglevel", self._log_level)

    async def _override(self, action: Override, request: Request) -> Response:
        """Every breaker of the route's upstreams; one alone with `upstream=`, which may be one that stands in for
        them. With `fleet=true` those of all replicas."""
        process = self._process
        name = request.matched["route"]
        route = find_route(process, name)
        query = request_facts.query(request, "for", "by", "upstream", "fleet")
        seconds = self._seconds(query.get("for"), action)
        by = _whom(query.get("by"), request)
        chosen = _chosen(process, route, query.get("upstream"))
        names = tuple(one.upstream for one in chosen)
        is_for_all = _is_for_all(process, chosen, query.get("fleet"))
        await process.override(Command(name, names, action, seconds, by, is_for_all))
        table = await self._readings.breakers({name})
        rows = [row for row in await table.all_rows() if row["upstream"] in names]
        return await listed({"route": name, "action": action.value}, "breakers", rows)

    def _seconds(self, text: str | None, action: Override) -> float | None:
        if action is Override.AUTO:
            if text is not None:
                raise Refused(400, "`auto` ends an override at once: leave out `for`")
            return None
        if text is None:
            return OVERRIDE_SECONDS
        if text == EVER:
            return None
        try:
            seconds = self._process.seconds(text)
        except ValueError as error:
            raise Refused(400, f"for: {error}") from None
        if seconds <= 0:
            raise Refused(400, f"for: an override of {text} ends before it begins; give a time above zero")
        if seconds > MAX_OVERRIDE_SECONDS:
            raise Refused(400, f"for: at most a year; write `{EVER}` for an override that lasts until `auto`")
        return seconds

    async def _reload(self, request: Request) -> Response:
        request_facts.query(request)
        try:
            outcome = await self._process.reload()
        except RuntimeError as error:
            raise Refused(409, str(error)) from None
        except (Ending, Undecided) as error:
            raise Refused(503, str(error)) from None
        if not outcome["is_success"]:
            raise Refused(422, "the configuration is bad; the one in use stays", **outcome)
        return answer(outcome)

    async def _drain(self, request: Request) -> Response:
        request_facts.query(request)
        self._process.drain()
        return answer({"is_draining": True}, 202)

    async def _quit(self, request: Request) -> Response:
        request_facts.query(request)
        self._process.quit()
        return answer({"is_draining": True, "is_ending": True}, 202)

    async def _log_level(self, request: Request) -> Response:
        level = request_facts.query(request, "level").get("level", "")
        if level not in LEVELS:
            raise Refused(400, f"level={level[:50]}: give one of {', '.join(LEVELS)}")
        await self._process.set_log_level(level)
        return answer({"level": level})


def _whom(text: str | None, request: Request) -> str:
    """Who makes the change: as they say themselves, else where they ask from."""
    if text is None:
        return request_facts.peer(request)
    if not _BY.fullmatch(text):
        what = f"by: say who you are in 1 to {MAX_BY} printable ASCII characters without spaces, such as ada@bastion"
        raise Refused(400, f"{what}; left out, it is the address you ask from")
    return text


def _is_for_all(process: Process, breakers: Sequence[Breaker], text: str | None) -> bool:
    """Whether an override is meant for every replica; none is made where one of them could not be."""
    if text not in (None, "true", "false"):
        raise Refused(400, f"fleet={text[:50]}: true, or leave it out")
    if text != "true":
        return False
    for one in breakers:
        if process.snapshot.share.redis is None or one.policy.scope is not Scope.FLEET:
            what = f"the breaker {one.route}/{one.upstream} acts for this process alone"
            raise Refused(409, f"{what}: give it `circuit_breaker: {{scope: fleet}}`, or leave out `fleet`")
    return True


def _chosen(process: Process, route: Route, upstream: str | None) -> Sequence[Breaker]:
    found = breakers_of(process, route)
    if upstream is None:
        # Not the fallback's: who forces a route open wants the fallback to serve.
        served = {name for name, _ in route.upstreams}
        if not served:
            raise Refused(404, f"route {route.name!r} asks no upstream, so it has no breaker")
        return [one for one in found if one.upstream in served]
    chosen = [one for one in found if one.upstream == upstream]
    if not chosen:
        near = nearest(upstream, (one.upstream for one in found))
        raise Refused(404, f"route {route.name!r} has no upstream {upstream[:100]!r}{near}")
    return chosen
