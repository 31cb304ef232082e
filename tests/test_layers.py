"""Who may import whom. The order is that of the folders, top to bottom:

    cli > runtime > admin, kubernetes > downstream > forwarding > upstream > core

with `config` and `telemetry` standing on `core` alone. Imports for type checkers count like any other.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import sidecar

ROOT = Path(sidecar.__file__).parent

MAY_IMPORT = {
    "": {"cli"},
    "cli": {
        "demo",
        "runtime",
        "admin",
        "kubernetes",
        "downstream",
        "forwarding",
        "upstream",
        "config",
        "telemetry",
        "core",
    },
    "demo": {"config"},
    "runtime": {"admin", "kubernetes", "downstream", "forwarding", "upstream", "config", "telemetry", "core"},
    "admin": {"downstream", "forwarding", "upstream", "config", "core"},
    "kubernetes": {"config", "core"},
    "downstream": {"forwarding", "core"},
    "forwarding": {"upstream", "core"},
    "upstream": {"core"},
    "config": {"core"},
    "telemetry": {"core"},
    "core": set(),
}
"""Each folder with what it may import beside itself; the empty name is the package's own top level."""

ONLY_IN = {
    "yaml": {"config/yaml/parse.py", "kubernetes/"},
    "opentelemetry": {"telemetry/"},
    "pydantic": {"config/"},
    "re2": {"config/schema/regex.py"},
    "orjson": {"telemetry/"},
    "httptools": {"downstream/", "upstream/"},
    "uvloop": {"cli/"},
    "aiodns": {"upstream/"},
    "pycares": {"upstream/"},
}
"""Libraries that have one place, by the start of a file's path."""

NOT_ON_THE_DATA_PATH = {"aiohttp", "yaml", "pydantic", "opentelemetry"}
DATA_PATH = {"downstream", "forwarding", "upstream", "core"}

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


ALL = [found for file in sorted(ROOT.rglob("*.py")) for found in imports_of(file)]
OURS = [found for found in ALL if found.top == "sidecar"]
FOREIGN = [found for found in ALL if found.top != "sidecar"]


def test_each_folder_has_its_place_in_the_order() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders <= MAY_IMPORT.keys()


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_a_layer_imports_only_what_is_below_it(layer: str) -> None:
    allowed = MAY_IMPORT[layer] | {layer}
    wrong = [
        str(found)
        for found in OURS
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


def test_the_core_imports_the_standard_library_alone() -> None:
    wrong = [
        str(found) for found in FOREIGN if found.layer == "core" and found.top not in sys.stdlib_module_names
    ]
    assert wrong == []


def test_the_core_has_no_clock_no_socket_and_no_event_loop() -> None:
    assert [str(found) for found in FOREIGN if found.layer == "core" and found.top in IMPURE] == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_has_one_place(library: str) -> None:
    places = tuple(ONLY_IN[library])
    wrong = [str(found) for found in FOREIGN if found.top == library and not found.file.startswith(places)]
    assert wrong == []


def test_the_data_path_is_free_of_what_is_heavy() -> None:
    wrong = [
        str(found) for found in FOREIGN if found.layer in DATA_PATH and found.top in NOT_ON_THE_DATA_PATH
    ]
    assert wrong == []


def test_only_the_composition_root_wires_telemetry_in() -> None:
    importers = {found.layer for found in OURS if found.module.startswith("sidecar.telemetry")}
    assert importers <= {"runtime", "telemetry"}


def test_no_module_is_there_for_nothing() -> None:
    """Each is imported by another, run by its name, or a command of the user's."""
    sources = {file: file.read_text() for file in ROOT.rglob("*.py")}
    imported = {found.module for found in OURS} | {found.module.rpartition(".")[0] for found in OURS}
    unused = []
    for file in sources:
        module = "sidecar." + file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        is_entry = file.name in {"__init__.py", "__main__.py"} or file.parent.name == "cli"
        is_named = any(f'"{module}"' in text for other, text in sources.items() if other != file)
        if not (is_entry or is_named or module in imported):
            unused.append(module)
    assert unused == []
