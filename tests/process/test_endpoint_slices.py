"""A thousand pods that come and go by EndpointSlices, while requests run and none is lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web

from sidecar.kubernetes.api import ApiServer
from tests.scenarios.operator import operator
from tests.support.clean import assert_clean
from tests.support.fake_kubernetes import FakeKubernetes, endpoint, fake_kubernetes, sliced
from tests.support.proxy import port, running
from tests.support.traffic import traffic
from tests.support.web_app import web_app

pytestmark = pytest.mark.process

PODS = 1_000
IN_SLICE = 100


def pod(number: int) -> str:
    return f"127.8.{number // 250}.{number % 250 + 1}"


async def show(kubernetes: FakeKubernetes, pods: set[int], ending: set[int], to: int) -> None:
    """All slices, as the endpoint controller would write them now."""
    every = sorted(pods | ending)
    slices = [every[at : at + IN_SLICE] for at in range(0, len(every), IN_SLICE)]
    await kubernetes.put(
        *(
            sliced(
                f"payments-{number}",
                *(
                    endpoint(pod(one), ready=one in pods, serving=True, terminating=one in ending)
                    for one in numbers
                ),
                port=to,
            )
            for number, numbers in enumerate(slices)
        )
    )
    gone = [name for name in kubernetes.slices if int(name.rpartition("-")[2]) >= len(slices)]
    await kubernetes.remove(*gone)


async def test_a_thousand_pods_come_and_go_and_no_request_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: Counter[str] = Counter()

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        seen[request.transport.get_extra_info("sockname")[0]] += 1
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/{any:.*}", answer)
    rng = random.Random(7)
    async with (
        asyncio.timeout(120),
        fake_kubernetes(tmp_path) as (kubernetes, server),
        web_app(app, "0.0.0.0") as to,
    ):
        monkeypatch.setattr(ApiServer, "of", lambda _: server)
        pods = set(range(PODS))
        await show(kubernetes, pods, set(), to)
        routes = """\
# Where all cores are busy, pods that share this process may take longer to accept than anybody waits by default.
upstreams: {payments: {endpoints: ["kubernetes://payments.shop:http"], timeouts: {connect: 30s}}}
routes: [{name: payments, upstream: payments}]
"""
        async with running(routes) as worker, operator(worker).events() as events:
            (upstream,) = (await operator(worker).get("/upstreams"))["upstreams"]
            assert len(upstream["endpoints"]) == PODS
            async with traffic(port(worker), ["/a"], connections=8, per_second=400) as record:
                for turn in range(8):
                    going = set(rng.sample(sorted(pods), rng.randrange(100, max(len(pods) // 2, 101))))
                    pods -= going
                    await show(kubernetes, pods, going, to)
                    if turn == 3:
                        await kubernetes.compact()
                    if turn == 5:
                        await kubernetes.error(410)
                    back = set(rng.sample(sorted(set(range(PODS)) - pods), 200))
                    pods |= back
                    await show(kubernetes, pods, going - back, to)
                    while True:
                        _, told = await events.next()
                        if told["count"] == len(pods):
                            break
                    wanted = record.requests + 50
                    while True:
                        if record.requests >= wanted:
                            break
                        await asyncio.sleep(0.01)
            assert record.failures == []
            assert record.requests >= 400
            seen.clear()
            async with traffic(port(worker), ["/a"], connections=4, per_second=400) as last:
                while True:
                    if last.requests >= 200:
                        break
                    await asyncio.sleep(0.01)
            assert last.failures == []
            assert set(seen) <= {pod(one) for one in pods}
            await assert_clean(worker)
