"""Whatever a file holds, or is: problems with a place, in bounded time, and no traceback."""

from __future__ import annotations

import difflib
import json
import os
import random
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.__main__ import main
from sidecar.config import problems
from sidecar.config.load import MAX_PROBLEMS, ConfigError, load_file, load_text
from sidecar.config.problems import MAX_REMEDIES
from sidecar.config.tell import hidden_in_problems
from sidecar.config.yaml import parse
from sidecar.config.yaml.nodes import Source, without_value

REFERENCE = (Path(__file__).parents[2] / "config" / "reference.yaml").read_bytes()
TOP = "version: 1\nupstreams: {a: {endpoints: ['a:1']}}\n"
PLACE = re.compile(r"[^\n:]*:[1-9][0-9]*:[1-9][0-9]*: \S[^\x00-\x09\x0b-\x1f\x7f-\x9f]*")
PIECES = [
    *(b"${ }|*a|&a |<<: *a|!!str |!!python/name:os |? |: |- |>|\"|'|#|[|]|{|@|`|on|~|${A:-${B}}").split(b"|"),
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\r",
        b"\t",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"---\n",
        b"%YAML 1.1\n",
    ),
    *(b'"\\x00"', b'"\\ud800"', b"\xed\xa0\x80", b"9" * 30),
]
ODD: list[Any] = [
    *(
        None,
        True,
        0,
        -1,
        1e308,
        10**40,
        float("inf"),
        "",
        "\t",
        "5",
        "5s",
        "9" * 400 + "s",
        "\u0663s",
        "a\nb",
    ),
    *(
        "é" * 300,
        "${X}",
        "${",
        "$${",
        "*",
        "[::1]:80",
        "unix:/",
        "http://[",
        "://",
        "(?=a)",
        "%zz",
        "a..b",
        "..",
    ),
    *("0.0.0.0:99999", "100%", [], {}, [[]], {"": ""}, {"a": {"b": 1}}, {"exact": None}, {"regex": "("}),
]


@pytest.mark.parametrize("seed", range(120))
def test_a_file_with_bytes_changed_is_taken_or_told_what_is_wrong(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    data = bytearray(REFERENCE)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(data))
        start = rng.randrange(len(data))
        new = rng.choice([rng.choice(PIECES), bytes([rng.randrange(256)]), data[start : start + 100], b""])
        data[at : at + rng.choice([0, 1, 20])] = new
    judge(bytes(data), tmp_path)


@pytest.mark.parametrize("seed", range(120))
def test_a_file_with_values_changed_is_taken_or_told_what_is_wrong(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    document = deepcopy(reference())
    for _ in range(rng.randint(1, 3)):
        within, key = rng.choice([*places(document)])
        within[key] = deepcopy(rng.choice([rng.choice(ODD), document[rng.choice([*document])]]))
    judge(json.dumps(document).encode(), tmp_path)


@cache
def reference() -> Any:
    """As data."""
    return yaml.safe_load(REFERENCE)


def places(within: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(within.items() if isinstance(within, dict) else enumerate(within)):
        yield within, key
        if isinstance(value, dict | list):
            yield from places(value)


def judge(data: bytes, directory: Path) -> None:
    (directory / "fallback.json").write_text("{}")
    file = directory / "sidecar.yaml"
    file.write_bytes(data)
    found: tuple[Any, ...] = ()
    try:
        load_file(file, {})
    except ConfigError as error:
        found = error.problems
        assert found
    for problem in found:
        assert PLACE.match(str(problem)), str(problem)
        assert problem.column <= len(problem.text) + 1 or not problem.text


def test_what_is_no_file_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A named pipe waits for a writer that never comes, and /dev/zero never ends."""
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "directory.yaml").mkdir()
    (tmp_path / "body.yaml").write_text(
        f"{TOP}routes: [{{name: r, upstream: a, fallback: {{body_file: pipe.yaml}}}}]"
    )
    for name in ("loop.yaml", "pipe.yaml", "directory.yaml", "body.yaml", "missing.yaml"):
        assert main(["check", str(tmp_path / name)]) == 2
    assert main(["check", "/dev/zero", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path}/pipe.yaml:1:1: cannot be read: it is no regular file" in told
    assert "/dev/zero:1:1: cannot be read: it is no regular file" in told
    assert "loop.yaml:1:1: cannot be read: Too many levels of symbolic links" in told
    assert "pipe.yaml: there is no such file" in told


def test_a_pipe_of_the_shell_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.write(writing, f"{TOP}routes: [{{name: r, upstream: a}}]\n".encode())
    os.close(writing)
    assert main(["check", f"/dev/fd/{reading}"]) == 0
    os.close(reading)


@pytest.mark.parametrize(
    "text",
    [
        "a: '" + "${X:-" * 300_000 + "'\n",
        f"{TOP}routes: []\nlisteners:\n"
        + "".join(f"  l{n}: {{address: 127.0.0.1:1, direction: inbound}}\n" for n in range(2000)),
        "version: 1\nupstreams:\n"
        + "".join(f"  up-{n}: {{endpoints: ['a:1']}}\n" for n in range(3000))
        + "routes:\n"
        + "".join(f"- {{name: r{n}, upstream: upp-{n}}}\n" for n in range(1000)),
    ],
    ids=["open variables", "listeners at one address", "unknown upstreams among many"],
)
def test_no_file_takes_the_square_of_its_length(text: str) -> None:
    """Each of these took minutes."""
    with pytest.raises(ConfigError):
        load_text(text)


ROUTES = "".join(f"- {{name: r{n}, upstream: a}}\n" for n in range(1000))


@pytest.mark.parametrize(
    "text",
    [
        f"{TOP}routes: [{{name: r, upstream: a, REPEATED}}]\n",
        f"{TOP}routes: [{{name: r, upstream: a, circuit_breaker: {{failure_on: [REPEATED]}}}}]\n",
        f"{TOP}routes: [{{name: r, weights: {{REPEATED}}}}]\n",
        "version: 1\nupstreams: {a: {endpoints: ['a:1'], failover: [REPEATED]}}\nroutes: []\n",
    ],
    ids=["unknown keys", "unknown words", "unknown upstreams", "failovers"],
)
def test_remedies_are_looked_for_as_often_as_somebody_may_read(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def counted(word: str, *_: Any, **__: Any) -> list[str]:
        compared.append(word)
        return []

    monkeypatch.setattr("difflib.get_close_matches", counted)
    colon = "" if "[REPEATED]" in text else ": 1"
    with pytest.raises(ConfigError) as caught:
        load_text(text.replace("REPEATED", ", ".join(f"k{n}{colon}" for n in range(2000))))
    assert 0 < len(compared) <= 2 * MAX_REMEDIES
    assert len(caught.value.problems) == MAX_PROBLEMS + 1


def test_the_first_problems_of_a_file_have_their_remedies_wherever_they_are_found() -> None:
    many = ", ".join(f"k{n}: 1" for n in range(2000))
    with pytest.raises(ConfigError) as caught:
        load_text(
            f"version: 1\nroutes: [{{name: r, upstream: a, tiemouts: {{}}}}]\n"
            f"upstreams: {{a: {{endpoints: ['a:1'], {many}}}}}\n"
        )
    assert caught.value.problems[0].message == "unknown key 'tiemouts': did you mean 'timeouts'?"


def test_of_many_long_words_few_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """To compare two such words takes a millisecond."""
    lengths: list[int] = []

    class Counted(difflib.SequenceMatcher[str]):
        def ratio(self) -> float:
            lengths.append(len(self.a) * len(self.b))
            return super().ratio()

    monkeypatch.setattr("difflib.SequenceMatcher", Counted)
    for length in (50, 120):
        names = "".join(f"  {'a' * length}{n}: {{endpoints: ['a:1']}}\n" for n in range(900))
        with pytest.raises(ConfigError):
            load_text(
                f"version: 1\nupstreams:\n{names}routes: [{{name: r, upstream: {'a' * (length - 1)}b}}]\n"
            )
    assert 0 < sum(lengths) < 200_000


def test_a_long_line_is_gone_over_once_however_many_problems_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    class Counted:
        def sub(self, new: str, text: str) -> str:
            looked_at.append(len(text))
            return text

    text = f"{TOP}routes: [{{name: r, upstream: a, {', '.join(f'k{n}: 1' for n in range(2000))}}}]\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    monkeypatch.setattr(problems, "_UNSHOWABLE", Counted())
    assert [*map(str, caught.value.problems)]
    assert sum(looked_at) < 500 * (MAX_PROBLEMS + 1)


def test_a_scalar_of_many_variables_is_gone_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    class Counted(str):
        def find(self, *arguments: Any) -> int:
            looked_at.append(1)
            return super().find(*arguments)

    made = parse._source

    def counted(text: str, name: str) -> Source:
        return Source(name, tuple(map(Counted, made(text, name).lines)))

    monkeypatch.setattr(parse, "_source", counted)
    with pytest.raises(ConfigError):
        load_text(
            f"{TOP}routes:\n- name: a\n  upstream: >\n" + "".join(f"    ${{N{n}}}\n" for n in range(1000))
        )
    assert len(looked_at) < 4000


def test_each_of_many_variables_has_its_own_place() -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(f"{TOP}routes:\n- name: a\n  upstream: >\n    ${{A}} ${{B}} ${{A}}\n    x ${{C}}\n")
    assert [(one.line, one.column) for one in caught.value.problems] == [(6, 5), (6, 10), (7, 7)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            f"x-a: &a {'y' * 200_000}\n{TOP}routes: [{', '.join(['*a'] * 1000)}]\n",
            "aliases stand for more than 100000 nodes (a text is one for each 250 characters)",
        ),
        (
            TOP
            + f"defaults: {{fallback: {{status: 200, headers: {{{', '.join(f'h{n}: v' for n in range(1200))}}}}}}}\n"
            + f"routes:\n{ROUTES}",
            "`defaults` has 1204 nodes (a text is one for each 250 characters), which 1000 routes would have: more "
            "than 1000000; write what few of them need into these",
        ),
        (
            TOP + f"defaults: {{timeouts: {{request: {'9' * 250_000}}}}}\nroutes:\n{ROUTES}",
            "`defaults` has 1003 nodes (a text is one for each 250 characters), which 1000 routes would have: more "
            "than 1000000; write what few of them need into these",
        ),
    ],
    ids=["aliases of a long text", "defaults of many fields", "defaults of a long text"],
)
def test_what_a_file_has_once_is_not_read_without_bounds(text: str, why: str) -> None:
    """One of 260 KB took a gigabyte of memory."""
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    assert [one.message for one in caught.value.problems] == [why]


def test_what_an_alias_stands_for_is_looked_at_for_secrets_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    made = hidden_in_problems._url_spans

    def counted(text: str, *rest: Any) -> Any:
        looked_at.append(len(text))
        return made(text, *rest)

    monkeypatch.setattr(hidden_in_problems, "_url_spans", counted)
    monkeypatch.setitem(hidden_in_problems._LOOK_AT, hidden_in_problems._How.SETTING, counted)
    with pytest.raises(ConfigError):
        load_text(f"x-a: &a {'y' * 1000}\n{TOP}routes: [{', '.join(['*a'] * 1000)}]\n")
    assert sum(looked_at) < 20_000


@pytest.mark.parametrize("value", ["Straße", "İstanbul", "ſecret", "HUSH", "it's", "K-kelvin"])
def test_a_value_of_the_environment_is_hidden_in_either_case(value: str) -> None:
    for told in (value, value.lower(), repr(value)[1:-1]):
        assert without_value(f"x {told} y {told}", value, "${V}") == "x ${V} y ${V}"


@pytest.mark.parametrize("value", ["many", "Straße", "İstanbul", "it's", "a${V:-", "${V:-", "x many"])
def test_what_a_variable_stands_for_is_hidden_once_where_its_default_is_the_same(value: str) -> None:
    instead = f"${{V:-{value}}}"
    for told in (value, value.lower(), repr(value)[1:-1], instead):
        assert without_value(f"x {told} y '{told}'", value, instead) == f"x {instead} y '{instead}'"
        assert without_value(f"{instead} {told} {instead}", value, instead) == " ".join([instead] * 3)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("workers: ${W:-many}", "expected a whole number or auto, got '${W:-many}'"),
        ("probes: ${W:-here}", "expected a mapping, got the text '${W:-here}'"),
        ("drain_timeout: ${W:-long}", "'${W:-long}' is not a duration such as 250ms, 2s or 1m30s"),
    ],
)
def test_a_problem_tells_a_variable_as_it_is_written(line: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(f"{TOP}routes: [{{name: r, upstream: a}}]\n{line}\n")
    assert [one.message[: len(why)] for one in caught.value.problems] == [why]


@pytest.mark.parametrize("value", ["(hidden)x", "x(hidden)y", "idden)x", "x(hidde"])
def test_a_secret_that_is_like_what_stands_in_its_place_is_hidden(value: str) -> None:
    for told in (value, f"(hidden){value}", f"(h{value}", f"{value}n)"):
        assert value not in without_value(f"got {told}!", value, "(hidden)")


def test_more_problems_than_anybody_reads_are_counted() -> None:
    routes = "".join(f"- {{name: r{n}, upstream: b}}\n" for n in range(MAX_PROBLEMS + 5))
    with pytest.raises(ConfigError) as caught:
        load_text(f"{TOP}routes:\n{routes}")
    *told, last = map(str, caught.value.problems)
    assert len(told) == MAX_PROBLEMS
    assert last == "sidecar.yaml:1004:27: 5 more problems from here on"


@pytest.mark.parametrize(
    "text",
    [
        "version: VALUE\n",
        TOP + "routes: [{name: 'VALUE'}]\n",
        "version: 1\nupstreams: {a: {endpoints: ['VALUE:1']}}\nroutes: []\n",
        TOP + "routes: [{name: a, upstream: a, timeouts: {request: VALUEs}}]\n",
    ],
)
def test_a_value_of_megabytes_is_not_told_whole(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(text.replace("VALUE", "9" * 1_000_000))
    for problem in caught.value.problems:
        assert len(problem.message) < 2100
        assert not problem.message.endswith("9"), "the reason stands at the end"


def test_a_secret_is_hidden_before_what_is_too_long_is_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(TOP + f"telemetry: {{otlp: {{endpoint: 'http://ann:{'hush' * 1000}@a b'}}}}\nroutes: []\n")
    assert "is not a URL" in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["http://a:99999", "http://:4317", "http://a:x", "http://a b", "http://a\0b", " http://a", "http://a\n"],
)
def test_an_address_of_a_collector_that_nobody_can_ask_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a URL") as caught:
        load_text(TOP + f"telemetry: {{otlp: {{endpoint: {json.dumps(url)}}}}}\nroutes: []\n")
    assert len(caught.value.problems) == 1
