"""Files to snapshots: built-in values, the reference, directories, bodies, and time."""

import json
import re
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.__main__ import main
from sidecar.config.load import ConfigError, load_file, load_text
from sidecar.config.problems import Problem, Report
from sidecar.config.schema import models
from sidecar.config.schema.file import File
from sidecar.config.schema.regex import Regex
from sidecar.config.schema.section import Section, keys_of
from sidecar.config.schema.upstreams import UpstreamSection
from sidecar.config.yaml import parse
from sidecar.config.yaml.nodes import MappingNode, Node, Sequence
from sidecar.core.actions.policy import ClientPolicy, CorsPolicy
from sidecar.core.actions.template import Template, Variable
from sidecar.core.snapshot import (
    Address,
    Admin,
    BreakerMode,
    BreakerPolicy,
    CandidatePolicy,
    CertificateFiles,
    CheckPolicy,
    ClientCertificate,
    Direction,
    Endpoint,
    Failure,
    FallbackPolicy,
    Forwarded,
    HeaderOps,
    HedgePolicy,
    Listener,
    ListenerTls,
    Match,
    MirrorPolicy,
    PathKind,
    PathMatch,
    Rewrite,
    Route,
    RouteTimeouts,
    ShareFilter,
    Snapshot,
    TlsVersion,
    Upstream,
    UpstreamTls,
    ValueMatch,
    WeightsPolicy,
    WhenOpen,
    WindowPolicy,
    WindowType,
)
from tests.support.tiny import Calls

EXAMPLES = Path(__file__).parents[2] / "config"
HEAD = 'version: 1\nupstreams: {app: {endpoints: ["127.0.0.1:8080"]}}\n'


def one_route(yaml: str) -> Route:
    return load_text(f"{HEAD}routes:\n- {{name: a, upstream: app, {yaml}}}\n").snapshot.routes[0]


def messages(error: ConfigError) -> list[str]:
    return [f"{p.file}:{p.line}:{p.column}: {p.message}" for p in error.problems]


def test_the_smallest_file_has_every_built_in_value() -> None:
    path = str(EXAMPLES / "minimal.yaml")
    loaded = load_file(path, {}).snapshot
    assert re.fullmatch("[0-9a-f]{64}", loaded.digest)
    assert loaded == Snapshot(
        listeners={
            "inbound": Listener("inbound", Address("0.0.0.0", 15006)),
            "outbound": Listener(
                "outbound",
                Address("127.0.0.1", 15001),
                direction=Direction.OUTBOUND,
                forwarded=Forwarded.KEEP,
            ),
        },
        upstreams={"app": Upstream("app", (Endpoint("127.0.0.1", 8080),))},
        routes=(
            Route(
                "app", "inbound", (Match(),), (("app", 1),), breaker=BreakerPolicy(counts_rate_limited=False)
            ),
        ),
        probes=Address("0.0.0.0", 15021),
        admin=Admin(Address("127.0.0.1", 15000)),
        files=(path,),
        digest=loaded.digest,
    )


def test_a_whole_route_is_read() -> None:
    route = load_file(EXAMPLES / "reference.yaml", {}).snapshot.routes[0]
    assert route == Route(
        name="checkout-to-payments",
        listener="outbound",
        matches=(
            Match(
                hosts=("payments", "*.payments.svc"),
                path=PathMatch(PathKind.PREFIX, "/v1"),
                methods=frozenset({"POST"}),
                headers=(
                    ValueMatch("x-tenant", exact="gold"),
                    ValueMatch("x-tier", exact="gold"),
                    ValueMatch("x-build", regex=Regex("v[0-9]+")),
                    ValueMatch("x-user", present=True),
                    ValueMatch("x-agent", prefix="curl/"),
                    ValueMatch("x-file", suffix=".pdf"),
                ),
                query=(
                    ValueMatch("beta", exact="1"),
                    ValueMatch("plan", exact="gold"),
                    ValueMatch("page", regex=Regex("[0-9]+")),
                    ValueMatch("debug", present=False),
                    ValueMatch("sort", prefix="name"),
                    ValueMatch("file", suffix=".csv"),
                ),
                port=80,
            ),
        ),
        upstreams=(("payments", 90), ("payments-canary", 10)),
        filters=(
            (
                "payments-canary",
                ShareFilter(
                    HeaderOps(((b"x-canary", b"1"),), ((b"x-hop", b"canary"),), frozenset({b"x-old"})),
                    HeaderOps(
                        ((b"x-served-by", b"canary"),), ((b"x-hop", b"canary"),), frozenset({b"x-old"})
                    ),
                ),
            ),
        ),
        rewrite=Rewrite("/", "payments.internal"),
        request_headers=HeaderOps(
            ((b"x-mesh", b"a"), (b"x-client", Template((Variable("client.address"),)))),
            ((b"x-hop", b"sidecar"),),
            frozenset({b"x-debug"}),
        ),
        response_headers=HeaderOps(
            ((b"cache-control", b"no-store"),), ((b"x-served-by", b"sidecar"),), frozenset({b"server"})
        ),
        timeouts=RouteTimeouts(2.0, 0.8, 300.0, 1.5),
        deadline=type(route.deadline)(max_seconds=10.0),
        breaker=BreakerPolicy(
            slow_call_seconds=1.0,
            failure_headers=((b"x-fail", b"1"),),
            half_open_check=CheckPolicy("/healthz", 1.0),
            candidate=CandidatePolicy(WindowPolicy(WindowType.COUNT, 100), 50, 0.3, 3, 0.5, 0.6, 2.0, 30.0),
        ),
        hedge=HedgePolicy(),
        mirror=MirrorPolicy("shadow", 0.1),
        fallback=FallbackPolicy(200, ((b"content-type", b"application/json"),), b'{"items": []}'),
        clients=ClientPolicy(("10.0.0.0/8", "2001:db8::/32"), ("10.0.0.13/32",)),
        cors=CorsPolicy(
            ("https://shop.example", "https://*.shop.example"),
            allow_methods=("PUT", "DELETE"),
            allow_headers=("content-type",),
            expose_headers=("x-request-id",),
        ),
        max_request_body_bytes=10 * 1024 * 1024,
        direction=Direction.OUTBOUND,
    )


def listeners(yaml: str) -> dict[str, tuple[Direction, Forwarded]]:
    text = f"{HEAD}listeners: {{{yaml}}}\nroutes: []\n"
    found = load_text(text).snapshot.listeners.values()
    return {one.name: (one.direction, one.forwarded) for one in found}


def test_a_listener_has_the_direction_that_it_says_or_that_its_name_says() -> None:
    egress = 'egress: {address: "127.0.0.1:1", direction: outbound}'
    edge = 'edge: {address: "127.0.0.1:2", direction: inbound, trust: none}'
    assert listeners(f"inbound: {{}}, outbound: {{direction: outbound}}, {egress}, {edge}") == {
        "inbound": (Direction.INBOUND, Forwarded.APPEND),
        "outbound": (Direction.OUTBOUND, Forwarded.KEEP),
        "egress": (Direction.OUTBOUND, Forwarded.KEEP),
        "edge": (Direction.INBOUND, Forwarded.SET),
    }


@pytest.mark.parametrize("mode", Forwarded)
@pytest.mark.parametrize("trust", ["all", "none"])
def test_what_a_listener_says_of_forwarded_fields_wins(mode: Forwarded, trust: str) -> None:
    text = f"inbound: {{forwarded: {mode.value}, trust: {trust}}}"
    assert listeners(text) == {"inbound": (Direction.INBOUND, mode)}


def test_a_route_has_the_direction_of_its_listener() -> None:
    text = (
        f'{HEAD}listeners: {{inbound: {{}}, egress: {{address: "127.0.0.1:1", direction: outbound}}}}\n'
        "routes:\n- {name: a, upstream: app}\n- {name: b, upstream: app, listener: egress}\n"
    )
    assert [route.direction for route in load_text(text).snapshot.routes] == [
        Direction.INBOUND,
        Direction.OUTBOUND,
    ]


@pytest.mark.parametrize("written", ["off", "'off'", "0s", "0ms", "0h0m"])
def test_a_timeout_that_is_off_has_no_end(written: str) -> None:
    keys = ", ".join(f"{key}: {written}" for key in ("request", "attempt", "head", "idle"))
    assert one_route(f"timeouts: {{{keys}}}").timeouts == RouteTimeouts(inf, inf, inf, inf)


def test_a_limit_that_is_off_is_over_none() -> None:
    assert one_route("timeouts: {attempt: off, head: off}").timeouts == RouteTimeouts(15.0, inf, 300.0, inf)


def test_a_method_is_any_token_in_its_own_case() -> None:
    methods = {"GET", "get", "LIST", "VERSION-CONTROL", "M-SEARCH", "!#$%&'*+-.^_`|~"}
    listed = ", ".join(f'"{method}"' for method in sorted(methods))
    assert one_route(f"match: {{methods: [{listed}]}}").matches[0].methods == methods


def test_the_reference_states_the_built_in_values_of_all_but_routes() -> None:
    built_in = load_file(EXAMPLES / "minimal.yaml", {}).snapshot
    stated = load_file(EXAMPLES / "reference.yaml", {}).snapshot
    assert {name: stated.listeners[name] for name in built_in.listeners} == dict(built_in.listeners)
    assert stated.probes == built_in.probes
    assert stated.drain == built_in.drain
    assert stated.admin.address == built_in.admin.address
    assert stated.telemetry.access_log == built_in.telemetry.access_log
    assert stated.telemetry.trace_sample_ratio == built_in.telemetry.trace_sample_ratio
    assert stated.upstreams["payments"] == Upstream("payments", (Endpoint("payments", 80),))


def keys_below(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Dotted keys; below a list or a map of free names, `*`."""
    for name, about in keys_of(section).items():
        yield prefix + name
        yield from keys_inside(about.annotation, f"{prefix}{name}")


def keys_inside(annotation: Any, path: str) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield from keys_below(annotation, f"{path}.")
        return
    step = ".*" if getattr(annotation, "__origin__", None) in (list, dict) else ""
    for argument in get_args(annotation):
        yield from keys_inside(argument, path + step)


def keys_of_document(node: Node, known_keys: set[str], path: str = "") -> Iterator[str]:
    if isinstance(node, Sequence):
        for item in node.items:
            yield from keys_of_document(item, known_keys, f"{path}.*")
    elif isinstance(node, MappingNode):
        if path.endswith("match"):  # one match instead of a list
            path += ".*"
        for key, entry in node.entries.items():
            here = f"{path}.{key}" if path else key
            known = here if here in known_keys else f"{path}.*"
            yield known
            yield from keys_of_document(entry.value, known_keys, known)


def test_every_declared_key_stands_in_the_reference() -> None:
    path = EXAMPLES / "reference.yaml"
    node = parse.parse_bytes(path.read_bytes(), str(path), {}, Report())
    assert node is not None
    declared = set(keys_below(File))
    written = set(keys_of_document(node, declared))
    policies = {key for key in declared if key.startswith("defaults.")}  # the same keys stand in the routes
    assert declared - policies - written == set()
    assert len(declared) > 150


def test_every_declared_key_is_described() -> None:
    def undescribed(schema: dict[str, Any]) -> list[str]:
        return [
            f"{name}.{key}"
            for name, section in schema.items()
            for key, field in section.get("properties", {}).items()
            if not field.get("description")
        ]

    schema = models.json_schema(File)
    assert undescribed({"File": schema, **schema["$defs"]}) == []


@pytest.mark.parametrize(
    ("yaml", "seconds"),
    [
        ("timeouts: {request: 500ms}", None),
        ("circuit_breaker: {slow_call_duration: 200ms}", None),
        ("timeouts: {request: 500ms}, circuit_breaker: {count_timeout_after: auto}", None),
        ("timeouts: {request: 500ms}, circuit_breaker: {count_timeout_after: 400ms}", 0.4),
        ("timeouts: {request: off}, circuit_breaker: {count_timeout_after: 3s}", 3.0),
    ],
)
def test_count_timeout_after_goes_by_the_routes_successes_unless_it_is_set(
    yaml: str, seconds: float | None
) -> None:
    assert one_route(yaml).breaker.count_timeout_after_seconds == seconds


@pytest.mark.parametrize(
    ("written", "seconds"), [("", 30.0), ("warm_up: 5s", 5.0), ("warm_up: off", 0.0), ("warm_up: 0s", 0.0)]
)
def test_a_warm_up_lasts_or_is_off(written: str, seconds: float) -> None:
    assert one_route(f"circuit_breaker: {{{written}}}").breaker.warm_up_seconds == seconds


def test_429_counts_where_the_app_calls_others() -> None:
    directions = [("inbound", False), ("outbound", True)]
    found = [one_route(f"listener: {name}").breaker.counts_rate_limited for name, _ in directions]
    assert found == [counts for _, counts in directions]


def test_an_upstream_says_that_a_sidecar_stands_there() -> None:
    text = (
        'version: 1\nupstreams: {a: {endpoints: ["a:1"], mesh: true}, b: {endpoints: ["b:1"]}}\nroutes: []\n'
    )
    found = load_text(text).snapshot.upstreams
    assert (found["a"].is_mesh, found["b"].is_mesh) == (True, False)


def test_the_sidecar_itself_probes_where_a_check_is_given() -> None:
    assert one_route("circuit_breaker: {half_open: {max_calls: 2}}").breaker.half_open_check is None
    route = one_route("circuit_breaker: {half_open: {check: {path: /healthz, timeout: 250ms}}}")
    assert route.breaker.half_open_check == CheckPolicy("/healthz", 0.25)


@pytest.mark.parametrize(
    ("written", "policy"),
    [
        ("", WeightsPolicy(WhenOpen.SHIFT, 2.0)),
        ("weights_when_open: keep", WeightsPolicy(WhenOpen.KEEP, 2.0)),
        ("shift_up_to: 1.5", WeightsPolicy(WhenOpen.SHIFT, 1.5)),
    ],
)
def test_the_share_of_an_open_upstream_is_shifted_or_kept(written: str, policy: WeightsPolicy) -> None:
    assert one_route(written).shares == policy


def test_built_in_minimum_calls_fit_into_a_short_count_window() -> None:
    breaker = one_route("circuit_breaker: {sliding_window: {type: count, size: 10}}").breaker
    assert (breaker.minimum_calls, breaker.window) == (10, WindowPolicy(WindowType.COUNT, 10))


def test_words_of_yaml_11_mean_themselves() -> None:
    yaml = "deadline: {mode: off, cancel_with_caller: off}"
    route = one_route(f"{yaml}, circuit_breaker: {{failure_on: [5xx, 429], mode: disabled}}")
    assert (route.deadline.mode.value, route.deadline.cancel_with_caller.value) == ("off", "off")
    assert route.breaker.failure_on == {Failure.STATUS_5XX, 429}
    assert route.breaker.mode is BreakerMode.DISABLED


def test_names_are_lower_cased_and_prefixes_lose_their_last_slash() -> None:
    yaml = "match: {hosts: [Api.Example, '*.SVC'], path: {prefix: /v1/}, headers: {X-A: B}, query: {Q: V}}"
    assert one_route(yaml).matches == (
        Match(
            ("api.example", "*.svc"),
            PathMatch(PathKind.PREFIX, "/v1"),
            headers=(ValueMatch("x-a", "B"),),
            query=(ValueMatch("Q", "V"),),
        ),
    )


def test_a_url_makes_an_upstream() -> None:
    text = "version: 1\nroutes:\n- {name: a, upstream: 'http://App:8080', fallback: {upstream: 'http://b'}}\n"
    snapshot = load_text(text).snapshot
    assert dict(snapshot.upstreams) == {
        "app:8080": Upstream("app:8080", (Endpoint("app", 8080),)),
        "b:80": Upstream("b:80", (Endpoint("b", 80),)),
    }
    assert snapshot.routes[0].upstreams == (("app:8080", 1),)
    assert snapshot.routes[0].fallback == FallbackPolicy(upstream="b:80")


def test_values_from_the_environment_are_read_as_the_key_wants_them() -> None:
    text = (
        "version: ${V}\nupstreams:\n"
        '  app: {endpoints: ["${HOST:-127.0.0.1}:${PORT}"], limits: {max_pending: "${N}"}}\n'
        "routes:\n"
        "- name: a\n  upstream: app\n  deadline: {recover_from_trace: '${B}'}\n"
        "  timeouts: {request: '${T}'}\n"
        "  request_headers: {set: {x-version: '${N}'}}\n  circuit_breaker:\n    failure_on:\n    - ${S}\n"
    )
    environ = {"V": "1", "PORT": "80", "N": "12", "B": "false", "T": "3s", "S": "429", "HOST": ""}
    snapshot = load_text(text, environ=environ).snapshot
    route = snapshot.routes[0]
    assert snapshot.upstreams["app"].endpoints == (Endpoint("127.0.0.1", 80),)
    assert snapshot.upstreams["app"].limits.max_pending == 12
    assert route.deadline.recover_from_trace is False
    assert route.timeouts.request_seconds == 3.0
    assert route.request_headers.set == ((b"x-version", b"12"),)
    assert route.breaker.failure_on == {429}


def test_a_secret_is_not_shown_in_a_problem() -> None:
    text = HEAD + "routes:\n- {name: a, upstream: app, request_headers: {set: {authorization: '${TOKEN}'}}}\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text, environ={"TOKEN": "s3cret\n"})
    assert "s3cret" not in str(caught.value)


def test_the_environment_of_the_process_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDECAR_TEST_PORT", "81")
    file = tmp_path / "a.yaml"
    file.write_text('version: 1\nupstreams: {app: {endpoints: ["a:${SIDECAR_TEST_PORT}"]}}\nroutes: []\n')
    assert load_file(file).snapshot.upstreams["app"].endpoints == (Endpoint("a", 81),)
    assert load_file(file, {"SIDECAR_TEST_PORT": "82"}).snapshot.upstreams["app"].endpoints == (
        Endpoint("a", 82),
    )


def test_a_body_file_is_read_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "body.json").write_bytes(b"[]")
    file = tmp_path / "a.yaml"
    file.write_text(HEAD + "routes:\n- {name: a, upstream: app, fallback: {body_file: body.json}}\n")
    first = load_file(file, {}).snapshot
    assert first.routes[0].fallback == FallbackPolicy(body=b"[]")
    assert first.files == (str(file), str(tmp_path / "body.json"))
    (tmp_path / "body.json").write_bytes(b"{}")
    assert load_file(file, {}).snapshot.digest != first.digest


def test_a_token_file_lets_the_admin_listen_everywhere() -> None:
    text = f"{HEAD}admin: {{address: '0.0.0.0:15000', token_file: token}}\nroutes: []\n"
    assert load_text(text, "conf/a.yaml").snapshot.admin == Admin(Address("0.0.0.0", 15000), "conf/token")


def test_a_directory_is_merged_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "20.yml").write_text("version: 1\nroutes:\n- {name: b, upstream: b}\n")
    (tmp_path / "10.yaml").write_text(HEAD + "routes:\n- {name: a, upstream: app}\n")
    (tmp_path / "30.yaml").write_text("upstreams: {b: {endpoints: ['b:1']}}\n")
    (tmp_path / "notes.txt").write_text("not read")
    (tmp_path / ".hidden.yaml").write_text("not: read")
    snapshot = load_file(tmp_path, {}).snapshot
    assert [route.name for route in snapshot.routes] == ["a", "b"]
    assert list(snapshot.upstreams) == ["app", "b"]
    assert snapshot.files == tuple(str(tmp_path / name) for name in ("10.yaml", "20.yml", "30.yaml"))


def test_what_two_files_of_a_directory_both_say_is_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "1.yaml", tmp_path / "2.yaml"
    one.write_text(HEAD + "drain_timeout: 1s\nroutes:\n- {name: a, upstream: app}\n")
    two.write_text(
        "drain_timeout: 1s\nupstreams: {app: {endpoints: ['b:1']}}\nroutes:\n- {name: a, upstream: app}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_file(tmp_path, {})
    assert messages(caught.value) == [
        f"{two}:1:1: 'drain_timeout' stands in two files: first given at {one}:3:1",
        f"{two}:2:13: duplicate upstream 'app': first given at {one}:2:13",
        f"{two}:4:10: duplicate route 'a': first given at {one}:5:10",
    ]


def test_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    one, two, three = (tmp_path / f"{n}.yaml" for n in (1, 2, 3))
    one.write_text("a: 1\na: 2\n")
    two.write_text("[")
    three.write_bytes(b"\xff")
    with pytest.raises(ConfigError) as caught:
        load_file(tmp_path, {})
    assert [problem.file for problem in caught.value.problems] == [str(one), str(two), str(three)]


def test_files_that_cannot_be_read_are_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_file(tmp_path / "none.yaml", {})
    assert messages(caught.value) == [f"{tmp_path}/none.yaml:1:1: cannot be read: No such file or directory"]
    with pytest.raises(ConfigError) as caught:
        load_file(tmp_path, {})
    assert messages(caught.value) == [f"{tmp_path}:1:1: the directory holds no *.yaml or *.yml"]


def test_a_problem_is_shown_with_its_line_and_a_caret() -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(HEAD + "routes:\n- {name: a, upstrem: app}\n", "s.yaml")
    assert str(caught.value) == (
        "s.yaml:4:3: missing key 'upstream' (or 'weights', 'redirect' or 'respond')\n"
        "- {name: a, upstrem: app}\n"
        "  ^\n"
        "s.yaml:4:13: unknown key 'upstrem': did you mean 'upstream'?\n"
        "- {name: a, upstrem: app}\n"
        "            ^"
    )


def test_a_very_long_line_is_cut_around_the_caret() -> None:
    problem = Problem("f", 1, 5001, "m", "a" * 5000 + "X" + "b" * 5000)
    _, line, caret = str(problem).split("\n")
    assert len(line) < 130
    assert line[caret.index("^")] == "X"


def test_check_prints_every_problem_and_says_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = str(EXAMPLES / "minimal.yaml"), tmp_path / "bad.yaml"
    bad.write_text("version: 2\nroutes: []\n")
    assert main(["check", good, str(bad)]) == 2
    printed = capsys.readouterr()
    assert printed.out == f"{good}: ok\n"
    assert printed.err == f"{bad}:1:10: version 2 is not known: write version: 1\nversion: 2\n         ^\n"
    assert main(["check", good]) == 0


def test_a_thousand_routes_cost_five_times_what_two_hundred_do() -> None:
    route = (
        "- name: r{0}\n  listener: outbound\n"
        "  match: {{hosts: [h{0}], path: {{prefix: /v{0}}}, methods: [POST]}}\n"
        "  upstream: app\n  timeouts: {{request: 2s, attempt: 800ms}}\n"
        "  circuit_breaker: {{minimum_calls: 20, failure_rate_threshold: 50%}}\n"
    )

    def calls(count: int) -> float:
        routes = "".join(route.format(n) for n in range(count))
        counted = Calls()
        counted.start()
        snapshot = load_text(HEAD + "defaults: {deadline: {max: 10s}}\nroutes:\n" + routes).snapshot
        total = counted.stop()
        assert len(snapshot.routes) == count
        return total

    calls(1)  # what is made once for all
    assert calls(1000) < 5.5 * calls(200)


WORDS = st.sampled_from(
    [
        *("version", "upstreams", "routes", "defaults", "name", "upstream", "match", "timeouts", "request"),
        *("circuit_breaker", "sliding_window", "type", "count", "size", "fallback", "body_file", "endpoints"),
        *("listeners", "admin", "address", "weights", "rewrite", "prefix", "regex", "app", "127.0.0.1:1"),
        *(
            "1",
            "2s",
            "true",
            "null",
            "/",
            "(",
            "-",
            ":",
            "{",
            "}",
            "[",
            "]",
            ",",
            "&",
            "*",
            "!",
            "#",
            "|",
            ">",
        ),
        *("'", '"', "%", "@", "`", "${A}", "${", "<<:", "\n", "\n-", "\n  ", "\t", "&a", "*a", "!!str"),
    ]
)


def problems_of(text: str) -> tuple[Problem, ...] | None:
    """None for a text that loads."""
    try:
        load_text(text)
    except ConfigError as error:
        return error.problems
    return None


@settings(max_examples=300)
@given(st.lists(WORDS, max_size=40).map(" ".join) | st.text(max_size=100))
def test_garbage_is_refused_and_nothing_else_happens(text: str) -> None:
    for candidate in (
        text,
        f"{HEAD}routes:\n- {text}\n",
        f"{HEAD}routes:\n- {{name: a, upstream: app, {text}}}\n",
    ):
        problems = problems_of(candidate)
        assert problems is None or [str(problem) for problem in problems]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = [key for key in keys_below(File) if "*" not in key and not key.startswith("version")]
ROUTE_KEYS = [key.removeprefix("routes.*.") for key in keys_below(File) if key.startswith("routes.*.")]


@settings(max_examples=300)
@given(st.sampled_from(KEYS), st.sampled_from(ROUTE_KEYS), JSON, JSON)
def test_any_value_under_any_key_is_read_or_refused(
    key: str, route_key: str, value: object, other: object
) -> None:
    def nested(path: str, leaf: object) -> dict[str, object]:
        for part in reversed(path.split(".")):
            leaf = [leaf] if part == "*" else {part: leaf}
        assert isinstance(leaf, dict)
        return leaf

    top: dict[str, object] = {
        "version": 1,
        "upstreams": {"app": {"endpoints": ["a:1"]}},
        "routes": [{"name": "a", "upstream": "app", **nested(route_key, other)}],
        **nested(key, value),
    }
    assert problems_of(json.dumps(top)) != ()


def test_more_routes_than_the_container_has_memory_for_are_refused_before_anything_is_made_of_them(
    tmp_path: Path,
) -> None:
    file = tmp_path / "sidecar.yaml"
    routes = "".join(f"- {{name: r{number}, upstream: app}}\n" for number in range(4))
    file.write_text(f'version: 1\nupstreams: {{app: {{endpoints: ["a:80"]}}}}\nroutes:\n{routes}')
    assert len(load_file(file, {}, 4).snapshot.routes) == 4
    with pytest.raises(ConfigError) as caught:
        load_file(file, {}, 3)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (3, 1)
    assert problem.message == (
        "4 routes do not fit into this container's limit of memory, which is enough for 3: raise the limit (16 KiB a "
        "route), or divide the routes among several sidecars"
    )


def test_https_stands_for_tls_with_its_port_and_the_systems_cas() -> None:
    text = """\
version: 1
upstreams:
  bank: {endpoints: ["https://api.bank.test", "https://[::1]:8443"], protocol: auto}
  plain: {endpoints: ["api.bank.test:443"]}
routes:
- {name: bank, upstream: bank}
- {name: url, upstream: "https://shop.test", fallback: {upstream: "https://other.test:444"}}
"""
    upstreams = load_text(text).snapshot.upstreams
    assert upstreams["bank"].tls == UpstreamTls()
    assert upstreams["bank"].endpoints == (Endpoint("api.bank.test", 443), Endpoint("::1", 8443))
    assert upstreams["plain"].tls is None
    assert upstreams["shop.test:443"].tls == upstreams["other.test:444"].tls == UpstreamTls()
    told = UpstreamSection.told(upstreams["bank"])
    assert told["endpoints"] == "[https://api.bank.test:443, https://[::1]:8443]"
    assert told["tls.ca"] == "those of the system"


def test_files_of_tls_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "a.yaml").write_text("""\
version: 1
listeners:
  inbound:
    tls:
      certificates: [{chain: a.crt, key: /abs/a.key}, {chain: b.crt, key: sub/b.key}]
      client_ca: ca.crt
      client: request
      minimum_version: 1.3
    timeouts: {handshake: 3s}
routes: [{name: a, upstream: up}]
""")
    (tmp_path / "conf" / "b.yaml").write_text("""\
upstreams:
  up: {endpoints: ["x:1"], tls: {ca: ../ca.crt, certificate: {chain: us.crt, key: us.key}}}
""")
    snapshot = load_file(tmp_path / "conf", {}).snapshot
    conf = f"{tmp_path}/conf"
    listener = snapshot.listeners["inbound"]
    assert listener.timeouts.handshake_seconds == 3.0
    assert listener.tls == ListenerTls(
        certificates=(
            CertificateFiles(f"{conf}/a.crt", "/abs/a.key"),
            CertificateFiles(f"{conf}/b.crt", f"{conf}/sub/b.key"),
        ),
        client_ca=f"{conf}/ca.crt",
        client=ClientCertificate.REQUEST,
        minimum_version=TlsVersion.TLS_1_3,
    )
    pair = CertificateFiles(f"{conf}/us.crt", f"{conf}/us.key")
    assert snapshot.upstreams["up"].tls == UpstreamTls(ca=f"{conf}/../ca.crt", certificate=pair)
    assert set(snapshot.files) == {f"{conf}/a.yaml", f"{conf}/b.yaml"}
