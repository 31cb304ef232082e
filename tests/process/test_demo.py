"""`sidecar demo` as a user and a CI job see it: what it claims, what it admits, and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from sidecar.demo.story import SCENES

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]


async def started(folder: Path, *arguments: str) -> Process:
    """The demo, with its temporary files in `folder`."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "demo", *arguments,
        stdout=PIPE, stderr=PIPE, env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


async def played(folder: Path, *arguments: str) -> tuple[int | None, str]:
    """Exit code and output of a demo that ends by itself."""
    process = await started(folder, *arguments)
    output, errors = await process.communicate()
    assert errors.decode() == ""
    return process.returncode, output.decode()


def left_in(folder: Path) -> list[str]:
    """Files in `folder`, and the processes whose command line names it."""
    left = [str(path) for path in folder.iterdir()]
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in command:
            left.append(command)
    return left


async def test_the_whole_story_holds_within_45_seconds(tmp_path: Path) -> None:
    async with asyncio.timeout(45):
        code, output = await played(tmp_path, "--once")
    story, _, told = output.partition("What happened\n")
    assert code == 0, output
    assert all(title in story for title, _ in SCENES)
    assert "\x1b" not in output
    assert "FAIL" not in output
    for expected in (
        r"each hop had less left \(ms\): frontend \d+ → orders \d+ → payments \d+$",
        r"6 of 20 calls failed \(30%, threshold 50%\): the breaker is closed",
        r"opened after 5 failures in a row \(5 allowed; reason: consecutive_failures\)$",
        r"20 of 20 calls refused in [\d.]+ ms .* while payments saw 0 calls$",
        r"payments saw 1 \(the probe\); 9 were refused$",
        r"closed again [\d.]+ s after it opened",
        r"closed → open → half_open → closed$",
        r"opened, reason: slow_call_rate$",
        r"504 after \d+ ms of 500 ms",
        r"200 after [\d.]+ s with \d+ of 20 steps",
        r"3 calls were running before; 100 ms after: 0 .* payments was cancelled$",
    ):
        assert re.search(rf"^ok   .*{expected}", told, re.MULTILINE), (expected, output)
    assert re.search(r"^(\d+) of \1 claims hold", told, re.MULTILINE)
    assert left_in(tmp_path) == []


async def test_a_breaker_that_does_nothing_is_told_and_ends_with_1(tmp_path: Path) -> None:
    code, output = await played(tmp_path, "--once", "--breaker-mode", "disabled")
    told = output.partition("What happened\n")[2]
    assert code == 1, output
    assert "FAIL the breaker opened after 15 failures in a row (5 allowed; reason: never)" in told
    assert re.search(r"^FAIL 0 of 20 calls refused .* while payments saw 20 calls$", told, re.MULTILINE)
    assert re.search(r"^FAIL .*payments saw 10 \(the probe\); 0 were refused$", told, re.MULTILINE)
    assert "FAIL closed again never after it opened" in told
    assert "ok   504 after" in told  # deadlines need no breaker


async def reached(process: Process, folder: Path, moment: str) -> None:
    """Wait until the demo has said `moment`, or for an empty one until it has begun to start the sidecars."""
    while not moment and not os.listdir(folder):  # noqa: ASYNC110  (files tell nobody)
        await asyncio.sleep(0.005)
    assert process.stdout is not None
    while moment and moment not in (line := await process.stdout.readline()).decode():
        assert line, "it has ended"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["", "All is well", "payments is dead", "A client gives"])
async def test_a_signal_ends_it_at_any_moment(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    process = await started(tmp_path, "--once")
    await reached(process, tmp_path, moment)
    process.send_signal(number)
    async with asyncio.timeout(10):
        _, errors = await process.communicate()
    assert (process.returncode, errors.decode()) == (130, "")
    assert left_in(tmp_path) == []


async def test_it_stays_and_tells_where_everything_is(tmp_path: Path) -> None:
    process = await started(tmp_path, "--serve", "--log")
    assert process.stdout is not None
    output = ""
    while "Ctrl-C ends it" not in output:
        line = await process.stdout.readline()
        assert line, output
        output += line.decode()
    assert re.search(r"request_id=\S+ trace_id=[0-9a-f]{32} user=ada$", output, re.MULTILINE)
    for name in ("frontend", "orders", "payments"):
        found = re.search(
            rf"^{name}: http://127\.0\.0\.1:\d+  dashboard http://127\.0\.0\.1:(\d+)/  ", output, re.M
        )
        assert found is not None, output
        _, writer = await asyncio.open_connection("127.0.0.1", int(found[1]))
        writer.close()
        await writer.wait_closed()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(10):
        _, errors = await process.communicate()
    assert (process.returncode, errors.decode()) == (0, "")
    assert left_in(tmp_path) == []
