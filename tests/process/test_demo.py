"""`sidecar demo` as a user and a CI job see it: what it claims, what it admits, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sidecar.demo.story import SCENES
from tests.support.ports import free_ports
from tests.support.process import output_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


_random = random.Random(8)
MOMENTS = [_random.uniform(start, start + 1.5) for start in (0.0, 1.5, 3.0, 4.5)]
"""Seconds after the program has begun, one of each part of the story's first six; what is later in it is met by its
words."""
BEGUN = "from sidecar.__main__ import main; print('begun', flush=True); raise SystemExit(main())"
"""Says when it is the program that an interrupt meets, and no longer Python that starts."""
INTERRUPTED = {130, -signal.SIGINT}
"""A shell says 130 of both. `python -m` ends by the signal itself where the interrupt strikes within `exec`, which
makes the methods of a dataclass while its module is imported."""
TRIES = 6
"""A busy machine may keep a story's claims of how soon something came from holding in one run; what is wrong is so in
each."""
HOPS = ("frontend", "frontend-to-orders", "orders", "orders-to-payments", "payments")
"""The routes that a call through the first three passes."""


async def started(
    folder: Path, *arguments: str, path: str = "", program: Sequence[str] = ("-m", "sidecar")
) -> Process:
    """The demo, with its temporary files in `folder`; `path`: where Python looks first."""
    more = {"PYTHONPATH": path} if path else {}
    return await asyncio.create_subprocess_exec(
        sys.executable, *program, "demo", *arguments,
        stdout=PIPE, stderr=PIPE, env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", **more},
    )  # fmt: skip


async def played(folder: Path, *arguments: str, path: str = "") -> tuple[int | None, str]:
    """Exit code and output of a demo that ends by itself."""
    process = await started(folder, *arguments, path=path)
    output, errors = await process.communicate()
    assert errors.decode() == ""
    return process.returncode, output.decode()


async def holding(folder: Path, *arguments: str, path: str = "") -> str:
    """What a demo tells whose every claim holds."""
    for _ in range(TRIES):
        code, output = await played(folder, *arguments, path=path)
        if code == 0:
            return output
    raise AssertionError(output)


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


@dataclass(frozen=True)
class Stay:
    """What a demo told that stays until it is interrupted, and what was seen of it from outside."""

    output: str
    answering: set[str]
    """The services whose dashboard takes connections when all is told."""
    is_traced: bool
    """A trace of all hops has come out of it."""
    code: int | None
    errors: str
    left: list[str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stay(tmp_path_factory: pytest.TempPathFactory) -> Stay:
    """A story whose every claim holds."""
    for _ in range(TRIES):
        found = await stayed(tmp_path_factory.mktemp("stay"))
        if "FAIL" not in found.output:
            break
    return found


async def stayed(folder: Path) -> Stay:
    oteltap = pytest.importorskip("oteltap", reason="the receiver `oteltap` (PyPI) is not installed")
    (port,) = free_ports(1)
    settings = oteltap.OtelTapHttpProtobufReceiverSettings(http_port=port, listen_on_all_interfaces=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        async with oteltap.OtelTapHttpProtobufReceiver(settings) as tap:
            process = await started(folder, "--serve", "--log", "--otlp", f"http://127.0.0.1:{port}")
            seen = asyncio.create_task(a_trace_of_all_hops(tap))
            output = await output_until(process, "Ctrl-C ends it")
            await seen
    addresses = re.findall(
        r"^(\w+): http://127\.0\.0\.1:\d+  dashboard http://127\.0\.0\.1:(\d+)/  ", output, re.MULTILINE
    )
    for _, dashboard in addresses:
        _, writer = await asyncio.open_connection("127.0.0.1", int(dashboard))
        writer.close()
        await writer.wait_closed()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(100):
        _, errors = await process.communicate()
    names = {name for name, _ in addresses}
    return Stay(output, names, seen.done(), process.returncode, errors.decode(), left_in(folder))


def test_the_whole_story_holds(stay: Stay) -> None:
    output = stay.output
    story, _, told = output.partition("What happened\n")
    assert all(scene.title in story and scene.promise in story for scene in SCENES)
    assert "\x1b" not in output
    assert "FAIL" not in output
    for expected in (
        r"each hop had less left \(ms\): frontend \d+ → orders \d+ → payments \d+$",
        r"3 services logged the same ids: request demo-0001, user-2, trace [0-9a-f]{32}$",
        r"6 of 20 calls failed \(30%, threshold 50%\): the breaker is closed",
        r"opened after 5 failures in a row \(threshold 5; reason: consecutive_failures\)$",
        r"20 of 20 calls refused in [\d.]+ ms .* while payments saw 0 calls$",
        r"payments saw 1 \(the probe\); 9 were refused$",
        r"closed again [\d.]+ s after it opened",
        r"closed → open → half_open → closed$",
        r"opened, reason: slow_call_rate$",
        r"504 after \d+ ms of 500 ms",
        r"200 after [\d.]+ s with \d+ of 20 steps",
        r"each hop had less left \(ms\): frontend .* → payments \d+ → ledger \d+, which .* by grpc-timeout$",
        r"504 after \d+ ms of 500 ms; payments heard DEADLINE_EXCEEDED of the ledger after \d+ ms: ",
        r"payments 1 → ledger 1; 100 ms after the answer came: .* → payments 0 → ledger 0; ledger was cancelled$",
        *(
            r"the tree of calls: frontend 1 → orders 1 → payments 1; "
            rf"100 ms after {end}: frontend 0 → orders 0 → payments 0; payments was cancelled$"
            for end in ("the answer came", "the client left")
        ),
    ):
        assert re.search(rf"^ok   .*{expected}", told, re.MULTILINE), (expected, output)
    assert re.search(r"^(\d+) of \1 claims hold, after [\d.]+ s$", told, re.MULTILINE)
    assert stay.left == []


def test_it_stays_tells_where_everything_is_and_exports_traces_of_all_services_that_are_one(
    stay: Stay,
) -> None:
    assert re.search(r"request_id=\S+ trace_id=[0-9a-f]{32} user=user-\d$", stay.output, re.MULTILINE)
    assert stay.answering == {"frontend", "orders", "payments", "ledger"}
    assert stay.is_traced
    assert (stay.code, stay.errors) == (0, "")
    assert stay.left == []


@dataclass(frozen=True)
class Lacking:
    """What a demo told without grpcio and with breakers that do nothing."""

    code: int | None
    output: str
    left: list[str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lacking(tmp_path_factory: pytest.TempPathFactory) -> Lacking:
    away = tmp_path_factory.mktemp("away")
    (away / "grpc").mkdir()
    (away / "grpc" / "__init__.py").write_text("raise ImportError('not installed')\n")
    path = os.pathsep.join([str(away), os.getcwd()])
    folder = tmp_path_factory.mktemp("lacking")
    code, output = await played(folder, "--once", "--breaker-mode", "disabled", path=path)
    return Lacking(code, output, left_in(folder))


def test_without_grpcio_it_tells_the_rest_and_what_to_install(lacking: Lacking) -> None:
    assert "== 7/7 A client leaves" in lacking.output
    assert "ledger" not in lacking.output
    assert lacking.output.endswith("pip install 'sidecar-proxy[demo]'\n")
    assert lacking.left == []


def test_a_breaker_that_does_nothing_is_told_and_ends_with_1(lacking: Lacking) -> None:
    output = lacking.output
    told = output.partition("What happened\n")[2]
    assert lacking.code == 1, output
    assert "FAIL the breaker opened after 15 failures in a row (threshold 5; reason: never)" in told
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


@pytest.mark.parametrize(
    ("terminal", "expected", "number"),
    [("xterm", "\x1b[?1049h", signal.SIGINT), ("dumb", "== 1/8 All is well", signal.SIGTERM)],
    ids=["xterm", "dumb"],
)
async def test_a_terminal_gets_the_picture_if_it_can_draw_one(
    tmp_path: Path, terminal: str, expected: str, number: signal.Signals
) -> None:
    mine, its = os.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "demo",
        stdin=its, stdout=its, stderr=its, env={**os.environ, "TMPDIR": str(tmp_path), "TERM": terminal},
    )  # fmt: skip
    os.close(its)
    told = b""
    while expected.encode() not in told:
        told += await asyncio.to_thread(os.read, mine, 4096)
    process.send_signal(number)
    with contextlib.suppress(OSError):  # the other end is closed
        while piece := await asyncio.to_thread(os.read, mine, 4096):
            told += piece
    os.close(mine)
    assert await process.wait() == 0
    assert b"Traceback" not in told
    assert (b"\x1b" in told) is (terminal == "xterm")
    assert (b"== 1/8 All is well" in told) is (terminal == "dumb")
    assert told.count(b"\x1b[?1049h") == told.count(b"\x1b[?1049l")  # what stood there before is back
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGINT, ""), (signal.SIGHUP, "A client leaves")],
)
async def test_a_signal_ends_it(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    process = await started(tmp_path, "--once")
    await reached(process, tmp_path, moment)
    process.send_signal(number)
    async with asyncio.timeout(100):
        _, errors = await process.communicate()
    assert (process.returncode, errors.decode()) == (130, "")
    assert left_in(tmp_path) == []


async def test_ctrl_c_ends_it_at_any_moment(tmp_path: Path) -> None:
    """All at once, since a moment is one of a busy machine then, and since it takes less long."""
    ends = await asyncio.gather(*(interrupted(tmp_path, after) for after in MOMENTS))
    assert ends == [(after, "", True, []) for after in MOMENTS]


async def interrupted(parent: Path, after: float) -> tuple[float, str, bool, list[str]]:
    """When, what it complained of, whether it told its shell of the interrupt, and what it has left."""
    folder = parent / f"{after:.3f}"
    folder.mkdir()
    process = await started(folder, "--once", program=("-c", BEGUN))
    await output_until(process, "begun")
    await asyncio.sleep(after)
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    return after, errors.decode(), process.returncode in INTERRUPTED, left_in(folder)


async def a_trace_of_all_hops(tap: Any) -> None:
    """Wait for one."""
    wanted = {f"GET {name}" for name in HOPS}
    seen: dict[bytes, set[str]] = defaultdict(set)
    async with aclosing(tap.stream_traces()) as spans:
        async for span in spans:
            seen[span.trace_id].add(span.name)
            if wanted <= seen[span.trace_id]:
                return
