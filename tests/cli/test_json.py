"""`--json` of every command that tells something, and flags that mean the same everywhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.__main__ import main
from sidecar.cli.as_json import print_line, print_object
from sidecar.cli.commands import COMMANDS, parser_of
from tests.cli.conftest import Scene
from tests.tuning.test_sources import written as written_log
from tests.tuning.traffic import down, seen

pytestmark = pytest.mark.process

OTHERS = {
    "run": "tells by its log",
    "init": "writes a file",
    "import": "writes YAML",
    "certs": "writes files",
    "schema": "is JSON as it is",
    "drain": "says nothing",
    "demo": "is a story",
    "inject": "writes YAML",
    "intercept": "writes rules",
    "webhook": "tells by its log",
    "completion": "writes a script",
    "man": "writes pages",
    "help": "is for people",
}
"""What has no `--json`, and why."""


def flags_of(command: str) -> dict[str, Any]:
    _, parsers = parser_of(*COMMANDS)
    return dict(parsers[command]._option_string_actions)


def words_of(scene: Scene) -> dict[str, list[str]]:
    """For each command that has it, a way to call it, beside `--json`."""
    asked = ["--admin", scene.admin]
    return {
        "check": ["check", scene.file],
        "explain": ["explain", scene.file, "/app"],
        "diff": ["diff", scene.file, scene.file],
        "status": ["status", *asked],
        "tune": written_log(scene.folder / "tune", seen(down, outages=1)),
        "breaker": ["breaker", "auto", "app", *asked],
        "healthcheck": ["healthcheck", scene.file],
        "version": ["version"],
    }


def test_every_command_that_tells_something_has_it() -> None:
    assert {name for name in COMMANDS if "--json" not in flags_of(name)} == set(OTHERS) & set(COMMANDS)


def test_each_prints_one_object_with_names_in_snake_case(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    (scene.folder / "tune").mkdir()
    all_words = words_of(scene)
    assert {*all_words, "tap"} == set(COMMANDS) - set(OTHERS)
    for name, words in all_words.items():
        code = main(words)
        capsys.readouterr()
        assert main([*words, "--json"]) == code
        out, err = capsys.readouterr()
        data = json.loads(out)
        assert err == ""
        assert out == json.dumps(data, indent=2, ensure_ascii=False) + "\n"
        assert [key for key in data if not re.fullmatch("[a-z][a-z0-9_]*", key)] == [], name


def test_a_stream_prints_one_a_line(scene: Scene) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "tap", "--json", "-n", "1", "--admin", scene.admin],
        stdout=subprocess.PIPE,
    )
    while process.poll() is None:
        subprocess.run(["curl", "-s", f"{scene.inbound}/said"], stdout=subprocess.DEVNULL, check=True)
    lines = process.communicate()[0].splitlines()
    assert [json.loads(line)["route"] for line in lines] == ["said"]


@pytest.mark.parametrize("show", [print_object, print_line])
def test_what_clients_wrote_moves_no_cursor(
    show: Callable[[dict[str, Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"path": "/\x1b\x7f\x9b2J\u202e\u2028\U000e0001é\n", "more": ["a"]}
    show(data)
    text = capsys.readouterr().out
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == data


def test_what_says_no_is_an_object_too(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    bad = scene.folder / "bad.yaml"
    bad.write_text("version: 1\nroutes: [{name: a, upstream: b}]\nlisteners: {inbound: {tls: {}}}\n")
    assert main(["check", "--json", str(bad), scene.file]) == 2
    out, err = capsys.readouterr()
    wrong, good = json.loads(out)["files"]
    assert err == ""
    assert (wrong["is_good"], good) == (False, {"file": scene.file, "is_good": True, "problems": []})
    assert {(one["severity"], one["file"], one["line"] > 0) for one in wrong["problems"]} == {
        ("error", str(bad), True)
    }
    warned = scene.folder / "warned.yaml"
    warned.write_text(
        "version: 1\nlisteners: {inbound: {tls: {certificate: {chain: /no, key: /no}}}}\n"
        "upstreams: {a: {endpoints: ['b:1']}}\nroutes: [{name: a, upstream: a}]\n"
    )
    assert main(["check", "--json", "--strict", str(warned)]) == 1
    problems = json.loads(capsys.readouterr().out)["files"][0]["problems"]
    assert {one["severity"] for one in problems} == {"warning"}
    assert any((one["key"] or "").startswith("listeners.inbound.tls") for one in problems)
    assert not any(one["message"].startswith("warning") for one in problems)
    off = scene.folder / "off.json.yaml"
    off.write_text('version: 1\nprobes: {address: "127.0.0.1:1"}\n')
    assert main(["healthcheck", "--json", str(off)]) == 1
    told = json.loads(capsys.readouterr().out)
    trouble = told.pop("trouble")
    assert told == {"probe": "ready", "url": "http://127.0.0.1:1", "is_passing": False}
    assert "no sidecar listens there" in trouble


def test_without_a_result_stdout_is_empty(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = ["--admin", "http://127.0.0.1:1", "--json"]
    for words in (["status"], ["tap"], ["tune", "app"], ["breaker", "auto", "app"]):
        assert main([*words, *nobody]) in (1, 2)
        out, err = capsys.readouterr()
        assert out == ""
        assert "no sidecar listens there" in err
    assert main(["explain", "--json", str(scene.folder / "none"), "/"]) == 2
    assert capsys.readouterr().out == ""


def test_a_short_flag_stands_for_one_long_one_and_a_flag_takes_a_value_everywhere_or_nowhere() -> None:
    long_of, takes = defaultdict(set), defaultdict(set)
    _, parsers = parser_of(*COMMANDS)
    for parser in parsers.values():
        for action in parser._actions:
            for flag in action.option_strings:
                takes[flag].add(action.nargs == 0)
                if not flag.startswith("--"):
                    long_of[flag].add(action.option_strings[-1])
    assert {flag: found for flag, found in long_of.items() if len(found) > 1} == {}
    assert {flag for flag, found in takes.items() if len(found) > 1} == set()
