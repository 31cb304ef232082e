"""The commonest slips: each is told with its remedy, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.config.load import ConfigError, load_text
from sidecar.config.tell.json_schema import json_schema

TOP = 'version: 1\nupstreams: {payments: {endpoints: ["p:80"]}}\n'


def route(rest: str) -> str:
    return f"{TOP}routes:\n- {{name: a, upstream: payments, {rest}}}\n"


SLIPS = [
    (
        route("match: {path: /api}"),
        "expected a mapping, got the text '/api': write {prefix: /api}, or {exact: /api} for this path alone",
    ),
    (route("match: {prefix: /api}"), "unknown key 'prefix': it belongs under `path`, as path: {prefix: …}"),
    (route("match: {exact: /api}"), "unknown key 'exact': it belongs under `path`, as path: {exact: …}"),
    (route("match: {host: api}"), "unknown key 'host': did you mean 'hosts'?"),
    (route("match: {method: GET}"), "unknown key 'method': did you mean 'methods'?"),
    (route("methods: [GET]"), "unknown key 'methods': it belongs under `match`, as match: {methods: …}"),
    (route("request: 2s"), "unknown key 'request': it belongs under `timeouts`, as timeouts: {request: …}"),
    (route("match: {methods: get}"), "expected a list, got the text 'get': write [GET]"),
    (route("match: payments"), "write {hosts: [payments]}"),
    (route("match: {hosts: payments}"), "expected a list, got the text 'payments': write [payments]"),
    (route("match: /api"), "expected a list, got the text '/api': write {path: {prefix: /api}}"),
    (
        "version: 1\nupstreams: {payments: {endpoints: host:80}}\nroutes: [{name: a, upstream: payments}]\n",
        "expected a list, got the text 'host:80': write [\"host:80\"]",
    ),
    (
        "version: 1\nupstreams: {payments: 'host:80'}\nroutes: [{name: a, upstream: payments}]\n",
        "expected a mapping, got the text 'host:80': write {endpoints: [\"host:80\"]}",
    ),
    (
        "version: 1\nupstreams: {payments: ['host:80']}\nroutes: [{name: a, upstream: payments}]\n",
        "expected a mapping, got a list: write {endpoints: […]}",
    ),
    (
        "version: 1\nupstreams:\n- {name: payments, endpoints: ['p:80']}\nroutes: [{name: a, upstream: payments}]\n",
        "expected a mapping, got a list: write each one under its name, `NAME: {endpoints: […]}`",
    ),
    (
        f"{TOP}listeners:\n- {{name: inbound, address: '0.0.0.0:80'}}\nroutes: [{{name: a, upstream: payments}}]\n",
        "expected a mapping, got a list: write each one under its name, `NAME: {address: …}`",
    ),
    (
        f"{TOP}routes: [{{name: a, upstream: payments:80}}]\n",
        "'payments:80' is neither the name of an upstream nor a URL: write a name under `upstreams`, or "
        "http://payments:80",
    ),
    (
        f"{TOP}routes: [{{name: a, upstream: payments, fallback: {{upstream: 'p:81'}}}}]\n",
        "'p:81' is neither the name of an upstream nor a URL",
    ),
    (f"{TOP}routes: [{{name: a, weights: {{'p:81': 1}}}}]\n", "'p:81' is not a name"),
    (route("circuit_breaker: off"), "expected a mapping, got the text 'off': write {mode: disabled}"),
    (route("retry: 3"), "expected a mapping, got the number 3: write {attempts: 3}"),
    (route("retry: false"), "expected a mapping, got the boolean false: write {attempts: 0}"),
    (route("hedge: off"), "got the text 'off': leave it out, or write null to take back what `defaults` gives"),
    (route("hedge: p95"), "expected a mapping, got the text 'p95': write {after: p95}"),
    (route("mirror: shadow"), "expected a mapping, got the text 'shadow': write {upstream: shadow}"),
    (
        TOP.replace("endpoints", "ejection: off, endpoints") + "routes: []\n",
        "expected a mapping, got the text 'off': write {mode: off}",
    ),
    (
        TOP.replace("endpoints", "failover: dr, endpoints") + "routes: []\n",
        "expected a mapping, got the text 'dr': write [dr]",
    ),
    (
        TOP.replace("endpoints", "health_check: /ready, endpoints") + "routes: []\n",
        "expected a mapping, got the text '/ready': write {path: /ready}",
    ),
    (
        f"{TOP}routes:\n  checkout: {{upstream: payments}}\n",
        "expected a list, got a mapping: write each route as an item of the list, `- name: checkout`, and its other",
    ),
    (TOP.replace("1", '"1"', 1) + "routes: []\n", 'version "1" is a text: write version: 1, without quotes'),
    (
        route('match: {hosts: ["::1"]}'),
        "'::1': an IPv6 address stands in brackets here, as in a Host field: write \"[::1]\"",
    ),
    (route('match: {hosts: ["::ffff:10.0.0.1"]}'), 'write "[::ffff:10.0.0.1]"'),
    (
        f"{TOP}defaults: {{timeouts: {{attempt: 5s}}}}\n"
        "routes: [{name: a, upstream: payments, timeouts: {request: 2s}}]\n",
        "timeouts.attempt (5s) is over timeouts.request (2s, of route 'a', at sidecar.yaml:4:",
    ),
    (
        f"{TOP}defaults: {{timeouts: {{attempt: 20s}}}}\nroutes: [{{name: a, upstream: payments}}]\n",
        "timeouts.attempt (20s) is over timeouts.request (15s, built in)",
    ),
    (
        f"{TOP}defaults: {{circuit_breaker: {{open_for: 50s}}}}\n"
        "routes: [{name: a, upstream: payments, circuit_breaker: {max_open_for: 20s}}]\n",
        "circuit_breaker.open_for (50s) is over circuit_breaker.max_open_for (20s, of route 'a', at",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), SLIPS)
def test_a_slip_is_told_once_with_its_remedy(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    assert [told in one.message for one in caught.value.problems] == [True]


def test_each_route_that_a_default_is_too_long_for_is_named() -> None:
    text = (
        f"{TOP}defaults: {{timeouts: {{attempt: 5s}}}}\nroutes:\n"
        "- {name: a, upstream: payments, timeouts: {request: 2s}}\n"
        "- {name: b, upstream: payments, timeouts: {request: 3s}}\n- {name: c, upstream: payments}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    assert ["route 'a'" in one.message for one in caught.value.problems] == [True, False]
    assert "route 'b'" in caught.value.problems[1].message


def test_a_limit_that_a_route_itself_breaks_needs_no_name() -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(route("timeouts: {request: 2s, attempt: 5s}"))
    assert "of route" not in caught.value.problems[0].message


X = "x-common: &common {timeouts: {request: 2s}, deadline: {mode: off}}\nx-more:\n- &hosts [a, b]\n"


def test_a_users_own_keys_hold_anchors() -> None:
    text = f"{X}{TOP}routes:\n- {{<<: *common, name: a, upstream: payments, match: {{hosts: *hosts}}}}\n"
    (found,) = load_text(text).snapshot.routes
    assert (found.timeouts.request_seconds, found.matches[0].hosts) == (2.0, ("a", "b"))


def test_a_users_own_keys_may_stand_in_every_file_of_a_directory(tmp_path: Path) -> None:
    one, two = "x-a: &a {timeouts: {request: 2s}}\n", "x-a: &a {timeouts: {request: 3s}}\n"
    (tmp_path / "1.yaml").write_text(f"{one}{TOP}routes: [{{<<: *a, name: a, upstream: payments}}]\n")
    (tmp_path / "2.yaml").write_text(f"{two}routes: [{{<<: *a, name: b, upstream: payments}}]\n")
    assert main(["check", str(tmp_path)]) == 0


@pytest.mark.parametrize("key", ["x-", "X-a", "xa"])
def test_other_unknown_keys_are_still_unknown(key: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key '{key}'"):
        load_text(f"{key}: 1\n{TOP}routes: [{{name: a, upstream: payments}}]\n")


def test_below_the_top_there_are_none() -> None:
    with pytest.raises(ConfigError, match="unknown key 'x-note'"):
        load_text(route("x-note: 1"))


def test_editors_know_of_them() -> None:
    assert set(json_schema()["patternProperties"]) == {"^x-."}


@pytest.mark.parametrize(
    ("text", "shown", "hidden"),
    [
        (route("match: {headers: {x-api-key: {exct: hunter2}}}"), "unknown key 'exct'", "hunter2"),
        (f"common: {{timeouts: {{request: hunter2}}}}\n{TOP}", "common: {timeouts: {request:", "hunter2"),
        (route("api_key: hunter2"), "unknown key 'api_key'", "hunter2"),
        (
            f"x-common: {{timeouts: {{request: 2}}, password: hunter2}}\n{TOP}routes: 1\n",
            "expected a list",
            "hunter2",
        ),
        (route("request_headers: {set: {authorization: {Bearer: hunter2}}}"), "authorization:", "hunter2"),
        (route("request_headers: {set: {authorization: {hunter2: x}}}"), "authorization:", "hunter2"),
    ],
)
def test_a_users_key_is_shown_and_a_secret_is_not(text: str, shown: str, hidden: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    assert shown in str(caught.value)
    assert hidden not in str(caught.value)


EXPLAINED = (
    'version: 1\nupstreams: {app: {endpoints: ["127.0.0.1:80"]}, payments: {endpoints: ["payments:80"]}}\n'
    "routes:\n- {name: app, upstream: app, match: {path: {prefix: /app}}}\n"
    "- {name: pay, listener: outbound, upstream: payments, match: {hosts: [payments]}}\n"
)


@pytest.mark.parametrize(
    "url", ["payments/v1", "payments:80/v1", "localhost", "ftp://payments/", "http:payments"]
)
def test_a_url_without_its_scheme_is_explained_to_nobody(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text(EXPLAINED)
    assert main(["explain", str(file), "--listener", "outbound", url]) == 2
    assert f"{url!r} is no URL: write http://" in capsys.readouterr().err


def test_the_listener_that_would_take_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text(EXPLAINED)
    assert main(["explain", str(file), "http://payments/v1"]) == 1
    told = "on another listener there is one: --listener outbound takes it by route pay"
    assert told in capsys.readouterr().out
    assert main(["explain", str(file), "http://other/v1"]) == 1
    assert "on another listener" not in capsys.readouterr().out
