"""The routing table: precedence, hosts, paths with two readings, and equality with a naive scan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.config.schema.regex import Regex
from sidecar.core.conditions import Entry
from sidecar.core.explain import explain
from sidecar.core.grpc_status import is_grpc
from sidecar.core.hosts import normal_host
from sidecar.core.path import has_one_reading, other_reading, unescape
from sidecar.core.question import CALL_WORK, MOST_WORK, TooMuchWork, parse_query
from sidecar.core.routing import FOUND_SHARE, MAX_FOUND, MAX_FOUND_BYTES, RoutingTable
from sidecar.core.snapshot import GrpcMatch, Match, PathKind, PathMatch, Route, ValueMatch


def exact(value: str) -> PathMatch:
    return PathMatch(PathKind.EXACT, value)


def prefix(value: str) -> PathMatch:
    return PathMatch(PathKind.PREFIX, value)


def regex(value: str) -> PathMatch:
    return PathMatch(PathKind.REGEX, value, Regex(value))


def route(name: str, *matches: Match) -> Route:
    return Route(name, "outbound", matches, (("up", 1),))


def table(**matches: Match | Sequence[Match]) -> RoutingTable[str]:
    routes = [
        route(name, *((match,) if isinstance(match, Match) else match)) for name, match in matches.items()
    ]
    return RoutingTable([(each, each.name) for each in routes])


def find(
    routes: RoutingTable[str],
    path: str = "/",
    host: str = "payments",
    method: str = "GET",
    headers: Mapping[bytes, bytes] | None = None,
    query: str = "",
) -> str | None:
    return routes.find(host.encode(), path.encode(), method.encode(), headers or {}, query.encode())


def find_entry(routes: RoutingTable[str], path: bytes) -> Entry[str]:
    entry = routes.find_entry(b"payments", path, b"GET", {}, b"")
    assert entry is not None
    return entry


def test_empty_table_finds_nothing() -> None:
    assert find(RoutingTable[str]([])) is None


@pytest.mark.parametrize("path", ["/", "/a/../b", "//x", "/%2e%2e/", "*", "/a;b\\c"])
def test_table_without_path_conditions_looks_at_no_path(path: str) -> None:
    assert find(table(all=Match(), root=Match(path=prefix("/"))), path) == "all"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("payments", "exact"),
        ("PAYMENTS", "exact"),
        ("payments.", "exact"),
        ("payments:8080", "exact"),
        ("Payments.:80", "exact"),
        ("a.payments.svc", "wildcard"),
        ("a.b.payments.svc:80", "wildcard"),
        ("v1.a.payments.svc", "wildcard"),
        ("x.deep.payments.svc", "longer"),
        ("deep.payments.svc", "wildcard"),
        ("one.payments.svc", "one"),
        ("payments.svc", "svc"),
        (".payments.svc", "svc"),
        ("apayments.svc", "svc"),
        ("svc", "any"),
        (".svc", "any"),
        ("[::1]:80", "six"),
        ("[::1]", "six"),
        ("[::2]:80", "any"),
        ("", "any"),
        (".", "any"),
        (":80", "any"),
        ("orders", "any"),
    ],
)
def test_most_specific_host_wins(host: str, name: str) -> None:
    routes = table(
        any=Match(),
        svc=Match(hosts=("*.svc",)),
        wildcard=Match(hosts=("*.payments.svc",)),
        longer=Match(hosts=("*.deep.payments.svc",)),
        one=Match(hosts=("one.payments.svc",)),
        exact=Match(hosts=("payments",)),
        six=Match(hosts=("::1",)),
    )
    assert find(routes, host=host) == name


def test_star_and_no_host_are_the_same() -> None:
    assert find(table(first=Match(hosts=("*",)), second=Match())) == "first"
    assert find(table(first=Match(), second=Match(hosts=("*",)))) == "first"


def test_less_specific_hosts_take_what_the_more_specific_do_not() -> None:
    routes = table(
        any=Match(),
        wildcard=Match(hosts=("*.svc",), path=prefix("/v1")),
        host=Match(hosts=("pay.svc",), path=exact("/v2"), methods=frozenset({"POST"})),
    )
    assert find(routes, "/v2", "pay.svc", "POST") == "host"
    assert find(routes, "/v1", "pay.svc") == "wildcard"
    assert find(routes, "/v2", "pay.svc") == "any"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1", "prefix"),
        ("/v1/", "prefix"),
        ("/v1/x", "prefix"),
        ("/v1/orders", "exact"),
        ("/v1/orders/", "longer"),
        ("/v1/orders/7", "longer"),
        ("/v1/ordersx", "prefix"),
        ("/v10", "regex"),
        ("/v10/x", "rest"),
        ("/v", "rest"),
        ("/", "rest"),
        ("*", "rest"),
        ("/V1", "rest"),
        ("/a/b/c/d/e/f", "rest"),
    ],
)
def test_most_specific_path_wins(path: str, name: str) -> None:
    routes = table(
        rest=Match(path=prefix("/")),
        regex=Match(path=regex("/v[0-9]+(/orders)?")),
        prefix=Match(path=prefix("/v1/")),
        longer=Match(path=prefix("/v1/orders")),
        exact=Match(path=exact("/v1/orders")),
    )
    assert find(routes, path) == name


def test_regex_must_match_the_whole_path_and_the_first_wins() -> None:
    routes = table(one=Match(path=regex("/a+")), two=Match(path=regex("/a.*")))
    assert find(routes, "/aa") == "one"
    assert find(routes, "/ab") == "two"
    assert find(routes, "/b/aa") is None


def test_host_counts_more_than_path_and_path_more_than_conditions() -> None:
    routes = table(
        path=Match(path=exact("/v1")),
        host=Match(hosts=("payments",)),
        headers=Match(
            path=prefix("/v1"), headers=(ValueMatch("a", present=True), ValueMatch("b", present=True))
        ),
    )
    headers = {b"a": b"1", b"b": b"2"}
    assert find(routes, "/v1", headers=headers) == "host"
    assert find(routes, "/v1", "other", headers=headers) == "path"
    assert find(routes, "/v1/x", "other", headers=headers) == "headers"


def test_method_then_headers_then_query_then_order() -> None:
    header, query = (ValueMatch("x-tenant", exact="gold"),), (ValueMatch("beta", exact="1"),)
    routes = table(
        first=Match(),
        second=Match(),
        query=Match(query=query),
        header=Match(headers=header),
        both=Match(headers=header, query=query),
        method=Match(methods=frozenset({"POST", "PUT"})),
    )
    gold = {b"x-tenant": b"gold"}
    assert find(routes) == "first"
    assert find(routes, query="beta=1") == "query"
    assert find(routes, headers=gold) == "header"
    assert find(routes, headers=gold, query="a&beta=1") == "both"
    assert find(routes, method="PUT", headers=gold, query="beta=1") == "method"
    assert find(routes, method="put") == "first"


@pytest.mark.parametrize(
    ("condition", "holds", "fails"),
    [
        (ValueMatch("k", exact="v"), [b"v"], [b"V", b"", b"v ", None]),
        (ValueMatch("k", exact=""), [b""], [b"v", None]),
        (ValueMatch("k", regex=Regex("v+")), [b"v", b"vv"], [b"", b"vx", None]),
        (ValueMatch("k", exact="ü"), ["ü".encode()], [b"\xfc", b"u", None]),
        (ValueMatch("k", regex=Regex(".")), ["ü".encode(), b"\xfc"], [b"\xfc\xfc", None]),
        (ValueMatch("k", present=True), [b"", b"x"], [None]),
        (ValueMatch("k", present=False), [None], [b"", b"x"]),
    ],
)
def test_condition_on_a_value(
    condition: ValueMatch, holds: list[bytes | None], fails: list[bytes | None]
) -> None:
    routes = table(only=Match(headers=(condition,)))
    for value in holds + fails:
        fields = {} if value is None else {b"k": value}
        assert find(routes, headers=fields) == ("only" if value in holds else None), value


CALL = {b"content-type": b"application/grpc+proto"}


def test_grpc_takes_calls_alone_by_service_and_method() -> None:
    routes = table(
        any=Match(),
        calls=Match(grpc=GrpcMatch()),
        service=Match(grpc=GrpcMatch("pkg.Payments")),
        method=Match(grpc=GrpcMatch("pkg.Payments", "Charge")),
        page=Match(path=exact("/pkg.Payments/Charge")),
    )

    def found(path: str, headers: Mapping[bytes, bytes]) -> str | None:
        return find(routes, path, method="POST", headers=headers)

    assert found("/pkg.Payments/Charge", CALL) == "method"
    assert found("/pkg.Payments/Refund", CALL) == "service"
    assert found("/pkg.PaymentsV2/Charge", CALL) == "calls"
    assert found("/pkg.Payments/charge", CALL) == "service", "upper and lower case are told apart"
    assert found("/pkg.Payments/Charge", {}) == "page"
    assert found("/pkg.Payments/Refund", {b"content-type": b"application/json"}) == "any"


@pytest.mark.parametrize(
    ("content_type", "is_call"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc+json", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc ; a=b", True),
        (b"application/grpc-web", False),
        (b"application/grpc-web+proto", False),
        (b"application/grpcx", False),
        (b"application/grp", False),
        (b"text/plain", False),
        (b"", False),
    ],
)
def test_content_type_tells_a_call(content_type: bytes, is_call: bool) -> None:
    assert is_grpc(content_type) is is_call
    routes = table(call=Match(grpc=GrpcMatch("p.S")))
    assert (find(routes, "/p.S/M", headers={b"content-type": content_type}) == "call") is is_call


def test_explain_tells_why_a_request_is_not_the_call_asked_for() -> None:
    routes = table(
        charge=Match(grpc=GrpcMatch("pkg.Payments", "Charge")), service=Match(grpc=GrpcMatch("pkg.Payments"))
    )

    def reasons(path: bytes, fields: Mapping[bytes, bytes]) -> list[str]:
        return [one.reason for one in explain(routes, b"payments", path, b"POST", fields, b"")]

    assert reasons(b"/pkg.Payments/Charge", CALL) == [
        "the most specific of those that hold", "holds, but charge is more specific or stands before it"
    ]  # fmt: skip
    assert reasons(b"/other/Charge", CALL) == [
        "path /other/Charge is not that of gRPC service pkg.Payments, method Charge",
        "path /other/Charge is not that of gRPC service pkg.Payments",
    ]
    assert (
        reasons(b"/pkg.Payments/Charge", {})
        == ["not a gRPC call: its content-type is not application/grpc"] * 2
    )


def test_query_is_decoded_and_its_first_value_counts() -> None:
    assert parse_query(b"a=1&a=2&b&c=x%20y+z&%64=%zz&=e&&") == {
        b"a": b"1",
        b"b": b"",
        b"c": b"x y z",
        b"d": b"%zz",
        b"": b"e",
    }
    assert parse_query(b"") == {}


def test_a_question_is_answered_once_and_charged_once() -> None:
    class Counting(Regex):
        seen = 0

        def holds(self, value: bytes) -> bool:
            Counting.seen += 1
            return super().holds(value)

    routes = table(**{f"r{n}": Match(headers=(ValueMatch("k", regex=Counting("a+")),)) for n in range(9)})
    assert find(routes, headers={b"k": b"b"}) is None
    assert Counting.seen == 1


@pytest.mark.parametrize("size", [0, 1])
def test_a_look_up_stops_where_it_would_take_too_long(size: int) -> None:
    regex = Regex("[ab]*c")
    longest = (MOST_WORK - CALL_WORK) // regex.steps
    routes = table(only=Match(headers=(ValueMatch("k", regex=regex),)))
    value = b"a" * (longest - 1 + size) + b"c"
    if size:
        with pytest.raises(TooMuchWork, match="too long for the regular expressions"):
            find(routes, headers={b"k": value})
        assert "too long" in explain(routes, b"", b"/", b"GET", {b"k": value}, b"")[0].reason
    else:
        assert find(routes, headers={b"k": value}) == "only"


def test_any_of_several_matches_is_enough_and_each_ranks_on_its_own() -> None:
    routes = table(
        several=(Match(path=prefix("/a")), Match(path=exact("/b/c"))), other=Match(path=prefix("/b"))
    )
    assert [find(routes, path) for path in ("/a", "/b/c", "/b", "/c")] == [
        "several",
        "several",
        "other",
        None,
    ]
    assert find_entry(routes, b"/b/c").match_index == 1


@pytest.mark.parametrize(
    ("written", "path", "end"),
    [
        ("/v1", b"/v1", 3),
        ("/v1/", b"/v1/x", 3),
        ("/v1", b"/%76%31/x", 7),
        ("/v1/a", b"/v1/%61%2F/..", None),
        ("/a b", b"/a%20b", 6),
        ("/a%20b", b"/a b/c", 4),
        ("/", b"/x/y", 0),
        ("/v1", b"/v1/%C3%BC", 3),
        ("/ü", b"/%c3%bc/x", 7),
    ],
)
def test_matched_prefix_is_measured_in_the_path_as_sent(written: str, path: bytes, end: int | None) -> None:
    entry = table(only=Match(path=prefix(written))).find_entry(b"", path, b"GET", {}, b"")
    assert (entry and entry.prefix_end(path)) == end


def test_only_a_prefix_match_has_a_prefix() -> None:
    routes = table(exact=Match(path=exact("/a")), regex=Match(path=regex("/b")), rest=Match())
    assert [find_entry(routes, path).prefix_length for path in (b"/a", b"/b", b"/c")] == [0, 0, 0]
    assert find_entry(table(only=Match(path=prefix("/v1/x/"))), b"/v1/x/y").prefix == b"/v1/x"


@pytest.mark.parametrize(
    "path",
    [
        "/public/../admin",
        "/public/%2e%2E/admin",
        "/public/..%2fadmin",
        "/public/..%5Cadmin",
        "/public/..\\admin",
        "/public/..;/admin",
        "/public/x%2Fy/../../admin/..%2F..%2Fpublic",
        "/public//../admin/../public",
        "/public/.%2e/admin/",
        "//admin",
        "/;x/admin",
        "/admin;x/y",
        "/admin%2Fx",
        "/admin\\x",
        "/admin/../public",
        "/admin/..",
        "/./admin",
        "/public/../../admin",
    ],
)
def test_path_whose_readings_lead_to_different_routes_is_refused(path: str) -> None:
    routes = table(admin=Match(path=prefix("/admin")), public=Match(path=prefix("/public")), rest=Match())
    assert find(routes, path) is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/%61dmin", "admin"),
        ("/ad%6din/x", "admin"),
        ("/admin/a%2Fb", "admin"),
        ("/admin//x;y=1", "admin"),
        ("/admin/./x/../y", "admin"),
        ("/admin/a/..", "admin"),
        ("/.well-known/x", "rest"),
        ("/...", "rest"),
        ("/x/..y/.z", "rest"),
        ("/a%20b", "rest"),
        ("/a/../b", "rest"),
        ("//x//y", "rest"),
        ("/%2561dmin", "rest"),
        ("/%zz%", "rest"),
        ("/@scope%2Fname", "scope"),
        ("/%40scope/name", "scope"),
        ("/a%2Fb/c", "slash"),
        ("/a%2fb", "slash"),
    ],
)
def test_path_whose_readings_agree_is_routed(path: str, name: str) -> None:
    routes = table(
        admin=Match(path=prefix("/admin")),
        scope=Match(path=prefix("/@scope")),
        slash=Match(path=prefix("/a%2Fb")),
        rest=Match(),
    )
    if name == "scope" and "%2F" in path:
        assert find(routes, path) is None, "as sent it is another segment than /@scope"
    else:
        assert find(routes, path) == name


def test_condition_with_an_odd_path_does_not_take_what_it_does_not_name() -> None:
    odd, plain = Match(path=exact("/a;x")), Match(path=exact("/a"))
    for routes in (table(odd=odd, plain=plain), table(plain=plain, odd=odd)):
        assert find(routes, "/a") == "plain"
    assert find(table(odd=odd, plain=plain), "/a;x") == "odd"
    assert find(table(plain=plain, odd=odd), "/a;x") is None, "an eager server would read it as /a"


@pytest.mark.parametrize(
    ("path", "other"),
    [
        (b"/a/b", b"/a/b"),
        (b"/a/./b/../c", b"/a/c"),
        (b"/a/..", b"/"),
        (b"/..", b"/"),
        (b"/../../a", b"/a"),
        (b"/a/b/.", b"/a/b/"),
        (b"/a//b%2Fc\\d%5Ce", b"/a/b/c/d/e"),
        (b"/a;x=1/b;y", b"/a/b"),
        (b"//../a", None),
        (b"/..;/a", None),
        (b"/a%2F..", None),
    ],
)
def test_other_reading(path: bytes, other: bytes | None) -> None:
    assert other_reading(path) == other


def test_harmless_path_is_returned_as_it_is() -> None:
    path = b"/.well-known/a b"
    assert other_reading(path) is path
    assert unescape(path) is path


@given(st.lists(st.sampled_from([b"/", b"a", b".", b"%2F", b"\\", b";", b"%5C", b"%25", b"//"]), max_size=12))
def test_path_with_one_reading_is_what_it_looks_like(parts: list[bytes]) -> None:
    path = b"/" + b"".join(parts)
    if has_one_reading(path):
        assert unescape(path) is path
        assert other_reading(path) is path


@given(st.binary(max_size=40))
def test_unescape_keeps_slashes_and_settles_at_once(data: bytes) -> None:
    once = unescape(data)
    assert once.count(b"/") == data.count(b"/")
    assert unescape(b"/%61%g" + data).startswith(b"/a%g")  # a stray % is no escape and stays


def test_hostile_requests_are_answered_like_others() -> None:
    """Sixteen KiB of each: the walk is no deeper than the configuration, so about a millisecond."""
    routes = table(
        deep=Match(hosts=("*.a.b",), path=prefix("/a/b/c")),
        beta=Match(query=(ValueMatch("beta", exact="1"),)),
        rest=Match(),
    )
    for path in ("/" * 16_000, "/a" * 8_000, "/." * 8_000, "/%61" * 4_000, "/;" * 8_000):
        assert find(routes, path, "x." * 8_000 + "a.b", query="a&" * 8_000) in (None, "rest")


def test_a_path_that_comes_often_is_remembered_for_its_host_alone() -> None:
    routes = table(a=Match(hosts=("a",), path=prefix("/x")), b=Match(hosts=("b",), path=prefix("/x")))
    for number in range(3 * FOUND_SHARE):
        assert find(routes, "/x/1", host="b" if number < FOUND_SHARE else "a") == (
            "b" if number < FOUND_SHARE else "a"
        )
        assert find(routes, "/y/1", host="a") is None
    assert {path: found[1].target for path, found in routes._found.items()} == {b"/x/1": "a"}
    assert find(routes, "/x/1", host="b") == "b"
    assert find(routes, "/x/1", host="c") is None


def test_what_is_remembered_of_paths_is_bounded_whatever_clients_ask_for() -> None:
    routes = table(a=Match(path=prefix("/x")))
    for number in range((MAX_FOUND + 1) * FOUND_SHARE):
        assert find(routes, f"/x/{number}") == "a"
        assert len(routes._found) <= MAX_FOUND
    assert len(routes._found) == 1
    for _ in range(FOUND_SHARE):
        assert find(routes, "/x/" + "a" * MAX_FOUND_BYTES) == "a"
    assert len(routes._found) == 1


@pytest.mark.parametrize(
    "more",
    [{"methods": frozenset({"GET"})}, {"headers": (ValueMatch("x-a", exact="1"),)}, {"clients": ("c",)}],
)
def test_where_more_than_host_and_path_counts_nothing_is_remembered(more: dict[str, Any]) -> None:
    routes = table(a=Match(path=prefix("/x"), **more), b=Match(path=prefix("/x")))
    for _ in range(FOUND_SHARE):
        entry = routes.find_entry(b"h", b"/x", b"GET", {b"x-a": b"1"}, b"", "c")
        assert entry is not None
        assert entry.target == "a"
        assert find(routes, "/x", method="POST") == "b"
    assert not routes._found


def test_explain_names_the_first_condition_that_fails() -> None:
    routes = table(
        host=Match(hosts=("orders", "*.orders.svc")),
        path=Match(path=prefix("/v2")),
        method=Match(methods=frozenset({"PUT", "POST"})),
        header=Match(headers=(ValueMatch("x-tenant", exact="gold"),)),
        query=Match(query=(ValueMatch("beta", regex=Regex("1|2")),)),
        absent=(Match(headers=(ValueMatch("x-a", present=False),)), Match(path=prefix("/v1"))),
        rest=Match(),
    )
    explanations = explain(routes, b"payments:80", b"/v1/x", b"GET", {b"x-a": b"1"}, b"beta=3")
    assert [(e.route, e.match_index, e.is_match, e.is_chosen, e.reason) for e in explanations] == [
        ("host", 0, False, False, "host payments is none of orders, *.orders.svc"),
        ("path", 0, False, False, "path /v1/x is not prefix /v2"),
        ("method", 0, False, False, "method GET is none of POST, PUT"),
        ("header", 0, False, False, "header condition does not hold: x-tenant is 'gold'"),
        ("query", 0, False, False, "query condition does not hold: beta matches 1|2"),
        ("absent", 0, False, False, "header condition does not hold: x-a is absent"),
        ("absent", 1, True, True, "the most specific of those that hold"),
        ("rest", 0, True, False, "holds, but absent is more specific or stands before it"),
    ]


def test_explain_tells_that_a_path_is_read_in_two_ways() -> None:
    routes = table(admin=Match(path=prefix("/admin")), rest=Match())
    explanations = explain(routes, b"", b"/x/../admin", b"GET", {}, b"")
    assert [(e.is_match, e.is_chosen, e.reason) for e in explanations] == [
        (False, False, "path /x/../admin is not prefix /admin"),
        (True, False, "holds, but a server may read this path as one that does not lead here: refused"),
    ]


# The table against a scan of all routes, which sorts by SPEC's precedence and knows no tables.

HOST_PATTERNS = ["a", "b.a", "c.b.a", "*", "*.a", "*.b.a", "*.c.b.a"]
HOSTS = ["a", "b.a", "c.b.a", "d.c.b.a", "x.a", "A:80", "B.a.", "z", "", ".a"]
PATH_VALUES = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/b", "/ab"]
PATHS = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/a/b/c/d/e", "/b", "/ab", "/abc", "/a/bc", "*", "/%61/b"]
ODD_PATHS = ["/a/../b", "//a", "/a%2Fb", "/a;x/b", "/b/./c", "/a/b/..", "/a//../b"]

path_matches = st.one_of(
    st.none(),
    st.sampled_from(PATH_VALUES).map(exact),
    st.sampled_from(PATH_VALUES).map(prefix),
    st.sampled_from(["/a.*", "/a/?", ".*c", "/[ab]"]).map(regex),
)
value_matches = st.builds(
    lambda name, kind: ValueMatch(name, **kind),
    st.sampled_from(["k", "l"]),
    st.sampled_from([{"exact": "1"}, {"regex": Regex("1|2")}, {"present": True}, {"present": False}]),
)
conditions = st.lists(value_matches, max_size=2, unique_by=lambda value: value.name).map(tuple)
matches = st.builds(
    Match,
    hosts=st.lists(st.sampled_from(HOST_PATTERNS), max_size=2, unique=True).map(tuple),
    path=path_matches,
    methods=st.sampled_from([frozenset[str](), frozenset({"GET"}), frozenset({"GET", "PUT"})]),
    headers=conditions,
    query=conditions,
)
route_lists = st.lists(st.lists(matches, min_size=1, max_size=3), max_size=12)
values = st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["1", "2", "3"]))


def naive_rank(
    match: Match, host: str, path: str, method: str, *given: dict[str, str]
) -> tuple[int, ...] | None:
    """Say how specific `match` is for this request, smaller being more; None if it does not hold."""
    ranks = [host_rank(pattern, host) for pattern in match.hosts or ("*",)]
    by_host = min((rank for rank in ranks if rank is not None), default=None)
    by_path = path_rank(match.path, path)
    if by_host is None or by_path is None or (match.methods and method not in match.methods):
        return None
    for wanted, got in zip((match.headers, match.query), given, strict=True):
        if not all(value_holds(value, got.get(value.name)) for value in wanted):
            return None
    return (*by_host, *by_path, not match.methods, -len(match.headers), -len(match.query))


def host_rank(pattern: str, host: str) -> tuple[int, int] | None:
    if pattern == "*":
        return (2, 0)
    if pattern.startswith("*."):
        front = host.removesuffix(pattern[1:])
        return (1, -len(pattern)) if front not in ("", host) else None
    return (0, 0) if pattern == host else None


def path_rank(condition: PathMatch | None, path: str) -> tuple[int, int] | None:
    if condition is None or (condition.kind is PathKind.PREFIX and condition.value == "/"):
        return (3, 0)
    if condition.kind is PathKind.EXACT:
        return (0, 0) if path == condition.value else None
    if condition.kind is PathKind.REGEX:
        return (2, 0) if re.fullmatch(condition.value, path) else None
    value = condition.value.rstrip("/")
    return (1, -len(value)) if path == value or path.startswith(value + "/") else None


def value_holds(wanted: ValueMatch, value: str | None) -> bool:
    if wanted.present is not None:
        return (value is not None) == wanted.present
    if value is None:
        return False
    return value == wanted.exact if wanted.regex is None else bool(re.fullmatch(wanted.regex.pattern, value))


@settings(max_examples=600, deadline=None)
@given(
    route_lists,
    st.sampled_from(HOSTS),
    st.sampled_from(PATHS + ODD_PATHS),
    st.sampled_from(["GET", "PUT", "POST"]),
    values,
    values,
)
@example([[Match(hosts=("*.a",))], [Match(hosts=("*.b.a",), path=exact("/b"))]], "c.b.a", "/a", "GET", {}, {})
@example([[Match(), Match(path=exact("/"))]], "a", "/a//../b", "GET", {}, {})
def test_table_finds_what_a_scan_of_all_routes_finds(
    specs: list[list[Match]],
    host: str,
    path: str,
    method: str,
    headers: dict[str, str],
    query: dict[str, str],
) -> None:
    routes = RoutingTable([(route(f"r{i}", *each), i) for i, each in enumerate(specs)])

    def scan(path: str) -> tuple[int, int] | None:
        ranked = [
            (rank, order, index)
            for order, each in enumerate(specs)
            for index, match in enumerate(each)
            if (rank := naive_rank(match, normal_host(host.encode()).decode(), path, method, headers, query))
        ]
        return min(ranked)[1:] if ranked else None

    expected = scan(unescape(path.encode()).decode())
    if path in ODD_PATHS and any(m.path and m.path != prefix("/") for each in specs for m in each):
        other = other_reading(path.encode())
        same = None if other is None else scan(other.decode())
        expected = expected if expected and same and same[0] == expected[0] else None

    fields = {name.encode(): value.encode() for name, value in headers.items()}
    parameters = "&".join(f"{name}={value}" for name, value in query.items()).encode()
    found = routes.find_entry(host.encode(), path.encode(), method.encode(), fields, parameters)
    assert (found and (found.order, found.match_index)) == expected

    lines = explain(routes, host.encode(), path.encode(), method.encode(), fields, parameters)
    chosen = [(int(line.route[1:]), line.match_index) for line in lines if line.is_chosen]
    assert chosen == ([expected] if expected else [])
    assert all(line.is_match for line in lines if line.is_chosen)


def by_client(routes: RoutingTable[str], client: str, **asked: str) -> str | None:
    entry = routes.find_entry(b"payments", b"/", asked.get("method", "GET").encode(), {}, b"", client)
    return None if entry is None else entry.target


def test_route_for_one_client_takes_nobody_else() -> None:
    shop = "spiffe://cluster.local/ns/shop"
    routes = table(others=Match(), shop=Match(clients=(shop, "web.shop")))
    assert by_client(routes, f"{shop}/sa/web") == "shop"
    assert by_client(routes, "web.shop") == "shop"
    assert by_client(routes, "spiffe://cluster.local/ns/shopping") == "others"
    assert by_client(routes, "") == "others"
    assert by_client(table(shop=Match(clients=(shop,))), "") is None


def test_client_is_less_specific_than_what_a_request_itself_says() -> None:
    routes = table(
        client=Match(clients=("web",)),
        method=Match(methods=frozenset({"GET"})),
        both=Match(methods=frozenset({"POST"}), clients=("web",)),
        post=Match(methods=frozenset({"POST"})),
    )
    assert by_client(routes, "web") == "method"
    assert by_client(routes, "web", method="PUT") == "client"
    assert by_client(routes, "web", method="POST") == "both"
    assert by_client(routes, "", method="POST") == "post"


def test_explanation_says_whose_certificate_was_missing() -> None:
    routes = table(shop=Match(clients=("web", "shop")))
    (none,) = explain(routes, b"", b"/", b"GET", {}, b"")
    assert none.reason == "client (none: it has shown no certificate) is none of web, shop"
    (other,) = explain(routes, b"", b"/", b"GET", {}, b"", "pay")
    assert other.reason == "client pay is none of web, shop"
    (chosen,) = explain(routes, b"", b"/", b"GET", {}, b"", "shop")
    assert chosen.is_chosen
