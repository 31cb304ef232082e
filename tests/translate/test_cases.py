"""Files in the shape of real ones, and what becomes of them (`UPDATE_GOLDEN=1 pytest tests/translate` writes that).

And of each of them: whatever is added to it, wherever, is told; whatever is broken in it ends in words, never in a
traceback, and never in a file that would be refused.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.__main__ import main
from sidecar.config.load import load_text
from sidecar.translate.source import SourceError
from sidecar.translate.translate import translate

HERE = Path(__file__).parent
CASES = sorted((HERE / "cases").iterdir())
NOBODYS = {"labels", "annotations", "metadata", "status"}
"""What is below them says nothing of requests."""


def names(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", CASES, ids=names)
def test_a_file_becomes_what_its_golden_file_says(path: Path) -> None:
    text, losses = translate([(path.name, path.read_text())], "outbound")
    told = "".join(f"{'!' if loss.changes_reach else ' '} {loss}\n" for loss in losses)
    for suffix, found in ((".yaml", text), (".losses", told)):
        golden = HERE / "golden" / (path.stem + suffix)
        if os.environ.get("UPDATE_GOLDEN"):
            golden.parent.mkdir(exist_ok=True)
            golden.write_text(found)
        assert found == golden.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in (HERE / "golden").iterdir()} == {path.stem for path in CASES}


@pytest.mark.parametrize("path", CASES, ids=names)
def test_the_command_writes_a_file_that_check_takes(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["import", str(path)])
    shown = capsys.readouterr()
    result = tmp_path / "sidecar.yaml"
    result.write_text(shown.out)
    assert main(["check", str(result)]) == 0
    assert code == int("other requests are served" in shown.err)
    assert all(line.startswith(f"{path}:") for line in shown.err.splitlines())


@cache
def documents_of(path: Path) -> list[Any]:
    """To be copied by whoever changes them."""
    return [*yaml.safe_load_all(path.read_text())]


@pytest.mark.parametrize("path", CASES, ids=names)
def test_what_is_not_known_is_told_wherever_it_stands(path: Path) -> None:
    documents = documents_of(path)
    places = [*mappings(documents)]
    assert len(places) > 20
    for place in places:
        changed = copy.deepcopy(documents)
        at(changed, place)["notKnownAnywhere"] = {"a": "b"}
        text = yaml.safe_dump_all(changed, sort_keys=False)
        told = paths_told(text)
        inside = dotted(place)
        assert any("notKnownAnywhere" in one or (one and inside.startswith(one)) for one in told), place


def paths_told(text: str) -> list[str]:
    """Of each loss; of an error its words."""
    try:
        _, losses = translate([("f", text)], "outbound")
    except SourceError as error:
        return [str(error)]
    return [loss.path for loss in losses]


def mappings(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where mappings stand whose keys mean something."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from mappings(one, (*at, number))
    elif isinstance(value, dict) and not NOBODYS & set(at):
        if value.get("apiVersion") == "v1" and value["kind"] == "Service":
            return  # told as a whole
        if "items" not in value:  # a `List` is no route
            yield at
        for key, one in value.items():
            yield from mappings(one, (*at, key))


def at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def dotted(place: tuple[Any, ...]) -> str:
    """As a loss names it, without the number of the document, or of a member of a `List`."""
    parts = place[1:]
    if parts[:1] == ("items",):
        parts = parts[2:]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


PIECES: list[Any] = [
    None,
    "",
    "x",
    "*",
    0,
    -1,
    99999,
    True,
    [],
    [None],
    ["a"],
    {},
    {"a": 1},
    "${A}",
    "a\nb",
    "(",
    "%",
]


@pytest.mark.parametrize("path", CASES, ids=names)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_broken_ends_in_words_or_in_a_file_that_is_taken(path: Path, data: st.DataObject) -> None:
    documents = copy.deepcopy(documents_of(path))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from([*values(documents)]))
        at(documents, place[:-1])[place[-1]] = copy.deepcopy(data.draw(st.sampled_from(PIECES)))
    text = yaml.safe_dump_all(documents, sort_keys=False)
    result = result_of(text)
    if result is not None:
        load_text(result)


def result_of(text: str) -> str | None:
    """None where the source is refused, which names the file."""
    try:
        return translate([("f", text)], "outbound")[0]
    except SourceError as error:
        return None if str(error).startswith("f:") else f"not a place: {error}"


def values(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if len(at) > 1:
        yield at
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from values(one, (*at, number))
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from values(one, (*at, key))
