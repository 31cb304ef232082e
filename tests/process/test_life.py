"""A process's life as an operator and an orchestrator see it: start, probes, drain, end."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.process.setting import COMMAND, ended, served, written
from tests.support.process import END_SECONDS, READY_SECONDS, admin, http_get, sidecar
from tests.support.raw import RawPeer, raw_client, raw_upstream

pytestmark = pytest.mark.process

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

LIMITED = """\
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
os.execv(sys.executable, [sys.executable, "-m", "sidecar", "run", sys.argv[3]])
"""
"""Runs a sidecar with a soft and a hard limit of open files."""
KINDS = ("started", "open_files")
FOR_EVER = "drain_timeout: 3000s"
"""A drain that waits for anything does not end within the test."""


def admin_port(file: Path) -> int:
    """Where the admin API of a configuration listens."""
    found = re.search(r"admin: {address: \"127.0.0.1:(\d+)", file.read_text())
    assert found is not None
    return int(found[1])


class Held:
    """An app that answers when it is told to."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.asked = asyncio.Event()

    async def __call__(self, peer: RawPeer) -> None:
        while await peer.request() is not None:
            self.asked.set()
            await self.may_answer.wait()
            await peer.send(OK)


async def test_a_bad_file_ends_the_start_with_2_and_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "version: 1\nupstreams: {app: {endpoints: [nonsense]}}\nroutes: [{nam: app, upstream: ap}]\n"
    )
    code, output, errors = await ended(file)
    assert (code, output) == (2, "")
    assert len(re.findall(rf"^{re.escape(str(file))}:\d+:\d+: ", errors, re.MULTILINE)) >= 3
    assert "did you mean" in errors
    assert "Traceback" not in errors


async def test_a_missing_file_ends_the_start_with_2(tmp_path: Path) -> None:
    code, _, errors = await ended(tmp_path / "none.yaml")
    assert code == 2
    assert "none.yaml" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("key", ["listeners.inbound.address", "admin.address", "probes.address"])
async def test_an_address_in_use_ends_the_start_with_1_and_says_which_key_has_it(
    tmp_path: Path, key: str
) -> None:
    async with raw_upstream() as app:
        file, inbound, probes = written(tmp_path, app.port)
        taken = f'"127.0.0.1:{app.port}"'
        if key == "admin.address":
            file.write_text(
                re.sub(r"admin: {address: [^}]*}", f"admin: {{address: {taken}}}", file.read_text())
            )
        else:
            port = inbound if key.startswith("listeners") else probes
            file.write_text(file.read_text().replace(f'"127.0.0.1:{port}"', taken))
        code, output, errors = await ended(file)
    assert (code, output) == (1, "")
    assert errors == (
        f"sidecar: {key}: cannot listen on 127.0.0.1:{app.port}: it is in use: stop what listens there "
        f"(`ss -ltnp 'sport = :{app.port}'` shows it), or choose another port\n"
    )


async def test_it_starts_answers_its_probes_and_serves(tmp_path: Path) -> None:
    async with raw_upstream() as app, served(tmp_path, app.port) as to:
        for path in ("/livez", "/readyz", "/startupz"):
            assert (await to.process.get(path))[0] == 200
        assert (await to.process.get("/nothing"))[0] == 404
        assert await http_get(to.port, "/a?b") == (200, "GET /a?b")
    assert app.problems == []


async def test_the_limit_of_open_files_is_raised_and_told_with_what_it_is_enough_for(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = min(hard, 1000)
    async with raw_upstream() as app:
        file, _, probes = written(tmp_path, app.port)
        limited = ("-c", LIMITED, "200", str(hard))
        async with sidecar(file, probes, tmp_path / "log", limited) as running:
            assert running.process.pid is not None
            assert resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
            lines = [json.loads(line) for line in (await running.logged("process.open_files")).splitlines()]
    started, warned = (next(one for one in lines if one["kind"] == f"process.{kind}") for kind in KINDS)
    assert (started["open_files"], started["max_open_connections"]) == (
        hard,
        (hard - 64 - 2 * (hard // 8) - 2 * (hard // 64)) // 2,
    )
    assert (
        f"{hard} open files are enough for {started['max_open_connections']} exchanges" in warned["message"]
    )


async def test_metrics_are_text_that_prometheus_reads(tmp_path: Path) -> None:
    async with raw_upstream() as app, served(tmp_path, app.port) as to:
        for _ in range(3):
            await http_get(to.port, "/")
        status, text = await to.process.get("/metrics")
        assert status == 200
        assert await to.metric("http_server_request_duration_seconds_count{") == 3
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    process = await asyncio.create_subprocess_exec(
        promtool, "check", "metrics", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate(text.encode())
    assert process.returncode == 0, output.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_drain_lets_what_is_in_flight_finish_and_exits_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    held = Held()
    async with raw_upstream(held) as app, served(tmp_path, app.port) as to:
        async with raw_client(to.port) as busy, raw_client(to.port) as idle:
            await busy.send(GET)
            await held.asked.wait()
            to.process.process.send_signal(number)
            await idle.read_to_end()
            assert idle.received == b""
            assert (await to.process.get("/readyz"))[0] == 503
            assert (await to.process.get("/livez"))[0] == 200
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", to.port)
            assert to.process.process.returncode is None
            held.may_answer.set()
            (response,) = await busy.responses([b"GET"])
            assert (response.status, response.body, response.value(b"connection")) == (200, b"ok", b"close")
        assert await to.process.ended() == 0
    assert "Traceback" not in to.process.log.read_text()


async def test_after_sigterm_it_serves_new_connections_for_the_delay_and_then_no_more(tmp_path: Path) -> None:
    async with raw_upstream() as app, served(tmp_path, app.port, delay="4s") as to:
        began = time.monotonic()
        to.process.process.send_signal(signal.SIGTERM)
        await to.process.logged("draining")
        assert (await to.process.get("/readyz"))[0] == 503
        assert await http_get(to.port, "/late") == (200, "GET /late")
        assert await to.process.ended() == 0
        assert time.monotonic() - began >= 4.0
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", to.port)


async def test_drain_timeout_cuts_what_does_not_finish_and_still_exits_0(tmp_path: Path) -> None:
    held = Held()
    async with raw_upstream(held) as app, served(tmp_path, app.port, top="drain_timeout: 500ms") as to:
        async with raw_client(to.port) as busy:
            await busy.send(GET)
            await held.asked.wait()
            began = time.monotonic()
            to.process.process.send_signal(signal.SIGTERM)
            await busy.read_to_end()
            assert time.monotonic() - began >= 0.5
            assert busy.received == b""
        assert await to.process.ended() == 0
        assert "1 exchanges are cut" in to.process.log.read_text()
        told = json.loads(to.process.log.read_text().splitlines()[-1])
        assert (told["kind"], told["level"]) == ("process.ended", "info"), (
            "the last line says that it was meant"
        )
        assert re.fullmatch(
            r"ended after \d+ s: as it was asked to by SIGTERM, \d+\.\d s ago", told["message"]
        )
        assert told["signal"] == "SIGTERM"
        assert told["uptime_seconds"] >= told["drain_seconds"] >= 0.5


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    held = Held()
    async with (
        raw_upstream(held) as app,
        served(tmp_path, app.port, top=FOR_EVER) as to,
        raw_client(to.port) as busy,
    ):
        await busy.send(GET)
        await held.asked.wait()
        to.process.process.send_signal(signal.SIGTERM)
        await to.process.logged("draining")
        to.process.process.send_signal(signal.SIGINT)
        assert await to.process.ended() == 1
        told = json.loads(to.process.log.read_text().splitlines()[-1])
        assert (told["kind"], told["level"], told["signal"]) == ("process.ended", "error", "SIGINT")
        assert told["message"].endswith("by a second signal: 1 exchanges are cut")


def test_signals_that_come_before_it_is_up_are_kept_until_they_can_be_handled(tmp_path: Path) -> None:
    """To PID 1 of a container an early SIGTERM would be lost, and an early SIGHUP would kill any other process."""
    file = tmp_path / "sidecar.yaml"
    file.write_text("version: 1\nupstreams: {}\nroutes: []\n")
    with subprocess.Popen([*COMMAND, str(file)], stderr=subprocess.DEVNULL) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None and not _holds(status.read_text(), signal.SIGTERM):
            time.sleep(0.001)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_SECONDS) == 0


def _holds(status: str, number: int) -> bool:
    """Whether a process has a signal blocked, or a handler for it."""
    masks = [
        int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigBlk", "SigCgt"))
    ]
    return any(mask >> (number - 1) & 1 for mask in masks)


@pytest.mark.parametrize("text", ["routes: [}", None], ids=["bad", "good"])
async def test_a_signal_amid_a_reload_ends_it_as_ever(text: str | None, tmp_path: Path) -> None:
    async with raw_upstream() as app, served(tmp_path, app.port, top=FOR_EVER) as to:
        file = tmp_path / "sidecar.yaml"
        file.write_text(text or file.read_text().replace("name: app,", "name: renamed,"))
        to.process.process.send_signal(signal.SIGHUP)
        to.process.process.send_signal(signal.SIGTERM)
        assert await to.process.ended() == 0
        assert "Traceback" not in to.process.log.read_text()


async def test_reloads_that_wait_in_line_are_answered_when_a_drain_begins(tmp_path: Path) -> None:
    async with raw_upstream() as app, served(tmp_path, app.port) as to:
        port = admin_port(tmp_path / "sidecar.yaml")
        asking = [asyncio.create_task(admin(port, "POST", "/reload")) for _ in range(8)]
        while True:
            status = json.loads((await admin(port, "GET", "/status"))[1])
            if next(part["mailbox"] for part in status["parts"] if part["name"] == "reload") >= 4:
                break
        to.process.process.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*asking)
        refusals = [json.loads(body)["detail"] for code, body in answers if code != 200]
        assert len(refusals) >= 4
        assert set(refusals) == {
            "this process is ending: it takes no new configuration; ask the one that takes its place"
        }
        assert {code for code, _ in answers} <= {200, 503}
        assert await to.process.ended() == 0


async def test_an_idle_process_ends_without_waiting_for_anything(tmp_path: Path) -> None:
    async with raw_upstream() as app, served(tmp_path, app.port, top=FOR_EVER) as to:
        await http_get(to.port, "/")
        to.process.process.send_signal(signal.SIGTERM)
        assert await to.process.ended() == 0


async def test_the_access_log_is_on_standard_output_one_object_a_line(tmp_path: Path) -> None:
    async with raw_upstream() as app:
        file, inbound, _ = written(tmp_path, app.port)
        file.write_text(file.read_text().replace('format: "off"', "format: json"))
        process = await asyncio.create_subprocess_exec(*COMMAND, str(file), stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        async with asyncio.timeout(READY_SECONDS):
            while True:
                try:
                    status, _ = await http_get(inbound, "/logged", "x-request-id: first\r\n")
                    break
                except ConnectionError:
                    await asyncio.sleep(0.02)
            assert status == 200
            line = b""
            while b'"request_id"' not in line:
                line = await process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        await process.communicate()
        assert json.loads(line)["request_id"] == "first"
        assert process.returncode == 0
