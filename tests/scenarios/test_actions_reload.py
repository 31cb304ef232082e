"""A changed action acts from the next request on, and what it does not touch stays as it is."""

from __future__ import annotations

from sidecar.config.load import load_text
from tests.scenarios.acting import Acting, acting
from tests.scenarios.stage import OK, hang, saying
from tests.support.proxy import HEADER
from tests.support.raw import raw_client

FIRST = "- {name: app, upstream: app, request_headers: {set: {x-a: '${request.method}'}}}"


async def reload(to: Acting, routes: str) -> None:
    """Put another configuration in place."""
    upstreams = ", ".join(f'{name}: {{endpoints: ["127.0.0.1:{to.app.port}"]}}' for name in ("app", "other"))
    snapshot = load_text(f"{HEADER}upstreams: {{{upstreams}}}\nroutes:\n{routes}\n").snapshot
    await to.worker.control.active.install(snapshot)


async def test_a_route_may_become_a_redirect_and_an_upstreams_again_and_its_breaker_begins_anew() -> None:
    async with acting(FIRST, saying(OK)) as to:
        assert (await to.ask("1.1")).status == 200
        breaker = to.worker.assembly.breakers["app", "app"]
        await reload(to, "- {name: app, redirect: {scheme: https}}")
        assert (await to.ask("1.1")).status == 302
        assert to.worker.assembly.breakers == {}
        await reload(to, FIRST)
        assert (await to.ask("1.1")).status == 200
        assert to.worker.assembly.breakers["app", "app"] is not breaker


async def test_changed_actions_keep_the_breaker() -> None:
    async with acting(FIRST, saying(OK)) as to:
        await to.ask("1.1")
        breaker = to.worker.assembly.breakers["app", "app"]
        weights = "weights: {app: {weight: 1, request_headers: {set: {x-a: share}}}, other: 0}"
        for actions, status, field in (
            ("upstream: app, clients: {deny: [127.0.0.1]}", 403, None),
            ("upstream: app, request_headers: {set: {x-a: '${route.name}'}}", 200, b"app"),
            (weights, 200, b"share"),
            ("upstream: app, max_request_body: 1KiB", 200, None),
        ):
            await reload(to, f"- {{name: app, {actions}}}")
            count = len(to.requests)
            assert (await to.ask("1.1")).status == status
            if status == 200:
                assert to.requests[count].value(b"x-a") == field
            assert to.worker.assembly.breakers["app", "app"] is breaker


async def test_a_request_that_is_under_way_keeps_the_limit_that_it_began_with() -> None:
    first = "- {name: app, upstream: app, max_request_body: 1KiB}"
    async with acting(first, hang) as to, raw_client(to.port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.send(b"200\r\n%b\r\n" % (b"x" * 512))
        await reload(to, "- {name: app, upstream: app, max_request_body: 1MiB}")
        await client.send(b"300\r\n%b\r\n" % (b"x" * 768))
        (response,) = await client.responses([b"POST"])
        assert response.status == 413
