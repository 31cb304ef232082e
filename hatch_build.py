"""The build that compiles the data path: `HATCH_BUILD_HOOKS_ENABLE=1 pip install .`

Off by default: a plain `pip install .` needs no compiler and takes no longer for it. What is compiled, and what is
not and why, stands in `pyproject.toml` (`tool.hatch.build.targets.wheel.hooks.custom`). The sources go into the wheel
as well: Python takes the compiled module that lies beside one, and a traceback shows the source's line.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

OPTIMIZATION = "2"
WORK = "build/mypyc"
"""Under the project's root, by a relative path, so that no file in the wheel tells where it was built."""


class CompileDataPath(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled modules of the data path to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return  # a compiled module would hide every later change of its source
        with _inside(self.root):
            built = compile_modules(modules(self.config), Path(WORK))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(Path(self.root, file)): name for name, file in built.items()})


def modules(config: dict[str, Any]) -> list[str]:
    """The files to compile, by what `pyproject.toml` says of folders, of the modules in them that stay out, and of
    other modules."""
    stay_out = {f"sidecar/{name}.py" for name in config["interpreted"]}
    found = [
        path.as_posix()
        for folder in config["folders"]
        for path in sorted(Path("sidecar", folder).rglob("*.py"))
    ]
    found += [f"sidecar/{name}.py" for name in config["modules"]]
    unknown = stay_out - set(found)
    if unknown:
        raise SystemExit(
            f"pyproject.toml: `interpreted` names modules that do not exist: {', '.join(sorted(unknown))}"
        )
    return [path for path in found if path not in stay_out and not path.endswith("__init__.py")]


def compile_modules(paths: list[str], work: Path) -> dict[str, Path]:
    """Compile `paths` in `work`, from nothing, by as many compilers at once as there are cores.

    Returns:
        The files made, by their names in the wheel.

    Raises:
        SystemExit: mypy does not accept a module, or there is no C compiler.
    """
    from mypyc.build import mypycify
    from setuptools import Distribution

    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "mypy.ini").write_text("[mypy]\nignore_missing_imports = True\n")
    extensions = mypycify(
        [f"--config-file={work}/mypy.ini", f"--cache-dir={work}/mypy_cache", *paths],
        opt_level=OPTIMIZATION,
        debug_level="0",
        multi_file=True,
        group_name="sidecar",
        target_dir=str(work / "c"),
    )
    distribution = Distribution({"name": "sidecar", "ext_modules": extensions, "packages": []})
    command: Any = distribution.get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(work / "lib"), str(work / "objects")
    command.ensure_finalized()
    with _many_compilers():
        command.run()
    return {file.relative_to(work / "lib").as_posix(): file for file in sorted((work / "lib").rglob("*.so"))}


@contextlib.contextmanager
def _inside(folder: str) -> Iterator[None]:
    """Work in `folder`: mypyc names what it makes by paths from where it runs."""
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(folder)


@contextlib.contextmanager
def _many_compilers() -> Iterator[None]:
    """setuptools compiles the files of one extension one after another, and nearly all are in one here."""
    from setuptools._distutils.ccompiler import CCompiler

    one_by_one = CCompiler.compile

    def side_by_side(self: Any, sources: list[str], **options: Any) -> list[str]:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            objects = pool.map(lambda source: one_by_one(self, [source], **options), sources)
            return [name for made in objects for name in made]

    CCompiler.compile = side_by_side
    try:
        yield
    finally:
        CCompiler.compile = one_by_one
