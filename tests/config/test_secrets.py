"""What may be a secret is told by nobody: `check`, `explain`, `diff`, the dump of a configuration."""

import re
from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.config.load import load_text
from sidecar.config.problems import ConfigError
from sidecar.config.tell import render

ENVIRON = {"SECRET": "hush-1234", "PORT": "8080"}
GOOD = """\
version: 1
admin: {trace_url: "http://ann:hush-url@jaeger/{trace_id}?key=hush-key"}
telemetry:
  otlp:
    endpoint: "http://ann:hush-url@collector:4317"
    headers: {x-honeycomb-team: hush-literal, x-other: "${SECRET}"}
upstreams: {app: {endpoints: ["a:${PORT}"]}}
routes:
- name: a
  match:
    headers: {x-api-key: hush-literal, x-tenant: "${SECRET}-tenant", x-plan: gold, x-auth: {regex: hush-a|hush-b}}
    query: {access_token: hush-literal, v: "${SECRET}-v", page: "1", w: {regex: "${SECRET}-w"}, u: {regex: "u+"}}
  upstream: app
  request_headers: {set: {authorization: Bearer hush-literal, x-a: "${SECRET}-set", x-plain: seen}}
  response_headers: {add: {set-cookie: hush-literal, x-b: "${SECRET}-add"}}
  circuit_breaker: {failure_header: {x-c: "${SECRET}-failure"}}
  fallback: {status: 200, headers: {x-d: "${SECRET}-fallback"}, body: "${SECRET}-body"}
"""


def test_a_dump_tells_no_secret_and_everything_else() -> None:
    snapshot = load_text(GOOD, environ=ENVIRON).snapshot
    told = str({**render.process(snapshot), **render.route(snapshot.routes[0])})
    assert "hush" not in told
    assert "x-plan: gold" in told
    assert "page: 1" in told
    assert "x-plain: seen" in told
    mark = r"\(hidden [0-9a-f]{4}\)"
    assert re.search(f"http://{mark}@collector:4317", told)
    assert re.search(f"http://{mark}@jaeger/{{trace_id}}\\?{mark}", told)
    assert "u: {regex: u+}" in told
    assert told.count("(hidden") == 18


def test_a_changed_secret_is_seen_to_have_changed() -> None:
    one, two = (
        render.route(load_text(GOOD, environ={**ENVIRON, "SECRET": value}).snapshot.routes[0])
        for value in ("hush-1", "hush-2")
    )
    assert one["match"] != two["match"]
    assert one["fallback.body"] != two["fallback.body"]


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_an_explanation_tells_no_secret(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "sidecar.yaml"
    file.write_text(GOOD)
    given = {
        "x-api-key": "hush-literal",
        "x-tenant": "hush-1234-tenant",
        "x-plan": "gold",
        "x-auth": "hush-a",
    }
    for count in range(len(given) + 1):
        headers = [part for pair in list(given.items())[:count] for part in ("-H", ": ".join(pair))]
        url = "http://x/?access_token=hush-literal&v=hush-1234-v&page=1&w=hush-1234-w&u=u"
        main(["explain", str(file), *words, "--listener", "inbound", *headers, url])
        out, err = capsys.readouterr()
        assert "hush" not in (out + err).replace(url, "")


def test_a_comparison_tells_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(GOOD)
    new.write_text(GOOD.replace("${SECRET}", "${SECRET}0").replace("hush-literal", "hush-other"))
    assert main(["diff", str(old), str(new)]) in (0, 1)
    out, err = capsys.readouterr()
    assert "request_headers.set" in out
    assert "hush" not in out + err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("probes: {address: '${SECRET}'}\n", "'${SECRET}' has no port"),
        ("probes: {address: '${SECRET}:99999'}\n", ": "),
        ("probes: {address: '${SECRET}:80'}\n", "'${SECRET}:80' is a name"),
        ("drain_timeout: ${SECRET}\n", "'${SECRET}' is not a duration"),
        ("drain: {delay: 'x${SECRET}'}\n", "'x${SECRET}' is not a duration"),
        ("telemetry: {otlp: {endpoint: '${SECRET}'}}\n", "'${SECRET}' is not a URL"),
        ("telemetry: {otlp: {endpoint: 'http://c', protocol: '${SECRET}'}}\n", "got '${SECRET}'"),
        ("defaults: {circuit_breaker: {failure_rate_threshold: '${SECRET}'}}\n", "${SECRET}"),
        ("defaults: {retry: {on: ['${SECRET}']}}\n", "${SECRET}"),
        ('defaults: {request_headers: {set: {x-a: "${SECRET}\\nx"}}}\n', ": "),
    ],
)
def test_a_problem_shows_the_variable_and_not_what_it_holds(text: str, message: str) -> None:
    top = "version: 1\nupstreams: {app: {endpoints: ['a:1']}}\nroutes: [{name: a, upstream: app}]\n"
    with pytest.raises(ConfigError) as caught:
        load_text(top + text, environ=ENVIRON)
    assert message in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_problem_with_a_reference_shows_the_variable_too() -> None:
    text = "version: 1\nupstreams: {app: {endpoints: ['a:1']}}\nroutes: [{name: a, upstream: '${SECRET}'}]\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text, environ=ENVIRON)
    assert "unknown upstream '${SECRET}'" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_what_is_too_short_for_a_secret_leaves_a_message_readable() -> None:
    text = "version: 1\nupstreams: {app: {endpoints: ['a:1']}}\nroutes: []\ndrain_timeout: ${X}\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text, environ={"X": "s"})
    assert "'s' is not a duration such as 250ms" in str(caught.value)


def test_a_value_with_variables_and_a_secret_is_hidden_and_one_with_variables_alone_is_not() -> None:
    text = (
        "version: 1\nroutes:\n- name: r\n  respond: {}\n"
        '  request_headers: {set: {x-a: "${HUSH}-${request.id}", x-b: "${request.id}"}}\n'
    )
    (route,) = load_text(text, environ={"HUSH": "quietly"}).snapshot.routes
    told = render.route(route)["request_headers.set"]
    assert "quietly" not in told
    assert "x-b: ${request.id}" in told
