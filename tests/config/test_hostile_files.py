"""Whatever a file holds, or is: problems with a place, in bounded time, and no traceback."""

from __future__ import annotations

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
from sidecar.config.load import MAX_PROBLEMS, ConfigError, load_file, load_text

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
    problems: tuple[Any, ...] = ()
    try:
        load_file(file, {})
    except ConfigError as error:
        problems = error.problems
        assert problems
    for problem in problems:
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
