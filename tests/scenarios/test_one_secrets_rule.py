"""Log line, spans, admin API and messages agree on which names are those of secrets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.config.load import load_text
from sidecar.telemetry.span_shape import SpanShaper
from sidecar.telemetry.spans import SpanRecorder, TransitionIds
from tests.scenarios.operator import operator, serving
from tests.scenarios.stage import OK, get, saying
from tests.support.proxy import HEADER, port
from tests.support.raw import raw_client, raw_upstream
from tests.support.secret_names import PLAIN, SECRET
from tests.telemetry.fakes import FakeExchange

HALVES = [
    names for names in (SECRET, PLAIN) for names in (names[: len(names) // 2], names[len(names) // 2 :])
]


def query_of(names: tuple[str, ...]) -> str:
    return "&".join(f"{name}=hush" for name in names)


@pytest.mark.parametrize("names", HALVES)
async def test_the_access_log_tells_no_secret_of_a_query(names: tuple[str, ...], tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with raw_upstream(saying(OK)) as app:
        text = HEADER.replace('format: "off"', "format: json")
        snapshot = load_text(
            f"{text}upstreams: {{app: {{endpoints: ['127.0.0.1:{app.port}']}}}}\n"
            "routes: [{name: app, upstream: app}]\n"
        ).snapshot
        async with serving(snapshot, log) as worker, raw_client(port(worker)) as client:
            await client.send(get(f"/?{query_of(names)}".encode()))
            await client.responses([b"GET"])
    (line,) = [line for line in map(json.loads, log.read_text().splitlines()) if line["kind"] == "access"]
    assert_told(line["query"], names)


@pytest.mark.parametrize("names", HALVES)
def test_no_attribute_of_a_span_tells_a_secret_of_a_query(names: tuple[str, ...]) -> None:
    recorder = SpanRecorder(capacity=9, wake_at=9, wake=lambda: None)
    recorder.finished(FakeExchange(target=f"/;jsessionid=hush?{query_of(names)}".encode()))
    (record,) = recorder.exchanges
    server, client = SpanShaper(TransitionIds(b"k" * 16)).exchange_spans(record, 0)
    for span in (server, client):
        told = span.decode("latin-1")
        assert "/;jsessionid=REDACTED" in told
        assert_told(told.replace("jsessionid=REDACTED", ""), names)


def assert_told(text: str, names: tuple[str, ...]) -> None:
    for name in names:
        assert (f"{name}=REDACTED" in text, f"{name}=hush" in text) == (name in SECRET, name in PLAIN)


@pytest.mark.parametrize("name", [*SECRET, *PLAIN])
async def test_the_admin_api_tells_no_secret_of_a_route(name: str) -> None:
    file = FILE.replace("NAME", name)
    async with serving(load_text(HEADER + file).snapshot) as worker:
        told = (await operator(worker).send("GET", "/config")).body.decode()
    assert told.count("hush") == (0 if name in SECRET else 3)


FILE = """\
upstreams: {app: {endpoints: ["127.0.0.1:9"]}}
routes:
- name: app
  match: {headers: {"NAME": hush}, query: {"NAME": hush}}
  upstream: app
  request_headers: {set: {"NAME": hush}}
"""


@pytest.mark.parametrize("name", [*SECRET, *PLAIN])
def test_a_message_of_check_tells_no_secret_of_its_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text(
        "version: 1\nupstreams: {app: {endpoints: ['a:1']}}\nroutes:\n- name: a\n  upstream: app\n"
        f"  request_headers: {{set: {{'{name}': hush, x-a: [1]}}}}\n"
    )
    assert main(["check", str(file)]) != 0
    out, err = capsys.readouterr()
    assert "x-a: " in out + err
    assert ("hush" in out + err) is (name in PLAIN)


ENVIRON = {"HUSH": "Hush-1234"}
FROM_ENVIRONMENT = """\
version: 1
upstreams: {app: {endpoints: ["a:1"]}}
routes:
- name: prefixed
  match: {hosts: ["${HUSH}.example"], path: {prefix: "/${HUSH}/a"}}
  rewrite: {prefix: "/${HUSH}/b", host: "${HUSH}.internal"}
  upstream: app
- {name: exact, match: {path: {exact: "/${HUSH}"}}, upstream: app}
- {name: regex, match: {path: {regex: "/${HUSH}.*"}}, upstream: app}
- {name: rest, match: {headers: {x-a: "${HUSH}"}}, upstream: app}
"""


async def test_the_admin_api_tells_nothing_that_the_environment_gave() -> None:
    async with serving(load_text(HEADER + FROM_ENVIRONMENT[11:], environ=ENVIRON).snapshot) as worker:
        told = (await operator(worker).send("GET", "/config")).body.decode()
    assert "hush" not in told.lower()
    assert told.count("(hidden") == 7


def test_an_explanation_tells_nothing_that_the_environment_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "sidecar.yaml"
    file.write_text(FROM_ENVIRONMENT)
    for url in ("http://x/", "http://x/?a=1"):
        main(["explain", str(file), url])
        out, err = capsys.readouterr()
        assert "hush" not in (out + err).lower()
        assert "path / is not prefix (hidden)" in out or "host x is none of (hidden)" in out
        assert "path / is not exact (hidden)" in out
    assert os.environ["HUSH"] == ENVIRON["HUSH"]


ELSEWHERE = FROM_ENVIRONMENT.replace("/a}", "/a2}").replace('/b"', '/b2"').replace("x-a:", "x-b:")
BROKEN = """\
version: 1
upstreams: {app: {endpoints: ["a:1"]}}
routes:
- {name: a, match: {path: {prefix: "${HUSH}"}}, upstream: app}
- {name: b, match: {path: {regex: "(${HUSH}"}}, upstream: app}
- {name: c, match: {hosts: ["${HUSH}/x"]}, upstream: app}
- {name: d, upstream: app, rewrite: {prefix: "${HUSH}"}}
- {name: e, upstream: app, rewrite: {host: "a b ${HUSH}"}}
- {name: f, upstream: "${HUSH}"}
- {name: g, upstream: app, fallback: {status: 200, body_file: "/${HUSH}"}}
- {name: h, upstream: app, timeouts: {request: "${HUSH}"}}
"""


def test_a_diff_tells_nothing_that_the_environment_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HUSH", ENVIRON["HUSH"])
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(FROM_ENVIRONMENT)
    new.write_text(ELSEWHERE)
    main(["diff", str(old), str(new)])
    out, err = capsys.readouterr()
    assert "hush" not in (out + err).lower()
    assert out.count("(hidden") >= 4


def test_no_message_tells_what_the_environment_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HUSH", ENVIRON["HUSH"])
    file = tmp_path / "sidecar.yaml"
    file.write_text(BROKEN)
    assert main(["check", str(file)]) == 2
    out, err = capsys.readouterr()
    assert "hush-1234" not in (out + err).lower()
    for line in range(4, 12):
        assert f"{file}:{line}:" in err, line
