"""What `sidecar check` warns of: sound, and rarely meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.config.load import load_text
from sidecar.config.load.advice import is_metadata

TOP = "version: 1\nupstreams: {app: {endpoints: ['127.0.0.1:8080']}}\nroutes: [{name: r, upstream: app}]\n"


def warnings(text: str) -> list[tuple[int, int, str]]:
    found = load_text(text, environ={"HUSH": "169.254.169.254"}).warnings
    return [(one.line, one.column, one.message.partition(":")[2][:40]) for one in found]


@pytest.mark.parametrize("address", ["0.0.0.0:15001", "'[::]:15001'", "10.0.0.1:15001"])
def test_a_listener_for_the_apps_calls_that_others_reach(address: str) -> None:
    text = f"{TOP}listeners:\n  outbound: {{address: {address}}}\n  inbound: {{}}\n"
    assert warnings(text) == [(5, 23, " everybody who reaches this address can ")]
    named = f"{TOP}listeners:\n  inbound: {{}}\n  egress: {{direction: outbound, address: {address}}}\n"
    assert len(warnings(named)) == 1


@pytest.mark.parametrize(
    "listeners",
    [
        "outbound: {address: 127.0.0.1:15001}, inbound: {address: 0.0.0.0:15006}",
        "outbound: {address: '[::1]:15001'}, inbound: {}",
        "outbound: {address: 'unix:/run/out.sock'}, inbound: {}",
        "outbound: {}, inbound: {}",
    ],
)
def test_a_listener_for_the_app_alone(listeners: str) -> None:
    assert warnings(f"{TOP}listeners: {{{listeners}}}\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "upstreams: {meta: {endpoints: ['app:1', '169.254.169.254:80']}}\nroutes: [{name: r, upstream: meta}]\n",
        "upstreams: {meta: {endpoints: ['app:1', '${HUSH}:80']}}\nroutes: [{name: r, upstream: meta}]\n",
        "routes: [{name: r, upstream: 'http://169.254.169.254'}]\n",
        "routes: [{name: r, upstream: 'http://app', fallback: {upstream: 'http://metadata.google.internal:80'}}]\n",
    ],
)
def test_an_upstream_that_is_the_clouds_metadata(text: str) -> None:
    (found,) = load_text(f"version: 1\n{text}", environ={"HUSH": "169.254.169.254"}).warnings
    assert "the address of the cloud's metadata" in found.message
    assert "169.254" not in str(found), "a value may be a secret"


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        ("169.254.169.254", True), ("169.254.170.2", True), ("fe80::a9fe:a9fe", True), ("fd00:ec2::254", True),
        ("::ffff:169.254.169.254", True), ("100.100.100.200", True), ("168.63.129.16", True), ("metadata", True),
        ("metadata.google.internal.", True), ("10.0.0.1", False), ("168.63.129.17", False), ("app", False),
        ("metadata.example", False), ("::1", False),
    ],
)  # fmt: skip
def test_where_clouds_tell_of_themselves(host: str, is_one: bool) -> None:
    assert is_metadata(host) is is_one


def test_check_prints_warnings_beside_its_yes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text(f"{TOP}listeners: {{outbound: {{address: 0.0.0.0:15001}}, inbound: {{}}}}\n")
    assert main(["check", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{file}: ok\n"
    assert err.startswith(f"{file}:4:33: warning: everybody who reaches this address")


@pytest.mark.parametrize(
    ("tls", "count"),
    [
        ("", 2),
        ("tls: {certificate: {chain: a, key: b}}", 2),
        ("tls: {certificate: {chain: a, key: b}, client_ca: c, client: request}", 0),
        ("tls: {certificate: {chain: a, key: b}, client_ca: c, client: require}", 0),
    ],
)
def test_route_for_clients_is_warned_of_where_nobody_asks_for_their_certificates(
    tls: str, count: int
) -> None:
    text = f"""\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:0", {tls}}}}}
upstreams: {{app: {{endpoints: ["127.0.0.1:8080"]}}}}
routes:
- {{name: a, upstream: app, match: {{client: [web]}}}}
- {{name: b, upstream: app, match: [{{path: {{exact: /b}}}}, {{client: [web]}}]}}
- {{name: c, upstream: app}}
"""
    warnings = load_text(text).warnings
    assert len(warnings) == count
    assert all("no request is of a known client" in one.message for one in warnings)


@pytest.mark.parametrize(
    ("cors", "count"),
    [
        ("allow_origins: ['*'], allow_credentials: true", 1),
        ("allow_origins: ['*']", 0),
        ("allow_origins: ['https://*.test'], allow_credentials: true", 0),
    ],
)
def test_every_page_that_may_act_for_its_user_is_warned_of(cors: str, count: int) -> None:
    found = load_text(TOP.replace("upstream: app}", f"upstream: app, cors: {{{cors}}}}}")).warnings
    assert [one.message[:50] for one in found] == ["warning: with `allow_credentials` every page that "][
        :count
    ]


@pytest.mark.parametrize(
    ("redirect", "tls", "count"),
    [
        ("scheme: http", False, 1),
        ("scheme: https", False, 0),
        ("scheme: https", True, 1),
        ("scheme: https, host: other.test", True, 0),
        ("scheme: https, port: 8443", True, 0),
        ("port: 81", False, 0),
    ],
)
def test_a_redirect_to_where_the_client_is_is_warned_of(redirect: str, tls: bool, count: int) -> None:
    keys = "{tls: {certificate: {chain: a.crt, key: a.key}}}" if tls else "{}"
    text = f"version: 1\nlisteners: {{inbound: {keys}}}\nroutes: [{{name: r, redirect: {{{redirect}}}}}]\n"
    found = [one.message for one in load_text(text).warnings]
    assert len([one for one in found if "sent back to where they are" in one]) == count


@pytest.mark.parametrize(
    ("match", "count"),
    [
        ("{methods: [GET]}", 1),
        ("[{methods: [GET]}, {methods: [PUT]}]", 2),
        ("{methods: [GET, OPTIONS]}", 0),
        ("{path: {prefix: /}}", 0),
    ],
)
def test_a_route_that_no_preflight_reaches_is_warned_of(match: str, count: int) -> None:
    own = f"upstream: app, cors: {{allow_origins: ['https://a.test']}}, match: {match}}}"
    found = [one.message for one in load_text(TOP.replace("upstream: app}", own)).warnings]
    assert len([one for one in found if "name OPTIONS too" in one]) == count


@pytest.mark.parametrize(
    ("route", "keys"),
    [
        ("redirect: {port: 81}, retry: {attempts: 1}, rewrite: {host: a}", ["retry", "rewrite"]),
        ("respond: {}, circuit_breaker: {open_for: 1s}, timeouts: {request: 1s}", ["circuit_breaker"]),
        ("respond: {}, cors: {allow_origins: ['*']}, response_headers: {set: {x-a: b}}", []),
        ("upstream: app, retry: {attempts: 1}", []),
    ],
)
def test_what_a_route_says_of_upstreams_that_it_never_asks_is_warned_of(route: str, keys: list[str]) -> None:
    text = TOP.replace("upstream: app}", f"{route}}}") + "defaults: {retry: {attempts: 2}}\n"
    line = text.splitlines()[2]
    found = [one for one in load_text(text).warnings if "does nothing" in one.message]
    assert [line[one.column - 1 :].partition(":")[0] for one in found] == keys


FAILOVER = """\
version: 1
upstreams:
  app: {{endpoints: ['127.0.0.1:1'], failover: [spare]{upstream}}}
  spare: {{endpoints: ['127.0.0.1:2']}}
routes: [{{name: r, upstream: app, match: {match}{route}}}]
"""


@pytest.mark.parametrize(
    "match", ["{methods: [POST]}", "{grpc: {service: a.B}}", "[{methods: [POST, PATCH]}]"]
)
def test_a_failover_from_which_no_request_can_bring_the_load_back(match: str) -> None:
    text = FAILOVER.format(match=match, upstream="", route="")
    assert warnings(text) == [(3, 47, " a route to it has no method that may be")]
    checked = FAILOVER.format(match=match, upstream=", health_check: {path: /}", route="")
    assert warnings(checked) == []
    probed = "circuit_breaker: {half_open: {check: {path: /}}}"
    assert warnings(FAILOVER.format(match=match, upstream="", route=f", {probed}")) == []


@pytest.mark.parametrize("match", ["{}", "{methods: [POST, GET]}", "[{methods: [POST]}, {hosts: [x]}]"])
def test_a_failover_whose_route_has_requests_that_may_be_sent_twice(match: str) -> None:
    assert warnings(FAILOVER.format(match=match, upstream="", route="")) == []


def test_watches_of_kubernetes_are_counted_once_for_all_upstreams() -> None:
    text = """\
version: 1
upstreams:
  a: {endpoints: ["127.0.0.1:80", "kubernetes://b.shop:http", "kubernetes://c.shop:http"]}
  d: {endpoints: ["kubernetes://b.shop:http"]}
routes: [{name: r, upstream: a}]
"""
    (found,) = load_text(text).warnings
    assert (found.line, found.column) == (3, 35)
    assert "a watch of its own at the API server for each of its 2 Services" in found.message


@pytest.mark.parametrize(
    ("upstream", "is_told"),
    [
        ("{endpoints: ['pay:50051'], protocol: http2}", True),
        ("{endpoints: ['pay.shop:50051'], protocol: http2}", True),
        ("{endpoints: ['pay.shop.svc:50051'], protocol: http2}", True),
        ("{endpoints: ['https://pay.shop.svc.cluster.local.:443'], protocol: auto}", True),
        ("{endpoints: ['pay:50051']}", False),
        ("{endpoints: ['pay-0.pay:50051', 'pay-1.pay:50051'], protocol: http2}", False),
        ("{endpoints: ['10.0.0.7:50051'], protocol: http2}", False),
        ("{endpoints: ['localhost:50051'], protocol: http2}", False),
        ("{endpoints: ['unix:/run/pay.sock'], protocol: http2}", False),
        ("{endpoints: ['kubernetes://pay.shop:grpc'], protocol: http2}", False),
        ("{endpoints: ['https://api.example.com'], protocol: http2}", False),
        ("{endpoints: ['https://example.com'], protocol: auto}", False),
    ],
)
def test_http2_to_what_may_be_a_cluster_ip(upstream: str, is_told: bool) -> None:
    text = f"version: 1\nupstreams: {{pay: {upstream}}}\nroutes: [{{name: r, upstream: pay}}]\n"
    found = load_text(text).warnings
    assert ["cluster IP" in one.message for one in found if one.is_advice] == [True] * is_told


def test_advice_is_no_reason_to_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text(
        "version: 1\nupstreams: {pay: {endpoints: ['pay:50051'], protocol: http2}}\n"
        "routes: [{name: r, upstream: pay}]\n"
    )
    assert main(["check", "--strict", str(file)]) == 0
    assert ": advice: where this is a Service with a cluster IP" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (
            "upstreams: {app: {endpoints: ['a:1'], ejection: {base: 10m}}}\nroutes: [{name: r, upstream: app}]\n",
            (2, 56),
        ),
        (
            "upstreams: {app: {endpoints: ['a:1'], ejection: {max: 20s}}}\nroutes: [{name: r, upstream: app}]\n",
            (2, 55),
        ),
        ("routes: [{name: r, upstream: 'http://app', retry: {attempts: 1, backoff: {base: 1s}}}]\n", (2, 81)),
        (
            "defaults: {retry: {backoff: {base: 1s}}}\n"
            "routes: [{name: r, upstream: 'http://app'}, {name: s, upstream: 'http://app'}]\n",
            (2, 36),
        ),
    ],
)
def test_waits_that_begin_longer_than_they_may_become(text: str, place: tuple[int, int]) -> None:
    (found,) = load_text(f"version: 1\n{text}").warnings
    assert "`base` is longer than `max`" in found.message
    assert (found.line, found.column) == place


def test_waits_that_begin_as_long_as_they_may_become() -> None:
    text = "upstreams: {app: {endpoints: ['a:1'], ejection: {base: 5m}}}\n"
    text += "routes: [{name: r, upstream: app, retry: {backoff: {base: 250ms}}}]\n"
    assert load_text(f"version: 1\n{text}").warnings == ()
