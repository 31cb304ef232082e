"""What may be changed over the admin API, each by a POST: overrides, reload, drain, end, log level."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from aiohttp import web

from sidecar.admin import views
from sidecar.admin.answers import Refused, answer, listed
from sidecar.admin.process import Process
from sidecar.core.breaker import Breaker, Override
from sidecar.core.snapshot import Route

LEVELS = ("debug", "info", "warning", "error")


class Changes:
    """Handlers; the event log entry of each is written in one place, `server.py`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_post("/breakers/{route}/{action}", self._override)
        router.add_post("/reload", self._reload)
        router.add_post("/drain", self._drain)
        router.add_post("/quitquitquit", self._quit)
        router.add_post("/loglevel", self._log_level)

    async def _override(self, request: web.Request) -> web.Response:
        """Every breaker of the route's upstreams; one alone with `upstream=`, which may be the fallback's."""
        process = self._process
        name, word = request.match_info["route"], request.match_info["action"]
        route = find_route(process, name)
        action = _action(word)
        seconds = self._seconds(request, action)
        chosen = _chosen(process, route, request.query.get("upstream"))
        now = process.now()
        for breaker in chosen:
            transition = breaker.override(action, now, seconds)
            if transition is not None:
                process.transitioned(transition)
        moment = moment_of(process)
        return await listed(
            {"route": name, "action": word}, "breakers", (views.breaker_row(one, moment) for one in chosen)
        )

    def _seconds(self, request: web.Request, action: Override) -> float | None:
        text = request.query.get("for")
        if text is None:
            return None
        if action is Override.AUTO:
            raise Refused(400, "`auto` ends an override at once: leave out `for`")
        try:
            seconds = self._process.seconds(text)
        except ValueError as error:
            raise Refused(400, f"for: {error}") from None
        if seconds <= 0:
            raise Refused(400, f"for: an override of {text} ends before it begins; give a time above zero")
        return seconds

    async def _reload(self, _request: web.Request) -> web.Response:
        try:
            outcome = await self._process.reload()
        except RuntimeError as error:
            raise Refused(409, str(error)) from None
        if not outcome["is_success"]:
            raise Refused(422, "the configuration is bad; the one in use stays", **outcome)
        return answer(outcome)

    async def _drain(self, _request: web.Request) -> web.Response:
        self._process.drain()
        return answer({"is_draining": True}, 202)

    async def _quit(self, _request: web.Request) -> web.Response:
        self._process.quit()
        return answer({"is_draining": True, "is_ending": True}, 202)

    async def _log_level(self, request: web.Request) -> web.Response:
        level = request.query.get("level", "")
        if level not in LEVELS:
            raise Refused(400, f"level={level[:50]}: give one of {', '.join(LEVELS)}")
        self._process.set_log_level(level)
        return answer({"level": level})


def find_route(process: Process, name: str) -> Route:
    """Raises: Refused, with 404 and the nearest name."""
    routes = process.snapshot.routes
    for route in routes:
        if route.name == name:
            return route
    raise Refused(404, f"there is no route {name[:100]!r}{_nearest(name, (one.name for one in routes))}")


def breakers_of(process: Process, route: Route) -> list[Breaker]:
    """All of a route, its fallback's last."""
    names = dict.fromkeys([name for name, _ in route.upstreams])
    if route.fallback is not None and route.fallback.upstream is not None:
        names[route.fallback.upstream] = None
    breakers = process.breakers
    return [breakers[route.name, name] for name in names if (route.name, name) in breakers]


def moment_of(process: Process) -> views.Moment:
    """Now, on both clocks."""
    now = process.now()
    return views.Moment(now, process.wall_time() - now)


def _action(word: str) -> Override:
    try:
        return Override(word)
    except ValueError:
        known = ", ".join(one.value for one in Override)
        raise Refused(404, f"there is no action {word[:100]!r}: there are {known}") from None


def _chosen(process: Process, route: Route, upstream: str | None) -> Sequence[Breaker]:
    found = breakers_of(process, route)
    if upstream is None:
        # Not the fallback's: who forces a route open wants the fallback to serve.
        served = {name for name, _ in route.upstreams}
        return [one for one in found if one.upstream in served]
    chosen = [one for one in found if one.upstream == upstream]
    if not chosen:
        near = _nearest(upstream, (one.upstream for one in found))
        raise Refused(404, f"route {route.name!r} has no upstream {upstream[:100]!r}{near}")
    return chosen


def _nearest(word: str, words: Iterable[str]) -> str:
    found = difflib.get_close_matches(word[:200], list(words), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
