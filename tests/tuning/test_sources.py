"""Where calls and the present policy come from: a running sidecar, or its log; else a refusal with its reason."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.__main__ import main
from sidecar.config.load import load_text
from sidecar.config.tell import render
from sidecar.core.outcome import Verdict
from sidecar.core.snapshot import BreakerPolicy
from sidecar.core.transition import State
from sidecar.tuning import logs
from sidecar.tuning.logs import read_log
from sidecar.tuning.pages import read_pages
from sidecar.tuning.present import present_in, present_of
from sidecar.tuning.report import as_data, as_text, candidate
from sidecar.tuning.seen import Call, CannotTune
from sidecar.tuning.tune import Tuned, tune
from tests.tuning.traffic import down, quarter, seen

FILE = """\
version: 1
upstreams:
  app: {endpoints: ["127.0.0.1:80", "127.0.0.2:80"], ejection: {consecutive_failures: 3, interval: 7s}}
  other: {endpoints: ["127.0.0.1:81"], ejection: {mode: off}}
routes:
- name: app
  upstream: app
  circuit_breaker:
    consecutive_failures: 3
    sliding_window: {type: count, size: 50}
    failure_on: [5xx, 429, "grpc:UNAVAILABLE"]
    failure_header: {x-fail: "1"}
    half_open: {max_calls: 2, successes: 3, check: {path: /healthz}}
    ramp: 3s
    candidate: {failure_rate_threshold: 30%}
- {name: redirected, match: {path: {prefix: /old}}, redirect: {status: 302, path: /new}}
"""


def line(call: Call, **more: Any) -> str:
    """As the access log writes it, with `tried`."""
    one = {
        "at": call.at, "attempt": call.attempt, "is_hedge": False, "upstream": call.upstream,
        "endpoint": call.endpoint, "head_ms": (call.head_seconds or 0.0) * 1000,
        "whole_ms": call.whole_seconds * 1000, "status": call.status,
        "verdict": None if call.verdict is None else call.verdict.value, "state": call.state.value,
        "reason": None,
    }  # fmt: skip
    refused = {"refused_at": call.at, "refused_by": "up", "breaker": "open", "tried": []}
    return json.dumps(
        {"kind": "access", "route": "app"} | (refused if call.is_refused else {"tried": [one]}) | more
    )


def plain(call: Call) -> Call:
    """Without what a log does not have: numbers of requests, and the last digits."""
    head = None if call.head_seconds is None else round(call.head_seconds, 9)
    return replace(call, request=0, head_seconds=head, whole_seconds=round(call.whole_seconds, 9))


def test_a_log_says_what_was_seen() -> None:
    calls = seen(quarter, outages=1)
    calls.insert(5, Call(calls[4].at + 0.001, "up", state=State.OPEN))
    others = ['{"kind": "config.reload"}', "", line(calls[0], route="other")]
    found, before = read_log([*others, *map(line, calls)], "app", "up")
    assert before == 0
    assert [plain(one) for one in found] == [plain(one) for one in calls]


def test_the_last_calls_of_a_long_log_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_CALLS", 100)
    calls = seen(down, outages=1)
    found, before = read_log(map(line, calls), "app", "up")
    assert [one.at for one in found] == [one.at for one in calls[-100:]]
    assert before == len(calls) - 100


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "no line of the log is about a request of 'app'"),
        (["2026-11-28 INFO access GET / 200"], "line 1 is no JSON: set telemetry.access_log.format to json"),
        (['{"kind": "access", "route": "app", "attempts": 1}'], "set telemetry.access_log.attempts to true"),
        (
            ['{"kind": "access", "route": "app", "tried": [], "sample_ratio": 0.5}'],
            "set telemetry.access_log.sample_ratio to 1",
        ),
        (
            ['{"kind": "access", "route": "app", "tried": [{"upstream": "up", "reason": "new"}]}'],
            "is not written as this version reads it",
        ),
    ],
)
def test_what_is_no_use_is_refused_with_the_reason(lines: list[str], why: str) -> None:
    with pytest.raises(CannotTune) as refused:
        read_log(lines, "app", "up")
    assert why in str(refused.value)


ATTEMPT = json.loads(line(Call(1_700_000_000.0, "up", verdict=Verdict.SUCCESS, status=200)))["tried"][0]


@pytest.mark.parametrize("field", [name for name in ATTEMPT if name != "is_hedge"])
@pytest.mark.parametrize(
    "value", [10**400, 1e300, float("inf"), float("nan"), -1, [1], {"a": 1}, "\x1b[31m", "\ud800", ...]
)
def test_whatever_a_field_is_replaced_by_is_read_or_refused(field: str, value: object) -> None:
    """By the log and by the pages alike, and what is read can be told."""
    other = {name: told for name, told in ATTEMPT.items() if name != field}
    other |= {} if value is ... else {field: value}
    names = [[other.pop("upstream", None), other.pop("endpoint", None)]]
    page = {
        "dropped": 0, "next": None, "names": names, "columns": [*other, "endpoint"],
        "rows": [[*other.values(), 0]],
    }  # fmt: skip
    text = json.dumps({"kind": "access", "route": "app", "tried": [other | {"upstream": names[0][0]}]})
    for read in (lambda: read_log([text], "app", "up")[0], lambda: read_pages(lambda _: page, "app")[0]):
        with contextlib.suppress(CannotTune):
            found = tune("app", read(), BreakerPolicy(), {})
            as_text(found, 0).encode()
            json.dumps(as_data(found, 0), allow_nan=False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (100_000 * "[", "line 1 is no JSON"),
        ('{"kind": "access", "route": "app", "tried": ' + 100_000 * "[", "line 1 is no JSON"),
        ((logs.MAX_LINE + 1) * " ", "line 1 is longer than 1048576 characters"),
        ('{"kind": "access", "route": "app", "tried": null}', "as this version reads it"),
        ('{"kind": "access", "route": "app", "tried": "abc"}', "as this version reads it"),
        ('{"kind": "access", "route": "app", "tried": [1]}', "as this version reads it"),
        ('{"kind": "access", "route": "app", "tried": [], "refused_at": [1]}', "as this version reads it"),
        ('{"kind": "access", "route": "app", "tried": [], "refused_at": 1e999}', "as this version reads it"),
        (
            '{"kind": "access", "route": "app", "tried": [], "refused_at": 1, "refused_by": {"a": 1}}',
            "as this version reads it",
        ),
        (
            '{"kind": "access", "route": "app", "tried": [], "refused_at": 1, "breaker": "ajar"}',
            "as this version reads it",
        ),
    ],
)
def test_a_line_of_somebody_else_is_refused(text: str, why: str) -> None:
    with pytest.raises(CannotTune, match=why):
        read_log([text], "app", "up")


@pytest.mark.parametrize(
    "page", [{}, [], None, {"dropped": 0, "names": [], "columns": ["a"], "rows": [[1, 2]]}]
)
def test_a_page_of_somebody_else_is_refused(page: object) -> None:
    with pytest.raises(CannotTune, match="as this version reads it"):
        read_pages(lambda _: page, "app")


def test_a_line_without_end_is_not_read_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = written(tmp_path, seen(down, outages=1))
    Path(words[3]).write_text(8 * logs.MAX_LINE * " ")
    assert main(words) == 2
    assert "line 1 is longer than" in capsys.readouterr().err


def test_what_a_running_sidecar_says_of_its_policy_is_the_policy() -> None:
    snapshot = load_text(FILE).snapshot
    route = snapshot.routes[0]
    answer = {
        "active": {
            "routes": [{"name": "app", **render.route(route)}],
            "upstreams": {name: render.upstream(one) for name, one in snapshot.upstreams.items()},
        }
    }
    told = present_of(lambda _: answer, "app")
    breaker = replace(route.breaker, candidate=None, half_open_check=None, failure_headers=())
    assert told.policy == breaker
    assert told.ejections == {name: one.ejection for name, one in snapshot.upstreams.items()}


@pytest.fixture(scope="module")
def tuned() -> Tuned:
    calls = seen(quarter, outages=3, rate=12.0, ill=60.0)
    return tune("app", calls, BreakerPolicy(consecutive_failures=3), {})


@pytest.mark.parametrize("name", ["12", "1.5", "1e5", "true", "null", "1.2.3"])
def test_a_route_may_have_a_name_that_looks_like_another_kind(name: str, tuned: Tuned) -> None:
    file = (
        'version: 1\nupstreams: {up: {endpoints: ["127.0.0.1:80"]}}\n'
        f'routes:\n- name: "{name}"\n  upstream: up\n  circuit_breaker: {{consecutive_failures: 3}}\n'
    )
    snapshot = load_text(file).snapshot
    present = present_in(snapshot, name)
    answer = {"active": {
        "routes": [render.route(snapshot.routes[0])],
        "upstreams": {"up": render.upstream(snapshot.upstreams["up"])},
    }}  # fmt: skip
    assert present_of(lambda _: answer, name).policy == present.policy
    head = candidate(replace(tuned, route=name)).splitlines()[1]
    assert load_text(file.replace(f'- name: "{name}"', head)).snapshot.routes[0].name == name


def test_a_route_without_a_breaker_is_named() -> None:
    snapshot = load_text(FILE).snapshot
    assert present_in(snapshot, "app").home == "app"
    with pytest.raises(CannotTune, match="did you mean 'app'"):
        present_in(snapshot, "apps")
    with pytest.raises(CannotTune, match="asks no upstream"):
        present_in(snapshot, "redirected")


def written(tmp_path: Path, calls: list[Call]) -> list[str]:
    log, file = tmp_path / "access.log", tmp_path / "sidecar.yaml"
    log.write_text("\n".join(map(line, calls)))
    upstreams = 'upstreams: {up: {endpoints: ["127.0.0.1:80"]}}'
    file.write_text(
        f"version: 1\n{upstreams}\nroutes:\n- name: app\n  upstream: up\n"
        "  circuit_breaker: {consecutive_failures: 3}\n"
    )
    return ["tune", "app", "--from", str(log), "--config", str(file)]


def test_the_command_writes_a_candidate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = written(tmp_path, seen(quarter, outages=3, rate=12.0, ill=60.0))
    assert main([*words, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["candidate"] == {"consecutive_failures": 20}
    assert data["yaml"] == (
        "routes:\n- name: app\n  circuit_breaker:\n    candidate: {consecutive_failures: 20}\n"
    )
    assert len(data["outages"]) == len(data["by_outage"]) == 3
    present, tried = (data[name]["in_outages"]["all_good"] for name in ("present", "tried"))
    assert tried["failed"] + tried["good_refused"] < present["failed"] + present["good_refused"]


def test_the_command_keeps_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = written(tmp_path, seen(down, outages=1))
    assert main(words) == 1
    text = capsys.readouterr().out
    assert "keep what you have: 1 outage is in the data: 3 are needed" in text
    assert "slow_call_duration: 100ms" in text
    assert "what a policy that admits more would do to the upstream" in text
    assert main([*words[:3], str(tmp_path / "none"), *words[4:]]) == 2
    assert "No such file" in capsys.readouterr().err
