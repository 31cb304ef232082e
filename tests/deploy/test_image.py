"""The Dockerfile: clean by hadolint, and what it promises."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.deploy.tools import tool

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.mark.timeout(120)
def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([tool("hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    "line",
    [
        r"USER 65532:65532",
        r"STOPSIGNAL SIGTERM",
        r"MALLOC_MMAP_THRESHOLD_=16777216",
        r"MALLOC_TRIM_THRESHOLD_=134217728",
        r"MALLOC_TOP_PAD_=4194304",
        r'ENTRYPOINT \["sidecar"\]',
        r'HEALTHCHECK .* CMD \["sidecar", "healthcheck"\]',
        r"ARG PYTHON=3\.\d+\.\d+-slim-\w+",
    ],
)
def test_the_image_has(line: str) -> None:
    assert re.search(line, DOCKERFILE)


def test_its_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"ARG VERSION={project['version']}\n" in DOCKERFILE


def test_everything_copied_is_let_through_by_dockerignore() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for source in sources.split()
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)
