"""Addresses that nobody reaches by naming them, in every form that stands for them."""

from __future__ import annotations

import pytest

from sidecar.core.closed import is_closed

LOCAL = {"10.0.0.7", "fd00::7"}


def closed(address: str, port: int = 80) -> bool:
    return is_closed(address, port, LOCAL.__contains__, {15000, 15001})


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "169.254.0.1", "169.254.169.254", "168.63.129.16",
        "100.100.100.200", "224.0.0.1", "255.255.255.255",
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["{}", "::ffff:{}", "64:ff9b::{}", "64:ff9b:1::{}", "::{}"])
def test_an_address_of_ipv4_is_closed_in_all_its_forms(address: str, form: str) -> None:
    if form == "::{}" and address in ("0.0.0.0",):
        pytest.skip("that is :: itself")
    assert closed(form.format(address))


@pytest.mark.parametrize(
    "address",
    ["::", "::1", "fe80::1", "fe80::1%eth0", "febf::1", "fd00:ec2::254", "fd20:ce::254", "ff02::1", "2002:7f00:1::",
     "2002:a9fe:a9fe::1", "no address", "", "1.2.3", "0x7f.1", "127.1"],
)  # fmt: skip
def test_what_else_is_closed(address: str) -> None:
    assert closed(address)


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "192.168.1.1", "172.16.0.1", "8.8.8.8", "168.63.129.17", "169.253.1.1", "128.0.0.1", "fd00::1",
     "2001:db8::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "10.0.0.7", "fd00::7", "fec0::1"],
)  # fmt: skip
def test_all_others_are_open(address: str) -> None:
    assert not closed(address)


@pytest.mark.parametrize("address", ["10.0.0.7", "::ffff:10.0.0.7", "64:ff9b::10.0.0.7", "fd00::7"])
def test_our_own_ports_are_closed_at_the_pods_own_addresses_alone(address: str) -> None:
    assert closed(address, 15000)
    assert closed(address, 15001)
    assert not closed(address, 15002)
    assert not closed("10.0.0.8", 15001)
