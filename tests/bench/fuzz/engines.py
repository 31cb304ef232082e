"""The two ways to feed a target: guided by what inputs reach, or by mutations alone."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.fuzz import corpus, memories, mutations
from tests.bench.fuzz.findings import Enough, Findings
from tests.bench.fuzz.targets import Target

_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*([0-9]+)")
_COVERED = re.compile(r"cov: ([0-9]+) ft: ([0-9]+) corp: ([0-9]+)")
_DIGEST = re.compile(r"[0-9a-f]{40}")
"""How libFuzzer names what it found; what it began with has numbers for names."""
_ONE_INPUT_SECONDS = 20
"""An input that takes longer is a finding: libFuzzer ends the process and leaves it in the folder."""


@dataclass(frozen=True)
class Run:
    """What came of one target."""

    inputs: int
    seconds: float
    found: int
    reached: str = ""


def has_guide() -> bool:
    """Whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


def mutate(target: Target, count: int, seconds: float, seed: int, folder: Path | None) -> Run:
    """Feed known inputs and their mutations."""
    findings = Findings(target, folder)
    feed = findings.guarded()
    started = time.monotonic()
    end = started + seconds
    with memories.small():
        try:
            for data in mutations.inputs(target, seed):
                if findings.count >= count or (findings.count % 64 == 0 and time.monotonic() >= end):
                    break
                feed(data)
        except Enough as enough:
            print(f"  {enough}", flush=True)
    return Run(findings.count, time.monotonic() - started, len(findings.inputs))


def guide(target: Target, count: int, seconds: float, seed: int, folder: Path, *, keeps: bool) -> Run:
    """Let atheris feed it; with `keeps`, what reached new places goes into the kept corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    before = _inputs_in(folder, target)
    with tempfile.TemporaryDirectory() as made:
        work, words = Path(made, "work"), Path(made, "words")
        _write(work, corpus.beginnings(target))
        words.write_text("".join(f'"{_quoted(word)}"\n' for word in target.words), "ascii")
        options = [
            f"-runs={count}", f"-max_total_time={int(seconds) or 1}", f"-max_len={target.max_bytes}", f"-seed={seed}",
            f"-dict={words}", f"-timeout={_ONE_INPUT_SECONDS}", f"-artifact_prefix={folder}/{target.name}-",
            "-rss_limit_mb=1024", "-print_final_stats=1", "-reload=0",
        ]  # fmt: skip
        started = time.monotonic()
        output = _run(target, folder, [*options, str(work)])
        took = time.monotonic() - started
        executed = _EXECUTED.search(output)
        covered = _COVERED.findall(output)
        if keeps:
            found_now = [path.read_bytes() for path in work.iterdir() if _DIGEST.fullmatch(path.name)]
            corpus.keep(target.name, [*corpus.kept(target.name), *found_now])
    reached = "edges {} features {} corpus {}".format(*covered[-1]) if covered else ""
    found = len(_inputs_in(folder, target) - before)
    if executed is None:
        found += 1
        print(f"  {target.name} ended early:\n{output[-2000:]}", flush=True)
    return Run(int(executed[1]) if executed else 0, took, found, reached)


def _run(target: Target, folder: Path, options: list[str]) -> str:
    command = [sys.executable, "-m", "tests.bench.fuzz.guided", target.name, str(folder), *options]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    for line in ended.stdout.splitlines():
        print(line, flush=True)
    return ended.stderr


def _inputs_in(folder: Path, target: Target) -> set[str]:
    return {path.name for path in folder.glob(f"{target.name}-*") if path.suffix != ".txt"}


def _write(folder: Path, inputs: object) -> None:
    folder.mkdir()
    for number, data in enumerate(inputs):  # type: ignore[arg-type,var-annotated]
        (folder / f"{number:05}").write_bytes(data)


def _quoted(word: bytes) -> str:
    """As libFuzzer's dictionaries have it."""
    return "".join(f"\\x{byte:02x}" for byte in word)
