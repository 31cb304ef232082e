"""CORS, as browsers ask and read it (Fetch Standard 3.3), and as Gateway API's cases have it."""

from __future__ import annotations

import pytest

from tests.scenarios.acting import VERSIONS, acting
from tests.scenarios.stage import saying

SHOP = b"https://shop.test"
OWN = (
    b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://other.test\r\n"
    b"Vary: Accept\r\nContent-Length: 2\r\n\r\nok"
)
BASE = "allow_origins: ['https://shop.test', 'https://*.sub.test', 'http://localhost:3000']"


def cors(options: str) -> str:
    return f"- {{name: app, upstream: app, cors: {{{options}}}}}"


def of_cors(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {
        key.decode().removeprefix("access-control-"): value.decode()
        for key, value in fields.items()
        if key.startswith(b"access-control-")
    }


def preflight(origin: bytes, method: bytes = b"PUT", *headers: bytes) -> tuple[tuple[bytes, bytes], ...]:
    asked = ((b"Access-Control-Request-Headers", b",".join(headers)),) if headers else ()
    return ((b"Origin", origin), (b"Access-Control-Request-Method", method), *asked)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("options", "headers", "told"),
    [
        (BASE, (), {"allow-origin": "https://shop.test", "max-age": "5"}),
        (
            f"{BASE}, allow_methods: [PUT, DELETE], allow_headers: [X-A, x-b], max_age: 1h",
            (b"x-a",),
            {
                "allow-origin": "https://shop.test",
                "allow-methods": "PUT, DELETE",
                "allow-headers": "x-a, x-b",
                "max-age": "3600",
            },
        ),
        (
            "allow_origins: ['*'], allow_methods: ['*'], allow_headers: ['*', authorization]",
            (b"authorization",),
            {
                "allow-origin": "*",
                "allow-methods": "*",
                "allow-headers": "*, authorization",
                "max-age": "5",
            },
        ),
        (
            "allow_origins: ['*'], allow_methods: ['*'], allow_headers: ['*'], allow_credentials: true",
            (b"authorization", b"x-a"),
            {
                "allow-origin": "https://shop.test",
                "allow-credentials": "true",
                "allow-methods": "PUT",
                "allow-headers": "authorization, x-a",
                "max-age": "5",
            },
        ),
    ],
)
async def test_a_preflight_is_answered_here(
    options: str, headers: tuple[bytes, ...], told: dict[str, str], version: str
) -> None:
    async with acting(cors(options)) as to:
        reply = await to.ask(version, b"/x", *preflight(SHOP, b"PUT", *headers), method=b"OPTIONS")
        assert (reply.status, of_cors(reply.fields)) == (204, told)
        vary = {one.strip().lower() for one in reply.fields[b"vary"].split(b",")}
        assert vary == {b"origin", b"access-control-request-method", b"access-control-request-headers"}
        assert to.requests == []
        assert to.ended.told == [("app", 204, "preflight", 0, None)]


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        (b"https://shop.test", True),
        (b"https://SHOP.test", True),
        (b"http://shop.test", False),
        (b"https://shop.test:8443", False),
        (b"https://shop.test.evil", False),
        (b"https://evilshop.test", False),
        (b"https://a.sub.test", True),
        (b"https://a.b.sub.test", True),
        (b"https://sub.test", False),
        (b"https://.sub.test", False),
        (b"https://evil.test/.sub.test", False),
        (b"https://evil.test#.sub.test", False),
        (b"https://u@a.sub.test", False),
        (b"http://localhost:3000", True),
        (b"http://localhost", False),
        (b"null", False),
        (b"https://shop.test, https://evil.test", False),
        (b"", False),
    ],
)
async def test_an_origin_is_that_of_the_list_or_below_a_name_of_it(origin: bytes, is_allowed: bool) -> None:
    async with acting(cors(f"{BASE}, allow_credentials: true")) as to:
        asked = await to.ask("1.1", b"/x", *preflight(origin), method=b"OPTIONS")
        got = await to.ask("1.1", b"/x", (b"Origin", origin))
        assert (b"access-control-allow-origin" in asked.fields) is is_allowed
        assert got.fields.get(b"access-control-allow-origin") == (origin if is_allowed else None)
        assert (b"access-control-allow-credentials" in got.fields) is is_allowed
        assert got.status == 200


@pytest.mark.parametrize(("credentials", "told"), [("false", {"allow-origin": "*"}), ("true", {})])
async def test_null_is_nobody_to_whom_credentials_could_be_given(
    credentials: str, told: dict[str, str]
) -> None:
    async with acting(cors(f"allow_origins: ['*'], allow_credentials: {credentials}")) as to:
        assert of_cors((await to.ask("1.1", b"/", (b"Origin", b"null"))).fields) == told


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_route_speaks_for_its_upstream(version: str) -> None:
    async with acting(cors(f"{BASE}, expose_headers: [x-a, x-b]"), saying(OWN)) as to:
        reply = await to.ask(version, b"/", (b"Origin", SHOP))
        assert of_cors(reply.fields) == {"allow-origin": "https://shop.test", "expose-headers": "x-a, x-b"}
        assert reply.fields[b"vary"] == b"Accept, Origin"
        others = await to.ask(version, b"/")
        assert of_cors(others.fields) == {}
        assert (
            others.fields[b"vary"] == b"Accept, Origin"
        )  # else a cache gives it to pages that may not read it


async def test_an_answer_that_is_the_same_for_all_does_not_vary() -> None:
    async with acting(cors("allow_origins: ['*']")) as to:
        reply = await to.ask("1.1", b"/", (b"Origin", SHOP))
        assert (of_cors(reply.fields), reply.fields.get(b"vary")) == ({"allow-origin": "*"}, None)


async def test_without_cors_the_upstream_speaks_for_itself() -> None:
    async with acting("- {name: app, upstream: app}", saying(OWN)) as to:
        reply = await to.ask("1.1", b"/", *preflight(SHOP), method=b"OPTIONS")
        assert of_cors(reply.fields) == {"allow-origin": "https://other.test"}
        assert len(to.requests) == 1


@pytest.mark.parametrize("pairs", [(), ((b"Origin", SHOP),), ((b"Access-Control-Request-Method", b"PUT"),)])
async def test_options_that_are_no_preflight_go_to_the_upstream(
    pairs: tuple[tuple[bytes, bytes], ...],
) -> None:
    async with acting(cors(BASE)) as to:
        assert (await to.ask("1.1", b"/x", *pairs, method=b"OPTIONS")).body == b"OPTIONS /x"


@pytest.mark.parametrize(
    ("option", "asked", "answer"),
    [("true", b"true", b"true"), ("true", b"false", None), ("true", b"", None), ("false", b"true", None)],
)
async def test_a_private_network_is_open_only_where_the_route_says_so(
    option: str, asked: bytes, answer: bytes | None
) -> None:
    async with acting(cors(f"{BASE}, allow_private_network: {option}")) as to:
        pairs = (*preflight(SHOP), (b"Access-Control-Request-Private-Network", asked))
        fields = (await to.ask("1.1", b"/", *pairs, method=b"OPTIONS")).fields
        assert fields.get(b"access-control-allow-private-network") == answer


@pytest.mark.parametrize(
    "headers", [(b"a b",), (b"x\x80",), tuple(b"x-%d" % number for number in range(101))]
)
async def test_a_preflight_that_no_browser_sends_is_allowed_nothing(headers: tuple[bytes, ...]) -> None:
    async with acting(cors("allow_origins: ['*'], allow_headers: ['*'], allow_credentials: true")) as to:
        reply = await to.ask("1.1", b"/", *preflight(SHOP, b"PUT", *headers), method=b"OPTIONS")
        assert (reply.status, of_cors(reply.fields)) == (204, {})


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_page_may_read_the_sidecars_own_errors_and_answers(version: str) -> None:
    route = f"- {{name: app, upstream: app, cors: {{{BASE}}}, circuit_breaker: {{mode: forced_open}}}}"
    async with acting(route) as to:
        reply = await to.ask(version, b"/", (b"Origin", SHOP))
        assert (reply.status, of_cors(reply.fields)) == (503, {"allow-origin": "https://shop.test"})
    async with acting(f"- {{name: fixed, respond: {{}}, cors: {{{BASE}}}}}") as to:
        reply = await to.ask(version, b"/", (b"Origin", SHOP))
        assert (reply.status, of_cors(reply.fields)) == (200, {"allow-origin": "https://shop.test"})
