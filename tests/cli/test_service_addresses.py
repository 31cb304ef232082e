"""`check` inside a cluster: which upstreams are the one address of a Service."""

from __future__ import annotations

import asyncio
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.cli import service_addresses
from sidecar.config.load import load_text
from sidecar.upstream.lookup import CaresLookup
from tests.support.dns import PTR, Reply, dns_server

TEXT = """\
version: 1
upstreams:
  service: {endpoints: ["payments:80"]}
  dual: {endpoints: ["dual.test:80"]}
  headless: {endpoints: ["web.test:80"]}
  one-pod: {endpoints: ["single.test:80"]}
  outside: {endpoints: ["https://api.test"]}
  unknown: {endpoints: ["nobody.test:80"]}
  two: {endpoints: ["payments:80", "dual.test:80"]}
  address: {endpoints: ["10.96.0.1:80"]}
routes: []
"""
REPLIES = {
    "payments": Reply(("10.96.0.1",)),
    "dual.test": Reply(("10.96.0.2", "fd00::2")),
    "web.test": Reply(("10.0.0.1", "10.0.0.2", "10.0.0.3")),
    "single.test": Reply(("10.0.0.4",)),
    "api.test": Reply(("192.0.2.1",)),
    "1.0.96.10.in-addr.arpa": Reply(pointer="payments.shop.svc.cluster.local"),
    "2.0.96.10.in-addr.arpa": Reply(pointer="dual.shop.svc.cluster.local"),
    ip_address("fd00::2").reverse_pointer: Reply(pointer="dual.shop.svc.cluster.local"),
    "4.0.0.10.in-addr.arpa": Reply(pointer="10-0-0-4.single.svc.svc.cluster.local"),
    "1.2.0.192.in-addr.arpa": Reply(pointer="www.api.svc"),
}


async def test_check_warns_of_an_upstream_that_is_a_virtual_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text(TEXT.replace("routes: []", "routes:\n- {name: app, upstream: service}"))
    async with dns_server() as dns:
        dns.replies = REPLIES
        patient = partial(CaresLookup, nameservers=[dns.address], timeout_seconds=0.5, tries=1)
        monkeypatch.setattr(service_addresses, "CaresLookup", patient)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
        assert await asyncio.to_thread(main, ["check", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{file}: ok\n"
    told = (
        "is the address of a Service ({}): one endpoint, however many pods are behind it, so none of them can be "
        "ejected; a headless Service (`clusterIP: None`) or `kubernetes://` names them"
    )
    assert err.splitlines() == [
        f"{file}: warning: upstreams.service.endpoints: payments {told.format('10.96.0.1')}",
        f"{file}: warning: upstreams.dual.endpoints: dual.test {told.format('10.96.0.2')}",
    ]


async def test_nothing_is_asked_outside_of_a_cluster() -> None:
    snapshot = load_text(TEXT).snapshot
    async with dns_server() as dns:
        dns.replies = REPLIES
        lookup = CaresLookup(nameservers=[dns.address])
        assert await asyncio.to_thread(list, service_addresses.virtual_addresses(snapshot, {}, lookup)) == []
        assert dns.questions == []


async def test_a_nameserver_that_is_silent_holds_check_up_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service_addresses, "PATIENCE_SECONDS", 0.2)
    snapshot = load_text(TEXT).snapshot
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    async with dns_server() as dns:
        dns.replies = {**REPLIES, "payments": Reply(is_silent=True)}
        lookup = CaresLookup(nameservers=[dns.address], timeout_seconds=60.0, tries=1)
        found = await asyncio.to_thread(list, service_addresses.virtual_addresses(snapshot, environ, lookup))
        assert all(one.key == "upstreams.dual.endpoints" for one in found)
        assert dns.count("1.0.96.10.in-addr.arpa", PTR) == 0
