"""Which modules are compiled: those that `pyproject.toml` says, all of them or none."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sidecar
from sidecar.core.contract import IS_COMPILED

PACKAGE = Path(sidecar.__file__).parent
ROOT = PACKAGE.parent
HOOK: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
    "targets"
]["wheel"]["hooks"]["custom"]
SOURCES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix()
    for folder in HOOK["folders"]
    for path in (PACKAGE / folder).rglob("*.py")
    if path.name != "__init__.py"
} | {*HOOK["modules"]}


def test_it_is_off_unless_asked_for() -> None:
    assert HOOK["enable-by-default"] is False


def test_each_module_that_stays_out_exists_and_has_its_reason() -> None:
    assert HOOK["interpreted"].keys() <= SOURCES
    assert all(len(reason) > 10 for reason in HOOK["interpreted"].values())


@pytest.mark.parametrize("name", sorted(SOURCES - HOOK["interpreted"].keys()))
def test_what_is_compiled_is_written_so_that_it_can_be(name: str) -> None:
    source = (PACKAGE / name).with_suffix(".py").read_text()
    assert "@dataclass(frozen=True, slots=True" not in source, "use `**SLOTTED`"
    assert "@dataclass(slots=True" not in source, "use `**SLOTTED`"
    module = ast.parse(source)
    assert not list(unknown_types(module)), "a compiled NamedTuple crashes the interpreter; use a class"


def test_classes_have_their_methods_made_late() -> None:
    """`core/dataclass.py`, and in what one of the builds compiles `core/path_dataclass.py`. But for a class that has
    an `__init__` of its own beside its fields, for those two, and for what stands beside `core`."""
    imported = re.compile(r"^from (\S+) import .*\bdataclass\b", re.MULTILINE)
    compiled = SOURCES - HOOK["interpreted"].keys()
    names = {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py")}
    names -= {"core/deadline", "core/dataclass", "core/path_dataclass"}
    for name in names:
        if name.split("/")[0] not in ("demo", "terminal"):
            taken = imported.findall((PACKAGE / name).with_suffix(".py").read_text())
            own = "sidecar.core.path_dataclass" if name in compiled else "sidecar.core.dataclass"
            assert taken in ([], [own]), name


def unknown_types(module: ast.Module) -> Iterator[str]:
    """Types of the fields of a NamedTuple that do not exist yet when it is made: compiled code looks them up then."""
    known: set[str] = set()
    for statement in module.body:
        if isinstance(statement, ast.ClassDef):
            if any(ast.unparse(base) == "NamedTuple" for base in statement.bases):
                fields = [field.annotation for field in statement.body if isinstance(field, ast.AnnAssign)]
                names = {one.id for field in fields for one in ast.walk(field) if isinstance(one, ast.Name)}
                yield from names - known - vars(builtins).keys()
            known.add(statement.name)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            known |= {name.asname or name.name for name in statement.names}
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            known |= {ast.unparse(target) for target in targets}


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("from a import A\nclass B(NamedTuple):\n a: A | None\n n: dict[str, int]", []),
        ("class B(NamedTuple):\n a: A\nclass A: ...", ["A"]),
        ("if TYPE_CHECKING:\n from a import A\nclass B(NamedTuple):\n a: list[A]", ["A"]),
    ],
)
def test_types_that_come_later_are_found(text: str, unknown: list[str]) -> None:
    assert list(unknown_types(ast.parse(text))) == unknown


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_module_is_compiled_or_not_as_the_build_says(name: str) -> None:
    module = importlib.import_module(f"sidecar.{name.replace('/', '.')}")
    assert module.__file__ is not None
    is_compiled = IS_COMPILED and name not in HOOK["interpreted"]
    assert module.__file__.endswith(".so" if is_compiled else ".py")
    assert (PACKAGE / name).with_suffix(".py").exists(), "a traceback shows the source"
