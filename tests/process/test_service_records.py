"""`srv://` against unbound: priorities, weights and hosts that come and go, while requests run and none is lost."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

from tests.process.setting import written
from tests.support.process import Running, admin, sidecar
from tests.support.traffic import Traffic, traffic
from tests.support.unbound import find, unbound
from tests.support.web_app import web_app

pytestmark = pytest.mark.process

NAME = "_http._tcp.payments.test."


def skip_without_tools() -> None:
    missing = [name for name in ("unbound", "unbound-control") if find(name) is None]
    if os.geteuid() or missing or shutil.which("unshare") is None:
        pytest.skip(
            f"a sidecar with a nameserver of its own takes root, unshare and {', '.join(missing) or 'mount'}"
        )


def host(number: int) -> str:
    return f"127.7.{number // 250}.{number % 250 + 1}"


def records(priority: int, numbers: range, port: int, weight: int = 1) -> list[str]:
    return [
        line
        for number in numbers
        for line in (
            f"{NAME} 1 IN SRV {priority} {weight} {port} pod-{number}.payments.test.",
            f"pod-{number}.payments.test. 1 IN A {host(number)}",
        )
    ]


async def addresses(admin_port: int) -> set[str]:
    _, text = await admin(admin_port, "GET", "/upstreams")
    (upstream,) = json.loads(text)["upstreams"]
    return {one["address"] for one in upstream["endpoints"]}


async def until(admin_port: int, wanted: set[str]) -> None:
    while True:
        if await addresses(admin_port) == wanted:
            return
        await asyncio.sleep(0.1)


async def more(record: Traffic, count: int) -> None:
    """Wait for so many further requests."""
    wanted = record.requests + count
    while True:
        if record.requests >= wanted:
            return
        await asyncio.sleep(0.05)


async def test_hosts_come_and_go_and_no_request_is_lost(tmp_path: Path) -> None:
    skip_without_tools()
    seen: set[str] = set()

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        seen.add(request.transport.get_extra_info("sockname")[0])
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/{any:.*}", answer)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(unbound(tmp_path))
        runner_port = await enter(web_app(app, "0.0.0.0"))
        file, inbound, probes = written(tmp_path, 1)
        text = file.read_text().replace('"127.0.0.1:1"', f'"srv://{NAME}"')
        file.write_text(text)
        admin_port = int(text.split('admin: {address: "127.0.0.1:')[1].split('"')[0])
        resolv_conf = tmp_path / "resolv.conf"
        resolv_conf.write_text(f"nameserver {server.address}\n")
        many = range(1_000)
        await server.replace([], records(0, many[:500], runner_port) + records(1, many[500:510], runner_port))
        command = ("-m", "tests.process.own_nameserver", str(resolv_conf))
        process: Running = await enter(sidecar(file, probes, tmp_path / "sidecar.log", command))
        await until(admin_port, {f"{host(n)}:{runner_port}" for n in many[:510]})
        async with traffic(inbound, ["/a"], connections=8, per_second=200) as record:
            await more(record, 100)
            assert seen <= {host(n) for n in many[:500]}  # the reserve is not asked
            # Then half of the pods go, as many come, and then the reserve is all there is.
            for begin, end in ((250, 750), (0, 1_000), (990, 1_000)):
                gone = [NAME, *(f"pod-{number}.payments.test." for number in many)]
                await server.replace(gone, records(0, many[begin:end], runner_port))
                await until(admin_port, {f"{host(n)}:{runner_port}" for n in many[begin:end]})
                await more(record, 100)
            seen.clear()
            await more(record, 200)
        assert record.failures == []
        assert seen == {host(n) for n in range(990, 1_000)}
        assert "Traceback" not in process.log.read_text()
