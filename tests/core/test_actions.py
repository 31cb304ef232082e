"""The pure parts of routing actions, against whatever a client may write."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.actions.cors import Cors
from sidecar.core.actions.fields import encoded
from sidecar.core.actions.networks import Clients, Networks, read_address
from sidecar.core.actions.policy import ClientPolicy, CorsPolicy, RedirectPolicy
from sidecar.core.actions.redirect import Redirect
from sidecar.core.actions.rewrite import with_path, with_prefix
from sidecar.core.actions.template import Template, Variable, value_of
from sidecar.core.snapshot import HeaderOps

PIECES = [
    b"/", b"//", b"a", b"..", b".", b"%2e%2e", b"%2F", b"\\", b"@", b":", b"evil.test", b"?", b"http:", b"%0d%0a",
    b";x", b"#", b"'", b'"', b"<", b"\x7f", b"\xff", b"%",
]  # fmt: skip
targets = st.lists(st.sampled_from(PIECES), max_size=8).map(lambda parts: b"/" + b"".join(parts))
paths = st.from_regex(r"(/[a-z.]{1,4}){1,3}/?|/", fullmatch=True)


@given(
    target=targets,
    port=st.sampled_from(["", ":81"]),
    path=st.none() | paths,
    prefix=st.none() | paths,
    is_tls=st.booleans(),
    scheme=st.sampled_from([None, "http", "https"]),
    matched=st.integers(0, 4),
)
def test_a_redirect_leads_to_no_other_host_than_that_of_the_route_or_the_request(
    target: bytes,
    port: str,
    path: str | None,
    prefix: str | None,
    is_tls: bool,
    scheme: str | None,
    matched: int,
) -> None:
    for host in (None, "route.test"):
        redirect = Redirect(RedirectPolicy(host=host, path=path, prefix=prefix, scheme=scheme))
        found = redirect.location(target, b"asked.test" + port.encode(), matched, is_tls=is_tls)
        assert re.fullmatch(rb"[!-~]+", found)
        assert not set(b'"<>\\^`{|}#') & set(found)
        parts = urlsplit(found.decode())
        assert parts.hostname == (host or "asked.test")
        assert parts.scheme == (scheme or ("https" if is_tls else "http"))
        assert parts.username is None
        assert parts.path.startswith("/")


@given(target=targets)
def test_a_redirect_without_a_host_stays_on_this_one(target: bytes) -> None:
    found = Redirect(RedirectPolicy(port=81)).location(target, b"", 0, is_tls=False)
    assert found.startswith(b"/")
    assert not found.startswith((b"//", b"/\\"))


@given(target=targets, prefix=paths, rest=st.binary(max_size=8))
def test_a_rewritten_prefix_stands_before_the_rest_as_it_came(
    target: bytes, prefix: str, rest: bytes
) -> None:
    changed = with_prefix(b"/old" + target + rest, prefix.encode(), 4)
    assert changed == prefix.rstrip("/").encode() + target + rest
    assert with_prefix(b"*", prefix.encode(), 0) == b"*"


@given(target=targets, path=paths)
def test_a_rewritten_path_is_the_one_of_the_route_and_the_query_stays(target: bytes, path: str) -> None:
    changed = with_path(target, path.encode())
    query = target.partition(b"?")
    assert changed == path.encode() + query[1] + query[2]


@given(st.binary(max_size=40))
def test_a_filled_in_value_has_no_byte_that_could_end_it(value: bytes) -> None:
    assert re.fullmatch(rb"[ -~]*", encoded(value))


@given(
    allow=st.lists(st.ip_addresses(v=4), max_size=3),
    deny=st.lists(st.ip_addresses(v=4), max_size=3),
    bits=st.integers(0, 32),
    address=st.ip_addresses(v=4),
    is_mapped=st.booleans(),
)
def test_networks_say_what_the_standard_library_says(
    allow: list[object], deny: list[object], bits: int, address: object, is_mapped: bool
) -> None:
    allowed = [str(ip_network(f"{one}/{bits}", strict=False)) for one in allow]
    denied = [str(ip_network(f"{one}/{bits}", strict=False)) for one in deny]
    clients = Clients(ClientPolicy(tuple(allowed), tuple(denied)))
    text = f"::ffff:{address}" if is_mapped else str(address)
    found = ip_address(str(address))
    wanted = (not allowed or any(found in ip_network(one) for one in allowed)) and not any(
        found in ip_network(one) for one in denied
    )
    assert clients.serves(clients.address((text, 1), {})) is wanted


@given(one=st.ip_addresses(v=6), bits=st.integers(0, 128), other=st.ip_addresses(v=6))
def test_networks_of_ipv6_do_too(one: object, bits: int, other: object) -> None:
    network = ip_network(f"{one}/{bits}", strict=False)
    address = ip_address(str(other))
    if getattr(address, "ipv4_mapped", None) is None:
        assert Networks([str(network)]).holds(address) is (address in network)


@pytest.mark.parametrize(
    "policy", [ClientPolicy(allow=("0.0.0.0/0", "::/0")), ClientPolicy(deny=("10.0.0.0/8",))]
)
def test_a_client_without_an_address_is_refused_wherever_there_is_a_list(policy: ClientPolicy) -> None:
    clients = Clients(policy)
    assert clients.address(None, {}) is None
    assert clients.address(("/run/app.sock", 0), {}) is None
    assert not clients.serves(None)
    assert Clients(ClientPolicy()).serves(None)


def test_a_zone_is_no_part_of_an_address() -> None:
    assert Clients(ClientPolicy()).address(("fe80::1%eth0", 1), {}) == "fe80::1"


@given(origin=st.text(max_size=30).map(lambda text: text.encode()))
def test_no_text_is_an_origin_below_a_name_but_one(origin: bytes) -> None:
    cors = Cors(CorsPolicy(("https://*.shop.test",)))
    tried = b"https://" + origin + b".shop.test"
    if cors.allows(tried):
        host = urlsplit(tried.decode()).hostname
        assert host is not None
        assert host.endswith(".shop.test")
        assert urlsplit(tried.decode()).path == ""


names = st.sampled_from([b"a", b"b", b"c"])
pairs = st.lists(st.tuples(names, st.sampled_from([b"1", b"2"])), max_size=2, unique_by=lambda pair: pair[0])
ops = st.builds(
    HeaderOps, set=pairs.map(tuple), add=pairs.map(tuple), remove=st.frozensets(st.sampled_from([b"a", b"b"]))
)
Pairs = list[tuple[bytes, bytes]]


def applied(fields: Pairs, change: HeaderOps) -> Pairs:
    """As a reader would do it: remove, set, add."""
    gone = change.remove | {name for name, _ in change.set}
    kept = [pair for pair in fields if pair[0] not in gone]
    return kept + [pair for pair in (*change.set, *change.add) if isinstance(pair[1], bytes)]  # type: ignore[misc]


@given(
    first=ops,
    second=ops,
    fields=st.lists(st.tuples(st.sampled_from([b"a", b"b", b"d"]), st.just(b"0")), max_size=3),
)
def test_two_changes_joined_do_what_one_after_the_other_does(
    first: HeaderOps, second: HeaderOps, fields: Pairs
) -> None:
    assert sorted(applied(fields, first.then(second))) == sorted(applied(applied(fields, first), second))


def test_a_value_is_bytes_unless_it_has_a_variable() -> None:
    assert value_of("a") == b"a"
    assert value_of("a\0request.id\0b") == Template((b"a", Variable("request.id"), b"b"))
    assert str(value_of("a\0request.header.X-A\0")) == "a${request.header.x-a}"
    with pytest.raises(
        ValueError, match=r"there is no variable \$\{request\.ip\}: known are client\.address, "
    ):
        value_of("\0request.ip\0")


def test_a_text_that_is_too_long_for_an_address_is_none_and_is_not_remembered() -> None:
    clients = Clients(ClientPolicy(allow=("10.0.0.0/8",), forwarded_hops=1))
    known = read_address.cache_info().currsize
    for length in range(70, 90):
        assert clients.address(None, {b"x-forwarded-for": b"1" * length}) is None
    assert read_address.cache_info().currsize == known
