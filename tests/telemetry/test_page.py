"""The page about telemetry names what the code makes: every metric, attribute, span and kind of log line."""

from __future__ import annotations

import ast
import inspect
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

from sidecar.admin.prometheus import metric_name
from sidecar.core.families.catalogue import FAMILIES
from sidecar.core.families.family import Family, MetricKind

ROOT = Path(__file__).parents[2] / "sidecar"
PAGE = ROOT / "telemetry" / "README.md"
SHAPES = tuple(
    f"telemetry/{name}.py" for name in ("span_shape", "event_shape", "outages", "attributes", "joined")
)
_ATTRIBUTE = re.compile(
    r"(sidecar|http|rpc|url|server|client|network|tls|user_agent|error|otel)(\.[a-z_0-9]+)+"
)
_KIND = re.compile(
    r"access|(circuit_breaker|config|admin|connections|deadline|endpoints?|failover|loop|overload|part|pass_through"
    r"|process"
    r"|telemetry|tls|worker)\.[a-z_]+"
)
_HEAD = """\
| name | at `/metrics` | kind | unit | attributes | meaning |
| --- | --- | --- | --- | --- | --- |
"""


def table(mark: str) -> str:
    match = re.search(rf"<!-- {mark} -->\n((?:\|.*\n)+)", PAGE.read_text())
    assert match is not None
    return match[1]


def first_cells(mark: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", table(mark), re.MULTILINE)


def test_the_table_of_metrics_is_the_codes_own() -> None:
    made = _HEAD + "".join(map(_row, FAMILIES))
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(PAGE.read_text().replace(table("metrics"), made))
    assert table("metrics") == made, "UPDATE_GOLDEN=1 pytest tests/telemetry/test_page.py"


def test_every_attribute_of_a_span_is_told_and_no_other() -> None:
    made = {text for file in SHAPES for text in _texts(file) if _ATTRIBUTE.fullmatch(text)}
    assert sorted(first_cells("attributes")) == sorted(made)


def test_every_span_is_told() -> None:
    made = {text for file in SHAPES for text in _texts(file)}
    plain = {"circuit_breaker.transition", "circuit_breaker.wait", "circuit_breaker.probe", "config.reload"}
    of_route = {"circuit_breaker.opened ", "circuit_breaker.outage "}
    assert plain | of_route <= made
    told = {"{method} {route}", "{method} {upstream}", *plain, *(f"{name}{{route}}" for name in of_route)}
    assert set(first_cells("spans")) == told


def test_every_kind_of_log_line_is_told() -> None:
    names = ("log_lines", "room", "access_log", "process_log")
    files = (*(f"telemetry/{name}.py" for name in names), *_paths("runtime"), *_paths("runtime/workers"))
    made = {text for file in files for text in _texts(file) if _KIND.fullmatch(text)}
    assert sorted(first_cells("kinds")) == sorted(made)


def _row(family: Family) -> str:
    name = metric_name(family)
    scraped = f"{name}_total" if family.kind is MetricKind.COUNTER else name
    kind = family.kind.value.replace("_", "-")
    attributes = ", ".join(f"`{key}`" for key in sorted(_attributes(family)))
    unit = f"`{family.unit}`"
    return f"| `{family.name}` | `{scraped}` | {kind} | {unit} | {attributes} | {family.description} |\n"


def _attributes(family: Family) -> set[str]:
    """The names in the function that reads the family, and in what it calls."""
    reader = family.of_route or family.of_sources
    assert isinstance(reader, FunctionType)
    return set(_names_in(reader, set()))


def _names_in(function: FunctionType, seen: set[str]) -> Iterator[str]:
    seen.add(function.__name__)
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and _ATTRIBUTE.fullmatch(node.value)
        ):
            yield node.value
        if isinstance(node, ast.Name) and node.id not in seen:
            called = function.__globals__.get(node.id)
            if inspect.isfunction(called):
                yield from _names_in(called, seen)


def _texts(file: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _paths(folder: str) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / folder).glob("*.py"))]
