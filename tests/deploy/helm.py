"""A real Helm, in a process of its own: `python -m tests.deploy.helm` reads values and writes answers, a line each.

The library brings Go's runtime with it, which takes signals: it does not share a process with the tests. One process
answers for all tests of a worker.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm"
NAMESPACE = "sidecar-system"


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of a release `sidecar` with these values; skips the test where there is no Helm.

    Raises:
        ValueError: Helm refuses the values, with its words.
    """
    answer = _asked(json.dumps(values, sort_keys=True))
    if "refused" in answer:
        raise ValueError(answer["refused"])
    yaml = YAML(typ="safe", pure=True)
    texts = [text for name, text in sorted(answer["files"].items()) if name.endswith(".yaml")]
    return [item for text in texts for item in yaml.load_all(text) if item]


def notes(values: dict[str, Any]) -> str:
    text: str = _asked(json.dumps(values, sort_keys=True))["files"]["sidecar/templates/NOTES.txt"]
    return text


def complaints(values: dict[str, Any]) -> list[str]:
    """What `helm lint --strict` finds, but for advice (that a chart should have an icon)."""
    found = _asked(json.dumps(values, sort_keys=True))["lint"]
    return [f"{item['path']}: {item['error']}" for item in found["messages"] if item["severity"] > 1]


@cache
def _asked(values: str) -> dict[str, Any]:
    if importlib.util.find_spec("helm_python") is None:
        pytest.skip(
            "no Helm: PyPI's helm-python-sdk is not installed; it has wheels for Linux on x86-64 alone"
        )
    process = _process()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{values}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    assert line, "it has ended"
    answer: dict[str, Any] = json.loads(line)
    return answer


@cache
def _process() -> subprocess.Popen[str]:
    """Runs until the tests are over."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.deploy.helm"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate()


def main() -> None:
    import helm_python

    with helm_python.Chart.load(CHART) as chart:
        for line in sys.stdin:
            values = json.loads(line)
            try:
                files = chart.render(values, name="sidecar", namespace=NAMESPACE, is_install=True)
                answer = {"files": files, "lint": helm_python.lint(CHART, values, strict=True)}
            except helm_python.HelmError as error:
                answer = {"refused": str(error)}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
