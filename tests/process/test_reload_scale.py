"""A thousand routes: one of them changes, and it alone. How long that takes is for `tests/bench/reload.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.reload import ROUTES_OF_HEARTBEAT, many_routes
from tests.support.ports import free_ports
from tests.support.process import http_get, sidecar
from tests.support.traffic import traffic
from tests.support.upstream import answering, scripted

pytestmark = pytest.mark.process

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_a_change_of_one_route_in_a_thousand_is_live_and_nobody_notices(tmp_path: Path) -> None:
    inbound, probes = free_ports(2)
    file = tmp_path / "many.yaml"
    async with scripted(answering(OK)) as app:
        text = many_routes().replace(
            "listeners: {inbound: {address: '127.0.0.1:0'}}",
            f"""\
listeners: {{inbound: {{address: '127.0.0.1:{inbound}'}}}}
drain: {{delay: 0s}}""",
        )
        text = text.replace("probes: {address: '127.0.0.1:0'}", f"probes: {{address: '127.0.0.1:{probes}'}}")
        text = text.replace("127.0.0.1:10000'", f"127.0.0.1:{app.port}'").replace("*.h0.svc", "x")
        text = text.replace("format: 'off'", "format: json")
        file.write_text(text)
        log = tmp_path / "log"
        async with (
            sidecar(file, probes, log) as running,
            traffic(inbound, ["/v0"], connections=4, per_second=100) as record,
        ):
            file.write_text(
                text.replace("upstream: u7,", "upstream: u7, fallback: {status: 299, body: new},")
            )
            told = await running.logged('"kind":"config.reload"')
            assert (await http_get(inbound, "/v7", host="h7.example"))[0] == 299
        assert record.failures == []
        assert record.requests > 0
    (reload,) = (json.loads(line) for line in told.splitlines() if '"kind":"config.reload"' in line)
    assert reload["routes"] == {"added": 0, "removed": 0, "changed": 1}
    assert reload["breakers"] == {"kept": ROUTES_OF_HEARTBEAT, "reset": 0}
