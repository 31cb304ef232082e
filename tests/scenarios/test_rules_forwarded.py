"""What an upstream is told of its client: `listeners.X.forwarded` and its four values (SPEC 4, RFC 7239)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from tests.scenarios.stage import app_routes, get, inbound, stage
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawClient, Request, raw_client, raw_upstream

WAYS = pytest.mark.parametrize("is_bytewise", [False, True], ids=["whole", "bytewise"])
FIELDS = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded")
FROM_CLIENT = (
    b"X-Forwarded-For: 203.0.113.7, 198.51.100.2", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: shop.example",
    b"Forwarded: for=192.0.2.43;proto=https",
)  # fmt: skip
Told = dict[bytes, list[bytes]]
"""The elements of each of `FIELDS` in order, those of several lines joined (RFC 9110 5.3)."""


def told(request: Request) -> Told:
    return {
        name: [part.strip() for value in request.values(name) for part in value.split(b",")]
        for name in FIELDS
        if request.values(name)
    }


def element(text: bytes) -> dict[bytes, bytes]:
    """The pairs of one element of `Forwarded`, values as they are written, with their quotes."""
    pairs = [pair.partition(b"=") for pair in text.split(b";")]
    return {name.lower(): value for name, _, value in pairs}


async def told_with(header: str, data: bytes, *, is_bytewise: bool = False, route: str = "") -> Told:
    """What the app is told of the client that sends `data`."""
    async with stage(header=header, route=route) as to, raw_client(to.port) as client:
        await client.send(data, is_bytewise=is_bytewise)
        (answer,) = await client.responses([data.split(b" ", 1)[0]])
        assert answer.status == 200
        return told(to.requests[0])


ALONE = {b"x-forwarded-for": [b"127.0.0.1"], b"x-forwarded-proto": [b"http"], b"x-forwarded-host": [b"x"]}
CAME = {
    b"x-forwarded-for": [b"203.0.113.7", b"198.51.100.2"],
    b"x-forwarded-proto": [b"https"],
    b"x-forwarded-host": [b"shop.example"],
    b"forwarded": [b"for=192.0.2.43;proto=https"],
}
INBOUND = {
    "default": HEADER,
    "append": inbound("forwarded: append"),
    "append-for-strangers": inbound("trust: none, forwarded: append"),
}
SET = {"set": inbound("forwarded: set"), "strangers": inbound("trust: none")}


@WAYS
@pytest.mark.parametrize("header", [*INBOUND.values(), *SET.values()], ids=[*INBOUND, *SET])
async def test_an_app_sees_who_its_client_is(header: str, is_bytewise: bool) -> None:
    assert await told_with(header, get(), is_bytewise=is_bytewise) == ALONE


@WAYS
@pytest.mark.parametrize("header", INBOUND.values(), ids=INBOUND)
async def test_append_adds_the_peer_and_fills_in_only_what_is_missing(header: str, is_bytewise: bool) -> None:
    found = await told_with(header, get(b"/", *FROM_CLIENT), is_bytewise=is_bytewise)
    first, last = found.pop(b"forwarded")
    assert found == {
        b"x-forwarded-for": [b"203.0.113.7", b"198.51.100.2", b"127.0.0.1"],
        b"x-forwarded-proto": [b"https"],
        b"x-forwarded-host": [b"shop.example"],
    }
    assert first == b"for=192.0.2.43;proto=https"
    ours = element(last)
    assert (ours[b"for"], ours.get(b"proto", b"http"), ours.get(b"host", b"x")) == (
        b"127.0.0.1",
        b"http",
        b"x",
    )


@WAYS
async def test_append_goes_behind_all_lines_of_a_field(is_bytewise: bool) -> None:
    lines = (
        b"X-Forwarded-For: 203.0.113.7",
        b"X-Forwarded-For: 198.51.100.2",
        b"Forwarded: for=a",
        b"Forwarded: for=b",
    )
    found = await told_with(HEADER, get(b"/", *lines), is_bytewise=is_bytewise)
    assert found[b"x-forwarded-for"] == [b"203.0.113.7", b"198.51.100.2", b"127.0.0.1"]
    assert found[b"forwarded"][:2] == [b"for=a", b"for=b"]
    assert element(found[b"forwarded"][2])[b"for"] == b"127.0.0.1"


@pytest.mark.parametrize("line", FROM_CLIENT[:3])
async def test_each_field_is_filled_in_by_itself(line: bytes) -> None:
    name = line.split(b":")[0].lower()
    came = CAME[name] + ([b"127.0.0.1"] if name == b"x-forwarded-for" else [])
    assert await told_with(HEADER, get(b"/", line)) == ALONE | {name: came}


@WAYS
@pytest.mark.parametrize("header", SET.values(), ids=SET)
async def test_set_believes_nothing_that_a_client_says_of_itself(header: str, is_bytewise: bool) -> None:
    assert await told_with(header, get(b"/", *FROM_CLIENT), is_bytewise=is_bytewise) == ALONE


@WAYS
async def test_keep_passes_on_what_came_and_adds_nothing(is_bytewise: bool) -> None:
    header = inbound("forwarded: keep")
    assert await told_with(header, get(), is_bytewise=is_bytewise) == {}
    assert await told_with(header, get(b"/", *FROM_CLIENT), is_bytewise=is_bytewise) == CAME


@WAYS
async def test_off_drops_what_came_and_adds_nothing(is_bytewise: bool) -> None:
    header = inbound("forwarded: off")
    assert await told_with(header, get(), is_bytewise=is_bytewise) == {}
    assert await told_with(header, get(b"/", *FROM_CLIENT), is_bytewise=is_bytewise) == {}


@pytest.mark.parametrize("lines", [(), FROM_CLIENT], ids=["none", "some"])
async def test_the_calls_of_the_app_go_out_as_it_wrote_them(lines: tuple[bytes, ...]) -> None:
    async with raw_upstream() as app, running(app_routes(app.port, route="listener: outbound")) as worker:
        async with raw_client(port(worker, "outbound")) as client:
            await client.send(get(b"/", *lines))
            await client.responses([b"GET"])
        assert told(app.requests[0]) == (CAME if lines else {})


async def test_an_outbound_listener_that_shall_say_it_says_it() -> None:
    header = HEADER.replace(
        'outbound: {address: "127.0.0.1:0"}', 'outbound: {address: "127.0.0.1:0", forwarded: append}'
    )
    async with (
        raw_upstream() as app,
        running(app_routes(app.port, route="listener: outbound"), header) as worker,
    ):
        async with raw_client(port(worker, "outbound")) as client:
            await client.send(get())
            await client.responses([b"GET"])
        assert told(app.requests[0]) == ALONE


# Lies and odd requests


@WAYS
@pytest.mark.parametrize("header", [HEADER, inbound("trust: none")], ids=["append", "set"])
async def test_connection_cannot_name_these_fields_away(header: str, is_bytewise: bool) -> None:
    """`Connection` names what ends at this hop (RFC 9110 7.6.1), and what we say is said behind it."""
    nominated = b"Connection: " + b", ".join((b"X-Forwarded-For", b"X-Forwarded-Proto", b"x-forwarded-host"))
    found = await told_with(header, get(b"/", nominated, *FROM_CLIENT[:3]), is_bytewise=is_bytewise)
    assert found[b"x-forwarded-for"][-1] == b"127.0.0.1"
    assert found.keys() >= ALONE.keys()


async def test_the_host_that_is_told_is_the_one_that_the_client_asked_for() -> None:
    found = await told_with(HEADER, get(), route="rewrite: {host: payments.internal}")
    assert found[b"x-forwarded-host"] == [b"x"]


async def test_a_target_with_a_host_wins_over_the_field() -> None:
    found = await told_with(HEADER, get(b"http://a.example:81/"))
    assert found[b"x-forwarded-host"] == [b"a.example:81"]


@pytest.mark.parametrize("mode", ["append", "set"])
async def test_a_request_without_host_tells_of_none(mode: str) -> None:
    found = await told_with(inbound(f"forwarded: {mode}"), b"GET / HTTP/1.0\r\n\r\n")
    assert found == {b"x-forwarded-for": [b"127.0.0.1"], b"x-forwarded-proto": [b"http"]}


async def test_a_host_with_a_port_is_quoted_in_forwarded() -> None:
    """A colon is in no token (RFC 7239 4)."""
    data = b"GET / HTTP/1.1\r\nHost: x:8080\r\nForwarded: for=a\r\n\r\n"
    found = await told_with(HEADER, data)
    assert element(found[b"forwarded"][1]).get(b"host", b'"x:8080"') == b'"x:8080"'
    assert found[b"x-forwarded-host"] == [b"x:8080"]


async def test_an_upgrade_tells_of_its_client_too() -> None:
    data = get(b"/", b"Connection: Upgrade", b"Upgrade: websocket", FROM_CLIENT[0])
    found = await told_with(HEADER, data)
    assert found[b"x-forwarded-for"] == [*CAME[b"x-forwarded-for"], b"127.0.0.1"]


async def test_each_request_of_a_connection_is_told_of_once() -> None:
    async with stage() as to:
        await to.ask_all(get(b"/", FROM_CLIENT[0]) * 3 + get() * 2, [b"GET"] * 5)
        assert [told(request)[b"x-forwarded-for"] for request in to.requests] == [
            *[[*CAME[b"x-forwarded-for"], b"127.0.0.1"]] * 3,
            *[[b"127.0.0.1"]] * 2,
        ]


async def test_what_a_route_sets_wins() -> None:
    route = "request_headers: {set: {x-forwarded-proto: https}, remove: [x-forwarded-host]}"
    found = await told_with(HEADER, get(), route=route)
    assert found == {b"x-forwarded-for": [b"127.0.0.1"], b"x-forwarded-proto": [b"https"]}


# Peers that are no IPv4 address

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def asked(connecting: Awaitable[Streams], lines: tuple[bytes, ...]) -> None:
    reader, writer = await connecting
    client = RawClient(reader, writer)
    await client.send(get(b"/", *lines))
    (answer,) = await client.responses([b"GET"])
    assert answer.status == 200
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("mode", ["append", "set"])
async def test_an_ipv6_peer_is_bare_in_one_field_and_quoted_in_the_other(mode: str) -> None:
    """RFC 7239 6: an IPv6 address stands in brackets, and those in quotes."""
    header = inbound(f"forwarded: {mode}").replace(
        'inbound: {address: "127.0.0.1:0"', 'inbound: {address: "[::1]:0"'
    )
    async with raw_upstream() as app, running(app_routes(app.port), header) as worker:
        await asked(asyncio.open_connection("::1", port(worker)), (b"Forwarded: for=a",))
        found = told(app.requests[0])
        assert found[b"x-forwarded-for"] == [b"::1"]
        if mode == "append":
            assert found[b"forwarded"][0] == b"for=a"
            assert element(found[b"forwarded"][1])[b"for"] == b'"[::1]"'
        else:
            assert b"forwarded" not in found


async def test_an_ipv4_peer_of_a_socket_for_both_is_told_in_ipv4() -> None:
    """The kernel writes it `::ffff:127.0.0.1`, which no list of networks would match."""
    header = HEADER.replace('inbound: {address: "127.0.0.1:0"', 'inbound: {address: "[::]:0"')
    async with raw_upstream() as app, running(app_routes(app.port), header) as worker:
        await asked(asyncio.open_connection("127.0.0.1", port(worker)), (b"Forwarded: for=a",))
        found = told(app.requests[0])
        assert found[b"x-forwarded-for"] == [b"127.0.0.1"]
        assert element(found[b"forwarded"][1])[b"for"] == b"127.0.0.1"


@pytest.mark.parametrize("lines", [(), FROM_CLIENT], ids=["none", "some"])
async def test_the_peer_of_a_unix_socket_is_unknown(lines: tuple[bytes, ...], tmp_path: Path) -> None:
    """RFC 7239 6.3: the name for a peer that has no address."""
    path = tmp_path / "in.sock"
    header = HEADER.replace('inbound: {address: "127.0.0.1:0"}', f'inbound: {{address: "unix:{path}"}}')
    async with raw_upstream() as app, running(app_routes(app.port), header):
        await asked(asyncio.open_unix_connection(path), lines)
        found = told(app.requests[0])
        if lines:
            assert found[b"x-forwarded-for"] == [*CAME[b"x-forwarded-for"], b"unknown"]
            assert element(found[b"forwarded"][1])[b"for"] == b"unknown"
        else:
            assert found == ALONE | {b"x-forwarded-for": [b"unknown"]}
