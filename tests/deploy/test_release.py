"""What `.ci/release` decides, and what it writes. What it makes is installed and tried by itself, in `.ci/run`."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CHANGELOG = """\
# Changelog

## [Unreleased]

- Not yet.

## [1.1.0] - 2026-01-02

### Added

- One thing.

## [1.0.0]

- Another.

## [0.9.0] - 2025-01-02
"""


@pytest.fixture(scope="module")
def release() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("release", str(ROOT / ".ci" / "release"))
    spec = importlib.util.spec_from_loader("release", loader)
    assert spec is not None
    found = importlib.util.module_from_spec(spec)
    loader.exec_module(found)
    return found


def test_the_notes_are_the_versions_own_section(release: ModuleType) -> None:
    assert release.notes_of(CHANGELOG, "1.1.0") == "### Added\n\n- One thing.\n"


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("2.0.0", "no section `## [2.0.0]`"),
        ("1.0.0", "write `## [1.0.0] - YYYY-MM-DD`"),
        ("0.9.0", "is empty"),
    ],
)
def test_a_version_that_is_not_told_is_not_released(release: ModuleType, version: str, says: str) -> None:
    with pytest.raises(release.ReleaseError, match=re.escape(says)):
        release.notes_of(CHANGELOG, version)


def test_this_version_is_the_same_everywhere_and_told(release: ModuleType) -> None:
    assert release.version_of(ROOT) == VERSION
    assert "### Added" in release.notes_of((ROOT / "CHANGELOG.md").read_text(), VERSION)


def test_a_place_with_another_version_is_named(release: ModuleType, tmp_path: Path) -> None:
    for name in ("pyproject.toml", *release.PLACES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    chart = tmp_path / "deploy" / "helm" / "Chart.yaml"
    chart.write_text(chart.read_text().replace(f"appVersion: {VERSION}", "appVersion: 9.9.9"))
    with pytest.raises(release.ReleaseError, match=r"deploy/helm/Chart\.yaml: has .*9\.9\.9"):
        release.version_of(tmp_path)


def test_the_sums_are_those_that_sha256sum_checks(release: ModuleType, tmp_path: Path) -> None:
    for name in ("one.whl", "two.tar.gz"):
        (tmp_path / name).write_text(name)
    release.write_sums(tmp_path)
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "one.whl: OK\ntwo.tar.gz: OK\n"


def test_what_fails_says_which_command_and_its_last_words(release: ModuleType) -> None:
    with pytest.raises(release.ReleaseError, match=r"(?s)sh -c .*exit code 3.*no luck"):
        release.run("sh", "-c", "echo no luck >&2; exit 3")


def test_a_folder_with_something_in_it_is_left_alone(release: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(release.ReleaseError, match="is not empty"):
        release.release(tmp_path, is_compiled=False, has_demo=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
