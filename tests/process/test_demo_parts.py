"""The tour, and the stories of gRPC and TLS: what they claim, and that nothing is left of them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from pathlib import Path
from subprocess import Popen

import pytest

from sidecar.demo import grpc_story, tls_story, tour
from tests.process.test_demo import holding, left_in, started

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


async def whole(folder: Path, *how: str) -> str:
    """Its output, where every claim holds."""
    output = await holding(folder, "--pause", "0", *how)
    assert re.search(r"^\d+ of \d+ claims hold", output, re.MULTILINE)
    assert "\x1b" not in output
    assert left_in(folder) == []
    return output


async def test_the_tour_has_ten_steps_and_runs_the_commands_that_it_shows(tmp_path: Path) -> None:
    output = await whole(tmp_path, "--tour")
    assert len(tour.STEPS) == 10
    for number, step in enumerate(tour.STEPS, start=1):
        assert f"== {number}/10 {step.title}\n   {step.promise}\n" in output
    shown = re.findall(r"\$ sidecar (\w+)", output)
    assert shown == ["status", "tap", "explain", "breaker", "breaker", "diff"]
    assert "held open by hand: 503, circuit_open" in output
    assert "circuit_breaker.consecutive_failures: 5 → 3" in output


async def test_by_grpc(tmp_path: Path) -> None:
    output = await whole(tmp_path, "--grpc")
    assert all(scene.title in output for scene in grpc_story.SCENES)
    assert re.search(
        r"held open: payments heard UNAVAILABLE .*\(circuit_open: .* while the ledger saw 0 calls$",
        output,
        re.M,
    )


async def test_by_tls(tmp_path: Path) -> None:
    output = await whole(tmp_path, "--tls")
    assert all(scene.title in output for scene in tls_story.SCENES)
    who = r"frontend by spiffe://demo/client → orders by spiffe://demo/frontend → payments by spiffe://demo/orders$"
    assert re.search(who, output, re.MULTILINE)
    assert re.search(
        r"a client without a certificate is not let in .*payments saw 0 calls$", output, re.MULTILINE
    )


async def test_without_grpcio_there_is_no_story_of_grpc(tmp_path: Path) -> None:
    away = tmp_path / "grpc"
    away.mkdir()
    (away / "__init__.py").write_text("raise ImportError('not installed')\n")
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    process = await started(tmp_path, "--grpc", path=path)
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.decode().endswith("pip install 'sidecar-proxy[demo]'\n")


def test_in_a_terminal_each_step_waits_for_enter_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    mine, its = os.openpty()
    environ = {**os.environ, "TMPDIR": str(tmp_path), "TERM": "xterm"}
    process = Popen(
        [sys.executable, "-m", "sidecar", "demo", "--tour"], stdin=its, stdout=its, stderr=its, env=environ
    )
    os.close(its)
    said = b""

    def until(text: bytes) -> None:
        nonlocal said
        while text not in said:
            said += os.read(mine, 4096)

    until(b"Enter goes on")
    assert b"2/10" not in said
    os.write(mine, b"\n")
    until(b"2/10")
    said = said.partition(b"2/10")[2]
    until(b"Enter goes on")
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # the other end is closed
        while piece := os.read(mine, 4096):
            said += piece
    assert process.wait() == 0
    assert b"3/10" not in said
    assert b"Traceback" not in said
    assert left_in(tmp_path) == []
