"""Hosts in one form, and those that have none."""

from __future__ import annotations

import pytest

from sidecar.config.load import load_text
from sidecar.core.hosts import is_valid_host, normal_host, normal_pattern, pattern_port
from sidecar.core.routing import RoutingTable


@pytest.mark.parametrize(
    ("written", "form"),
    [
        (b"internal.svc", b"internal.svc"),
        (b"INTERNAL.svc", b"internal.svc"),
        (b"internal.svc.", b"internal.svc"),
        (b"internal.svc..", b"internal.svc"),
        (b"internal.svc..:80", b"internal.svc"),
        (b"internal.svc:", b"internal.svc"),
        (b"10.0.0.1", b"10.0.0.1"),
        (b"10.0.0.1.:8080", b"10.0.0.1"),
        (b"[::1]", b"::1"),
        (b"[::1]:80", b"::1"),
        (b"[0:0:0:0:0:0:0:1]", b"::1"),
        (b"[0000:0000::0001]:443", b"::1"),
        (b"[2001:DB8::A]", b"2001:db8::a"),
        (b"[::ffff:10.0.0.1]", b"10.0.0.1"),
        (b"[::ffff:a00:1]", b"10.0.0.1"),
    ],
)
def test_a_host_has_one_form(written: bytes, form: bytes) -> None:
    assert is_valid_host(written)
    assert normal_host(written) == form


@pytest.mark.parametrize(
    "host",
    [
        b"010.0.0.1", b"10.0.0.01", b"127.1", b"2130706433", b"0x7f.0.0.1", b"0x7f000001", b"10.0.0.256",
        b"10.0.0.1.1", b"1.2.3", b"a.1", b"0x", b"127.1.", b"[::1", b"[1]", b"[:::1]", b"[::1%25eth0]",
        b"[1:2:3:4:5:6:7:8:9]", b"[]", b"", b":80", b"a:65536", b"a b", b"a/b", b"a@b", b"a,b", b"a%2eb",
    ],
)  # fmt: skip
def test_a_host_that_is_read_in_several_ways_is_none(host: bytes) -> None:
    assert not is_valid_host(host)


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("app", ("app", None)),
        ("app:80", ("app", 80)),
        ("app:99999", ("app", 99999)),
        ("[::1]:80", ("[::1]", 80)),
        ("[::1]", ("[::1]", None)),
        ("::1", ("::1", None)),
        ("app:", ("app:", None)),
        ("app:\N{SUPERSCRIPT TWO}", ("app:\N{SUPERSCRIPT TWO}", None)),
        ("app:\N{ARABIC-INDIC DIGIT FOUR}", ("app:\N{ARABIC-INDIC DIGIT FOUR}", None)),
        ("app:" + "9" * 5000, ("app:" + "9" * 5000, None)),
    ],
)
def test_a_port_behind_a_host_is_a_number_that_can_be_read(
    written: str, parts: tuple[str, int | None]
) -> None:
    assert pattern_port(written) == parts


@pytest.mark.parametrize("host", [b"app-1", b"1.app", b"x1", b"0xg.app", b"a.0xg", b"web.1.abc", b"a_b~c.d"])
def test_a_number_elsewhere_makes_no_address(host: bytes) -> None:
    assert is_valid_host(host)


@pytest.mark.parametrize(
    ("pattern", "form"),
    [
        ("Payments.svc.", b"payments.svc"),
        ("*.payments.SVC", b"*.payments.svc"),
        ("[0:0:0:0:0:0:0:1]", b"::1"),
        ("::1", b"::1"),
        ("10.0.0.1", b"10.0.0.1"),
    ],
)
def test_a_configuration_is_brought_to_the_same_form(pattern: str, form: bytes) -> None:
    assert normal_pattern(pattern) == form


@pytest.mark.parametrize(
    ("written", "hosts"),
    [
        ("internal.svc", [b"internal.svc..", b"INTERNAL.SVC.:80", b"internal.svc"]),
        ('"*.svc"', [b"a.svc..", b"A.Svc:1"]),
        ('"[::1]"', [b"[0:0:0:0:0:0:0:1]:80", b"[::0.0.0.1]"]),
        ("10.0.0.1", [b"[::ffff:10.0.0.1]", b"10.0.0.1."]),
    ],
)
def test_no_spelling_of_a_host_slips_past_its_route(written: str, hosts: list[bytes]) -> None:
    text = (
        "version: 1\nupstreams: {a: {endpoints: ['a:1']}}\n"
        f"routes: [{{name: own, upstream: a, match: {{hosts: [{written}]}}}}, {{name: rest, upstream: a}}]\n"
    )
    table = RoutingTable([(route, route.name) for route in load_text(text).snapshot.routes])
    for host in hosts:
        assert table.find(host, b"/", b"GET", {}, b"") == "own", host
