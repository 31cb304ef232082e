"""A running sidecar tells no secret: not in its log, not on its admin API, not in an export that fails."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.process.setting import ended
from tests.scenarios.operator import Operator
from tests.support.ports import free_ports
from tests.support.process import http_get, sidecar
from tests.support.raw import raw_upstream

pytestmark = pytest.mark.process

RESOURCES = "status", "routes", "breakers", "breakers/app", "upstreams", "config", "metrics", "loglevel"
FILE = """\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}", trace_url: "http://ann:hush-url@j/{{trace_id}}"}}
drain: {{delay: 0s}}
telemetry:
  traces: {{sample_ratio: 100%}}
  otlp:
    endpoint: "http://ann:hush-url@127.0.0.1:{nobody}"
    protocol: http/protobuf
    headers: {{x-honeycomb-team: "${{HUSH}}"}}
upstreams: {{app: {{endpoints: ["127.0.0.1:{app}"]}}}}
routes:
- name: app
  upstream: app
  request_headers: {{set: {{authorization: "Bearer ${{HUSH}}", x-a: "${{HUSH}}-a"}}}}
- {{name: keyed, match: {{headers: {{x-api-key: "${{HUSH}}-key"}}}}, upstream: app}}
"""


async def test_nothing_that_it_tells_holds_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSH", "hush-environment")
    inbound, probes, admin, nobody = free_ports(4)
    file, log = tmp_path / "sidecar.yaml", tmp_path / "log"
    async with raw_upstream() as app:
        text = FILE.format(inbound=inbound, probes=probes, admin=admin, nobody=nobody, app=app.port)
        file.write_text(text)
        async with sidecar(file, probes, log) as running:
            sent = "authorization: Bearer hush-request\r\ncookie: a=hush-cookie\r\n"
            assert (await http_get(inbound, "/?page=1&access_token=hush-query", sent))[0] == 200
            await running.logged('"kind":"access"')
            told = [(await Operator(admin).send("GET", f"/{name}")).body.decode() for name in RESOURCES]
            file.write_text(text.replace("drain: {delay: 0s}", "drain: {delay: '${HUSH}'}"))
            await running.logged("configuration rejected")
            told.append((await Operator(admin).send("GET", "/config")).body.decode())
            file.write_text(text.replace("${HUSH}-a", "${HUSH}-b").replace("${HUSH}-key", "${HUSH}-lock"))
            await running.logged("request_headers.set")
            told.append((await Operator(admin).send("GET", "/config")).body.decode())
            running.process.send_signal(signal.SIGTERM)
            assert await running.ended() == 0
    assert app.requests[0].value(b"authorization") == b"Bearer hush-environment"
    assert "page=1&access_token=REDACTED" in log.read_text()
    for text in [*told, log.read_text()]:
        assert "hush" not in text


async def test_an_admin_api_that_others_can_reach_needs_a_token_to_start(tmp_path: Path) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text(
        "version: 1\nadmin: {address: '0.0.0.0:15000'}\nupstreams: {app: {endpoints: ['a:1']}}\nroutes: []\n"
    )
    code, output, errors = await ended(file)
    assert (code, output) == (2, "")
    assert (
        "sidecar.yaml:2:18: the admin API may change state: at 0.0.0.0:15000 it needs a `token_file`"
        in errors
    )
    assert "Traceback" not in errors
