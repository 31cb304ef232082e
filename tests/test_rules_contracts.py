"""The shape of the data path's objects: small classes, one name for one thing, and no module that needs itself.

Read from the sources: what a class holds are its slots, its fields or what its methods assign to `self`, with those
of its bases. Imports for type checkers count like any other.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import sidecar

ROOT = Path(sidecar.__file__).parent
ROOMS = ("core", "http2", "transport", "upstream", "forwarding", "downstream")
MOST = 30
"""Things that one class holds; beyond it is two classes."""


@dataclass
class Class:
    """One class of the data path."""

    name: str
    module: str
    bases: list[str]
    members: set[str] = field(default_factory=set)


def sources() -> dict[str, ast.Module]:
    """Every module of the data path by its dotted name."""
    return {
        ".".join(("sidecar", *path.relative_to(ROOT).with_suffix("").parts)): ast.parse(
            path.read_text(), str(path)
        )
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
    }


SOURCES = sources()


def class_of(node: ast.ClassDef, module: str) -> Class:
    found = Class(node.name, module, [ast.unparse(base).rpartition(".")[2] for base in node.bases])
    for statement in node.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__slots__":
            found.members |= set(ast.literal_eval(statement.value))
        elif isinstance(statement, ast.AnnAssign) and "ClassVar" not in ast.unparse(statement.annotation):
            found.members.add(ast.unparse(statement.target))
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            found.members |= {
                inner.attr
                for inner in ast.walk(statement)
                if isinstance(inner, ast.Attribute)
                and isinstance(inner.ctx, ast.Store)
                and isinstance(inner.value, ast.Name)
                and inner.value.id == "self"
            }
    return found


CLASSES = [
    class_of(node, module)
    for module, tree in SOURCES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.ClassDef)
]


def members_of(one: Class) -> set[str]:
    """Its own and its bases'."""
    bases = [base for base in CLASSES if base.name in one.bases and base is not one]
    return one.members.union(*(members_of(base) for base in bases))


def test_no_class_of_the_data_path_holds_more_than_thirty_things() -> None:
    sizes = {f"{one.module}.{one.name}": len(members_of(one)) for one in CLASSES}
    assert len(sizes) > 30, "the classes were found"
    assert {name: size for name, size in sizes.items() if size > MOST} == {}


def test_a_class_name_stands_once_in_the_data_path() -> None:
    places = defaultdict(set)
    for one in CLASSES:
        if not one.name.startswith("_"):
            places[one.name].add(one.module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def imported_by(module: str) -> set[str]:
    """Modules of the data path that `module` names, wherever in it."""
    found = set()
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & SOURCES.keys() - {module}


def reached_from(module: str, room: str) -> set[str]:
    """What `module` needs inside its room, directly or through others."""
    found: set[str] = set()
    ahead = [module]
    while ahead:
        near = {one for one in imported_by(ahead.pop()) if one.startswith(f"sidecar.{room}.")} - found
        found |= near
        ahead += near
    return found


@pytest.mark.parametrize("room", [room for room in ROOMS if (ROOT / room).is_dir()])
def test_no_module_of_a_room_needs_itself(room: str) -> None:
    modules = [module for module in SOURCES if module.startswith(f"sidecar.{room}.")]
    assert modules
    assert sorted(module for module in modules if module in reached_from(module, room)) == []
