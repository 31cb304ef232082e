"""Names of the hosts file are found each time, whether there is a nameserver or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.upstream.hosts_file import addresses_in, look_up
from sidecar.upstream.lookup import CaresLookup

TEXT = """\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
10.0.0.7   Orders.shop.svc.  orders # of the pod itself
fd00::7    orders
10.0.0.8   payments #orders
not.an.address orders
fe80::1%eth0 linked

10.0.0.9
"""


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("orders", ["10.0.0.7", "fd00::7"]),
        ("orders.shop.svc", ["10.0.0.7"]),
        ("payments", ["10.0.0.8"]),
        ("linked", ["fe80::1%eth0"]),
        ("10.0.0.9", []),
        ("order", []),
        ("kubernetes-managed", []),
    ],
)
def test_a_name_has_the_addresses_of_its_lines(name: str, addresses: list[str]) -> None:
    assert addresses_in(TEXT, name) == addresses


def test_names_have_no_case_and_may_end_in_a_dot(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_bytes(TEXT.encode() + b"\xff\xfe 10.0.0.1 broken\n")
    assert look_up("ORDERS.", str(file)) == ["10.0.0.7", "fd00::7"]


@pytest.mark.parametrize("name", ["localhost", "app.localhost", "LOCALHOST."])
def test_localhost_is_loopback_without_any_file(tmp_path: Path, name: str) -> None:
    assert look_up(name, str(tmp_path / "missing")) == ["127.0.0.1", "::1"]
    assert look_up("orders", str(tmp_path / "missing")) == []


async def test_the_file_answers_each_time_where_no_nameserver_does() -> None:
    look = CaresLookup(nameservers=["127.0.0.1:1"])
    assert {(await look("localhost")).addresses for _ in range(100)} == {("127.0.0.1",)}
