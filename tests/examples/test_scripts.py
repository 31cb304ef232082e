"""What uses fixed ports, in a network of its own where they are free: the tutorial, line by line; two services."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MARK = "=== the next block"


pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "curl"))),
        reason="needs root, iproute2, unshare and curl",
    ),
]


def in_own_network(script: str, folder: Path, tmp_path: Path) -> str:
    """What a script of bash prints, with the sidecar under its name; whatever it starts ends with it."""
    (tmp_path / "bin").mkdir()
    for name, command in (("sidecar", f"{sys.executable} -m sidecar"), ("python3", sys.executable)):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [
            "unshare",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "bash",
            "-c",
            f"set -eu\nip link set lo up\n{script}",
        ],
        cwd=folder,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_line_of_the_tutorial_does_what_the_page_says(tmp_path: Path) -> None:
    page = (ROOT / "config" / "TUTORIAL.md").read_text()
    blocks = re.findall(r"<!-- hour(?:: (.*?))? -->\n```sh\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == page.count("```sh")
    work = tmp_path / "work"
    work.mkdir()
    printed = in_own_network(f"\necho '{MARK}'\n".join(text for _, text in blocks), work, tmp_path).split(
        f"{MARK}\n"
    )
    for (expected, text), output in zip(blocks, printed, strict=True):
        assert expected in output, f"{text}\nprinted:\n{output}"


def test_of_two_services_neither_knows_of_the_deadline_that_both_keep(tmp_path: Path) -> None:
    script = """\
sh run.sh >"$LOG" 2>&1 & both=$!
curl -sf --retry 60 --retry-delay 1 --retry-all-errors http://127.0.0.1:15106/
curl -s -m 60 -o answer -w '%{http_code}' -H 'x-request-timeout-ms: 2000' 'http://127.0.0.1:15106/?seconds=600'
kill $both
wait $both || true
"""
    folder = tmp_path / "two"
    shutil.copytree(ROOT / "deploy" / "examples" / "two-services", folder)
    assert in_own_network(f"LOG={tmp_path / 'log'}\n{script}", folder, tmp_path) == "in stock\n504"
    lines = (tmp_path / "log").read_text().splitlines()
    asked = [json.loads(line) for line in lines if '"query":"seconds=600"' in line]
    # Which of the three is the first to end it is a matter of milliseconds: those below it see a client that left.
    assert all(one["status"] in (499, 504) for one in asked), asked
    left = sorted((one["budget_ms"], one["listener"], one["route"]) for one in asked)
    assert [one[1:] for one in left] == [("inbound", "app"), ("outbound", "stock"), ("inbound", "app")]
    assert left[0][0] > 0
    assert left[-1][0] < 2000
    assert sum("process.ended" in line for line in lines) == 2, lines
