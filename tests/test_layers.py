"""Who may import whom. The order is that of the folders, top to bottom:

    cli > runtime > admin, kubernetes > downstream > forwarding > upstream > http1, http2, transport > core
                                  > serving                               > http1, transport > core

with `config` and `telemetry` standing on `core` alone, and `terminal` on nothing. Imports for type checkers count
like any other. Inside a folder no module needs itself by way of others, a class name on the data path stands for one
thing, and no class there is larger than a reader can hold.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import sidecar

ROOT = Path(sidecar.__file__).parent

MAY_IMPORT = {
    "": {"cli"},
    "cli": {
        "terminal",
        "demo",
        "translate",
        "tuning",
        "runtime",
        "admin",
        "kubernetes",
        "serving",
        "downstream",
        "forwarding",
        "upstream",
        "http1",
        "http2",
        "transport",
        "config",
        "telemetry",
        "core",
    },
    "terminal": set(),
    "demo": {"terminal", "config", "core"},
    "translate": {"config", "core"},
    "tuning": {"config", "core"},
    "runtime": {
        "admin",
        "kubernetes",
        "serving",
        "downstream",
        "forwarding",
        "upstream",
        "transport",
        "config",
        "telemetry",
        "core",
    },
    "admin": {"serving", "downstream", "forwarding", "upstream", "transport", "config", "core"},
    "kubernetes": {"upstream", "serving", "config", "core"},
    "serving": {"http1", "transport", "core"},
    "downstream": {"forwarding", "http1", "http2", "transport", "core"},
    "forwarding": {"upstream", "transport", "core"},
    "upstream": {"http1", "http2", "transport", "core"},
    "http1": {"core"},
    "http2": {"core"},
    "transport": {"core"},
    "config": {"core"},
    "telemetry": {"core"},
    "core": set(),
}
"""Each folder with what it may import beside itself; the empty name is the package's own top level."""

ONLY_IN = {
    "yaml": {"config/yaml/parse.py", "kubernetes/", "translate/"},
    "opentelemetry": {"telemetry/"},
    "pydantic": {"config/schema/models.py"},
    "pydantic_core": {"config/schema/models.py"},
    "re2": {"config/schema/regex.py"},
    "orjson": {"telemetry/"},
    "httptools": {"http1/"},
    "uvloop": {"cli/"},
    "aiodns": {"upstream/"},
    "pycares": {"upstream/"},
}
"""Libraries that have one place, by the start of a file's path."""

NOT_ON_THE_DATA_PATH = {"aiohttp", "yaml", "pydantic", "opentelemetry"}
DATA_PATH = {"downstream", "forwarding", "upstream", "http1", "http2", "transport", "core"}
WITHOUT_CYCLES = sorted(DATA_PATH | {"config", "runtime", "telemetry", "translate", "tuning"})
MAX_SLOTS = 30
"""A class with more fields is two classes (STYLE.md, 13)."""

WRITTEN_ABOVE = {
    # A client's connection of HTTP/1.1 stands on parts. Where it is measured, an exchange begins and ends without a
    # call for its phase.
    "ClientConnection": {"link"},
    "HeadReader": {"_exchange", "phase"},
    "AnswerWriter": {"_exchange", "_since", "phase", "place"},
    "ClientMemory": {"_untaken"},
    "PartialReader": {"_since"},
    # One thing, of which the class below has what all kinds of it share.
    "CountWindow": {"total"},
    "TimeWindow": {"failed", "pending", "silent", "slow", "total"},
    "WatchedRows": {"is_begun"},
    "Trace": {"flags", "own_member", "parent_id", "trace_id", "tracestate"},
    "TunnelExchange": {"moved_at", "race", "route", "route_name", "started", "trace"},
    "RawPool": {"standing"},
}
"""Fields that a class writes though they are those of a class it extends (STYLE.md, 13)."""

IMPURE = {
    "asyncio",
    "socket",
    "ssl",
    "select",
    "selectors",
    "subprocess",
    "multiprocessing",
    "time",
}
"""The core never awaits, opens no socket and reads no clock."""


@dataclass(frozen=True)
class Import:
    file: str
    line: int
    module: str

    @property
    def layer(self) -> str:
        return self.file.split("/")[0] if "/" in self.file else ""

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    def __str__(self) -> str:
        return f"sidecar/{self.file}:{self.line}: {self.module}"


def imports_of(file: Path) -> list[Import]:
    """Every import in `file`, wherever it stands: in a function and under `TYPE_CHECKING` too."""
    name = file.relative_to(ROOT).as_posix()
    found = []
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            found += [Import(name, node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: a relative import hides where it leads"
            module = node.module or ""
            # `from sidecar.core import headers` imports a module; `from sidecar.core.headers import x` too
            found += [Import(name, node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


@cache
def every_import() -> tuple[Import, ...]:
    """Not read at collection: each worker of the suite collects all tests, and one or two of them run these."""
    return tuple(found for file in sorted(ROOT.rglob("*.py")) for found in imports_of(file))


def ours() -> list[Import]:
    return [found for found in every_import() if found.top == "sidecar"]


def foreign() -> list[Import]:
    return [found for found in every_import() if found.top != "sidecar"]


def test_each_folder_has_its_place_in_the_order() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders <= MAY_IMPORT.keys()


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_a_layer_imports_only_what_is_below_it(layer: str) -> None:
    allowed = MAY_IMPORT[layer] | {layer}
    wrong = [
        str(found)
        for found in ours()
        if found.layer == layer and f"{found.module}.".split(".")[1] not in allowed and not is_top(found)
    ]
    assert wrong == []


def is_top(found: Import) -> bool:
    """`import sidecar` itself, or a name of the package's own `__init__`: no layer at all."""
    return len(found.module.split(".")) == 1


def test_the_order_has_no_circle() -> None:
    done: set[str] = set()
    left = dict(MAY_IMPORT)
    while left:
        free = {layer for layer, below in left.items() if below <= done}
        assert free, f"each of these needs another one: {sorted(left)}"
        done |= free
        for layer in free:
            del left[layer]


@pytest.mark.parametrize("folder", WITHOUT_CYCLES)
def test_no_module_of_a_folder_needs_itself_by_way_of_others(folder: str) -> None:
    needs = needs_within(folder)
    assert [" <-> ".join(cycle) for cycle in cycles(needs)] == []


def needs_within(folder: str) -> Mapping[str, set[str]]:
    """Each module of the folder with those that it imports, also for type checkers alone."""
    names = {module_of(file) for file in (ROOT / folder).rglob("*.py")}
    needs: dict[str, set[str]] = {name: set() for name in sorted(names)}
    for found in ours():
        if found.layer != folder:
            continue
        name = module_of(ROOT / found.file)
        # A name may be a module itself, or stand in one.
        target = found.module if found.module in names else found.module.rpartition(".")[0]
        if target in names and target != name:
            needs[name].add(target)
    return needs


def cycles(needs: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that each reach all others of their group."""
    reached = {name: reachable(name, needs) for name in needs}
    groups = {
        tuple(sorted({name} | {other for other in reached[name] if name in reached[other]}))
        for name in needs
        if name in reached[name]
    }
    return [list(group) for group in sorted(groups)]


def reachable(name: str, needs: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    left = [*needs[name]]
    while left:
        one = left.pop()
        if one not in seen:
            seen.add(one)
            left += needs[one]
    return seen


def test_a_cycle_is_found_and_a_chain_is_none() -> None:
    needs = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "b"}, "e": {"e"}}
    assert cycles(needs) == [["b", "c"], ["e"]]


def module_of(file: Path) -> str:
    path = file.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".")
    return f"sidecar.{path}"


def test_a_class_name_stands_for_one_thing_on_the_data_path() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for file in data_path_files():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def data_path_files() -> list[Path]:
    return [file for folder in sorted(DATA_PATH) for file in sorted((ROOT / folder).rglob("*.py"))]


def test_no_class_on_the_data_path_has_more_fields_than_a_reader_can_hold() -> None:
    """`pytest -rP -k fields tests/test_layers.py` shows the largest."""
    sizes = {f"{one.__module__}.{one.__qualname__}": len(fields_of(one)) for one in data_path_classes()}
    largest = sorted(sizes.items(), key=lambda item: -item[1])
    print("\n".join(f"{count:3} {name}" for name, count in largest[:10]))
    assert len(sizes) > 50
    assert [item for item in largest if item[1] > MAX_SLOTS] == []


def test_only_the_class_that_has_a_field_writes_it() -> None:
    found = {one.__name__: assigned_in(one) & slots_below(one) for one in data_path_classes()}
    assert {name: fields for name, fields in found.items() if fields} == WRITTEN_ABOVE


def slots_below(one: type) -> set[str]:
    """Those of the classes of ours that it extends."""
    return {name for base in one.__mro__[1:] for name in own_slots(base)}


def own_slots(one: type) -> set[str]:
    if not one.__module__.startswith("sidecar."):
        return set()
    slots = vars(one).get("__slots__", ())
    return {slots} if isinstance(slots, str) else set(slots)


def data_path_classes() -> Iterator[type]:
    for file in data_path_files():
        module = importlib.import_module(module_of(file))
        for one in vars(module).values():
            if inspect.isclass(one) and one.__module__ == module.__name__:
                yield one


def fields_of(one: type) -> set[str]:
    """The slots of a class and of what it inherits from us, and what its methods assign without one."""
    found: set[str] = set()
    for base in one.__mro__:
        if base.__module__.startswith("sidecar."):
            found |= own_slots(base) | assigned_in(base)
    return found - {"__weakref__", "__dict__"}


def assigned_in(one: type) -> set[str]:
    """Names behind `self.` that a method of the class's own text writes to."""
    lines = inspect.getsource(sys.modules[one.__module__])
    return {
        node.attr
        for defined in ast.walk(ast.parse(lines))
        if isinstance(defined, ast.ClassDef) and defined.name == one.__name__
        for node in ast.walk(defined)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def test_the_core_imports_the_standard_library_alone() -> None:
    wrong = [
        str(found)
        for found in foreign()
        if found.layer == "core" and found.top not in sys.stdlib_module_names
    ]
    assert wrong == []


def test_the_core_has_no_clock_no_socket_and_no_event_loop() -> None:
    assert [str(found) for found in foreign() if found.layer == "core" and found.top in IMPURE] == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_has_one_place(library: str) -> None:
    places = tuple(ONLY_IN[library])
    wrong = [str(found) for found in foreign() if found.top == library and not found.file.startswith(places)]
    assert wrong == []


def test_the_data_path_is_free_of_what_is_heavy() -> None:
    wrong = [
        str(found) for found in foreign() if found.layer in DATA_PATH and found.top in NOT_ON_THE_DATA_PATH
    ]
    assert wrong == []


def test_only_the_composition_root_wires_telemetry_in() -> None:
    importers = {found.layer for found in ours() if found.module.startswith("sidecar.telemetry")}
    assert importers <= {"runtime", "telemetry"}


def test_no_module_is_there_for_nothing() -> None:
    """Each is imported by another, run by its name, or a command of the user's."""
    sources = {file: file.read_text() for file in ROOT.rglob("*.py")}
    imported = {found.module for found in ours()} | {found.module.rpartition(".")[0] for found in ours()}
    unused = []
    for file in sources:
        module = "sidecar." + file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        is_entry = file.name in {"__init__.py", "__main__.py"} or file.parent.name == "cli"
        is_named = any(f'"{module}"' in text for other, text in sources.items() if other != file)
        if not (is_entry or is_named or module in imported):
            unused.append(module)
    assert unused == []
