"""Whom a route serves, by the client's address."""

from __future__ import annotations

import pytest

from tests.scenarios.acting import VERSIONS, acting


def route(options: str) -> str:
    return f"- {{name: app, upstream: app, clients: {{{options}}}}}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("options", "status"),
    [
        ("allow: [127.0.0.0/8]", 200),
        ("allow: [127.0.0.1]", 200),
        ("allow: ['::ffff:127.0.0.0/104']", 200),
        ("allow: [0.0.0.0/0]", 200),
        ("allow: [10.0.0.0/8, '2001:db8::/32']", 403),
        ("allow: ['::/0']", 403),
        ("deny: [127.0.0.1]", 403),
        ("deny: [10.0.0.0/8]", 200),
        ("allow: [127.0.0.0/8], deny: [127.0.0.1]", 403),
    ],
)
async def test_the_address_of_the_connection_counts(options: str, status: int, version: str) -> None:
    async with acting(route(options)) as to:
        reply = await to.ask(version, b"/", (b"X-Forwarded-For", b"10.1.1.1"))
        assert (reply.status, len(to.requests)) == (status, int(status == 200))
        if status == 403:
            assert b"error=http_request_denied" in reply.fields[b"proxy-status"]
            (told,) = to.ended.told
            assert told[:2] + told[3:] == ("app", 403, 0, "client_denied")


@pytest.mark.parametrize(
    ("hops", "came", "status"),
    [
        (1, [b"10.0.0.1"], 200),
        (1, [b"9.9.9.9, 10.0.0.1"], 200),
        (1, [b"9.9.9.9", b"10.0.0.1"], 200),
        (1, [b"10.0.0.1, 9.9.9.9"], 403),
        (2, [b"10.0.0.1, 9.9.9.9"], 200),
        (2, [b"10.0.0.1"], 403),  # it has not come by both hops: the connection's address counts
        (1, [], 403),
        (1, [b"10.0.0.1:4711"], 200),
        (1, [b"::ffff:10.0.0.1"], 200),
        (1, [b"[2001:db8::1]:4711"], 200),
        (1, [b"2001:db8::1"], 200),
        (1, [b"2001:db9::1"], 403),
        (1, [b"unknown"], 403),
        (1, [b"10.0.0.1, "], 403),
        (1, [b"10.0.0.01"], 403),
        (1, [b"10.0.0.1\xff"], 403),
    ],
)
async def test_behind_trusted_hops_the_client_is_whom_they_name(
    hops: int, came: list[bytes], status: int
) -> None:
    async with acting(route(f"allow: [10.0.0.0/8, '2001:db8::/32'], forwarded_hops: {hops}")) as to:
        pairs = tuple((b"X-Forwarded-For", value) for value in came)
        assert (await to.ask("1.1", b"/", *pairs)).status == status


async def test_a_redirect_and_a_preflight_are_not_for_those_who_are_refused() -> None:
    rules = "clients: {deny: [127.0.0.1]}, cors: {allow_origins: ['*']}"
    async with acting(f"- {{name: away, redirect: {{scheme: https}}, {rules}}}") as to:
        pairs = ((b"Origin", b"https://a.test"), (b"Access-Control-Request-Method", b"PUT"))
        assert (await to.ask("1.1")).status == 403
        assert (await to.ask("1.1", b"/", *pairs, method=b"OPTIONS")).status == 403


async def test_a_grpc_caller_is_told_in_its_own_words() -> None:
    async with acting(route("deny: [127.0.0.1]")) as to:
        reply = await to.ask(
            "2", b"/pkg.A/B", (b"content-type", b"application/grpc"), method=b"POST", body=b"\0" * 5
        )
        assert (reply.status, reply.fields[b"grpc-status"]) == (200, b"7")
