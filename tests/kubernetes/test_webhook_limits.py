"""What strangers can do to the webhook, and what an honest review sees of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.kubernetes import reviewing
from sidecar.kubernetes.admission import MAX_TOLD_CHARACTERS
from sidecar.kubernetes.reviewing import (
    LARGE_AT_ONCE,
    LINES_A_SECOND,
    MAX_REVIEW_BYTES,
    MAX_VALUES,
    SMALL_REVIEW_BYTES,
)
from sidecar.kubernetes.webhook import TlsFiles
from tests.kubernetes.test_webhook import NEW_KEY, admission, make_certificate, post, serving
from tests.support.ports import free_ports

HONEST = json.dumps(admission({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}})).encode()
MOST_GROWTH_MIB = 60
"""Of the process's memory, whatever is sent. It begins at about 45 MiB, and its limit is 128."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return make_certificate(tmp_path, "one")


@contextlib.asynccontextmanager
async def tls(port: int, certificate: Path) -> AsyncIterator[Connection]:
    """A connection of its own, whose bytes the test decides."""
    context = ssl.create_default_context(cafile=str(certificate))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def head(*fields: str) -> bytes:
    lines = ["POST /mutate HTTP/1.1", "Host: x", "Content-Type: application/json", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


async def status_and_text(reader: asyncio.StreamReader) -> tuple[int, str]:
    answer = await reader.readuntil(b"\r\n\r\n")
    length = int(answer.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return int(answer.split(b" ", 2)[1]), (await reader.readexactly(length)).decode()


# The size of a body


async def test_a_length_beyond_the_limit_is_refused_before_a_byte_of_it_came(files: TlsFiles) -> None:
    async with serving(files) as webhook, tls(webhook.port, files.certificate) as (reader, writer):
        writer.write(head(f"Content-Length: {MAX_REVIEW_BYTES + 1}"))
        status, text = await status_and_text(reader)
        assert (status, "at most 3145728 bytes" in text) == (413, True)


async def test_a_body_without_a_length_is_refused_once_it_is_too_large(files: TlsFiles) -> None:
    async with serving(files) as webhook, tls(webhook.port, files.certificate) as (reader, writer):
        writer.write(head("Transfer-Encoding: chunked"))
        for _ in range(MAX_REVIEW_BYTES // 65_536):
            writer.write(b"10000\r\n" + b" " * 65_536 + b"\r\n")
            await writer.drain()
        writer.write(b"1\r\n \r\n")
        assert (await status_and_text(reader))[0] == 413


async def test_a_body_of_just_that_size_is_read(files: TlsFiles) -> None:
    async with serving(files) as webhook:
        largest = HONEST + b" " * (MAX_REVIEW_BYTES - len(HONEST))
        assert (await post(webhook.port, largest, files.certificate))[0] == 200
        assert (await post(webhook.port, largest + b" ", files.certificate))[0] == 413


async def test_a_body_has_a_number_of_values(files: TlsFiles) -> None:
    async with serving(files) as webhook:
        few = json.loads(HONEST)
        few["request"]["object"]["spec"]["x"] = [0] * (MAX_VALUES - 100)
        assert (await post(webhook.port, json.dumps(few).encode(), files.certificate))[0] == 200
        status, text = await post(webhook.port, b"[" + b"{}," * MAX_VALUES + b"{}]", files.certificate)
        assert (status, b"at most 100000 values" in text) == (413, True)


# Time, and who waits for whom


async def test_a_body_that_does_not_come_is_given_up(
    files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviewing, "BODY_SECONDS", 0.2)
    async with serving(files) as webhook, tls(webhook.port, files.certificate) as (reader, writer):
        writer.write(head("Content-Length: 100") + b"{")
        assert await status_and_text(reader) == (408, "the review did not come within 0.2 s\n")
        assert await reader.read() == b""


async def test_slow_large_bodies_hold_up_no_small_one_and_a_large_one_for_a_time(
    files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviewing, "BODY_SECONDS", 3.0)
    async with serving(files) as webhook, contextlib.AsyncExitStack() as stack:
        slow = [
            await stack.enter_async_context(tls(webhook.port, files.certificate))
            for _ in range(LARGE_AT_ONCE)
        ]
        for _, writer in slow:
            writer.write(head(f"Content-Length: {MAX_REVIEW_BYTES}") + b" " * 1000)
        while webhook.large_reviews < LARGE_AT_ONCE:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await post(webhook.port, HONEST, files.certificate))[0] == 200
        large = HONEST + b" " * SMALL_REVIEW_BYTES
        waits = asyncio.create_task(post(webhook.port, large, files.certificate))
        assert [(await status_and_text(reader))[0] for reader, _ in slow] == [408] * LARGE_AT_ONCE
        assert (await waits)[0] in (200, 408)
        assert (await post(webhook.port, large, files.certificate))[0] == 200
        assert webhook.large_reviews == 0


async def test_one_is_read_at_a_time_and_probes_are_answered_meanwhile(
    files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most, may_end = 0, 0, threading.Event()
    decided = reviewing._decide

    def slowly(*args: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        may_end.wait(30)
        running -= 1
        return decided(*args)

    monkeypatch.setattr(reviewing, "_decide", slowly)
    async with serving(files) as webhook:
        posts = [asyncio.create_task(post(webhook.port, HONEST, files.certificate)) for _ in range(5)]
        while not running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        async with tls(webhook.port, files.certificate) as (reader, writer):
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await status_and_text(reader) == (200, "ok\n")
        may_end.set()
        assert [status for status, _ in await asyncio.gather(*posts)] == [200] * 5
    assert most == 1


# Connections


async def test_whoever_holds_every_connection_makes_room_for_a_review(
    files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that have not even begun a handshake count too."""
    monkeypatch.setattr("sidecar.kubernetes.webhook.MAX_CONNECTIONS", 4)
    async with serving(files) as webhook:
        held = [await asyncio.open_connection("127.0.0.1", webhook.port) for _ in range(4)]
        while webhook.connection_count < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for _ in range(3):
            assert (await post(webhook.port, HONEST, files.certificate))[0] == 200
            assert webhook.connection_count <= 4
        for _, writer in held:
            writer.close()


async def test_what_is_no_handshake_is_cut_and_told_to_nobody(
    files: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(files) as webhook:
        for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" + b"\xff" * 600, b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", webhook.port)
            writer.write(noise)
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
        while webhook.connection_count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await post(webhook.port, HONEST, files.certificate))[0] == 200
    assert [record.getMessage() for record in caplog.records] == ["pod '/p': injected"]


# Who may ask


def signed_by(folder: Path, ca: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate authority, and a client that has a certificate of it."""
    folder.mkdir()
    for command in (
        f"openssl req -x509 {NEW_KEY} -days 1 -subj /CN={ca} -out ca.crt -keyout ca.key",
        f"openssl req {NEW_KEY} -subj /CN=client -out client.csr -keyout client.key",
        "openssl x509 -req -days 1 -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out client.crt",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(folder / "client.crt", folder / "client.key")
    return folder / "ca.crt", context


async def asked(port: int, context: ssl.SSLContext, request: bytes) -> int | None:
    """The status, None where there was none."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(request)
        try:
            return (await status_and_text(reader))[0]
        finally:
            writer.close()
    return None


async def test_with_a_client_ca_only_its_clients_get_an_answer_and_probes_need_none(
    files: TlsFiles, tmp_path: Path
) -> None:
    ca, known = signed_by(tmp_path / "known", "known")
    other_ca, stranger = signed_by(tmp_path / "other", "other")
    without = ssl.create_default_context(cafile=str(files.certificate))
    review = head(f"Content-Length: {len(HONEST)}") + HONEST
    probe = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
    watched = replace(files, client_ca=tmp_path / "client-ca.crt")
    assert watched.client_ca is not None
    watched.client_ca.write_bytes(ca.read_bytes())
    async with serving(watched) as webhook:
        port = webhook.port
        assert [await asked(port, one, review) for one in (known, without, stranger)] == [200, 403, None]
        assert [await asked(port, one, probe) for one in (known, without)] == [200, 200]
        watched.client_ca.write_bytes(other_ca.read_bytes())
        async with asyncio.timeout(100):
            while await asked(port, stranger, review) != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await asked(port, known, review) is None


# The log


async def test_what_the_log_keeps_of_a_review_is_bounded(
    files: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar.kubernetes")
    long = "x" * 200_000
    reviews: list[Any] = [
        {"apiVersion": long, "request": {"uid": "u"}},
        admission({"metadata": {"name": long}, "spec": {"containers": [{"name": "a"}]}}),
        admission(
            {"metadata": {"annotations": {"sidecar.io/mode": long}}, "spec": {"containers": [{"name": "a"}]}}
        ),
    ]
    async with serving(files) as webhook:
        for item in reviews:
            _, text = await post(webhook.port, json.dumps(item).encode(), files.certificate)
            assert len(text) < len(long) / 10  # a patch among them
    lines = [record.getMessage() for record in caplog.records if record.name == "sidecar.kubernetes"]
    assert len(lines) == 3
    assert max(map(len, lines)) < 2 * MAX_TOLD_CHARACTERS


async def test_so_many_lines_a_second_and_the_rest_is_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "sidecar.kubernetes")
    now = 100.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    lines = reviewing._Lines()
    for number in range(LINES_A_SECOND + 7):
        lines.tell(logging.INFO, f"line {number}")
    assert len(caplog.records) == LINES_A_SECOND
    now = 101.0
    lines.tell(logging.INFO, "next")
    assert caplog.records[-1].getMessage() == "next (7 lines before it were left out)"


# All of it at once, on a real process


@pytest.mark.process
@pytest.mark.timeout(300)
async def test_its_memory_stays_within_its_limit_whatever_is_sent(files: TlsFiles) -> None:
    """8 MB of `{}` made 258 MiB of it, and ten at once held an honest review for 14 s."""
    (port,) = free_ports(1)
    tls_files = ["--tls-certificate", str(files.certificate), "--tls-key", str(files.key)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", "webhook", "--host", "127.0.0.1", "--port", str(port)),
        *tls_files,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _answered(port, files.certificate)
        before, most, is_over = _mebibytes(process.pid), 0.0, False

        async def look() -> None:
            nonlocal most
            while not is_over:
                most = max(most, _mebibytes(process.pid))
                await asyncio.sleep(0.01)

        looking = asyncio.create_task(look())
        bad = [_send(port, files.certificate, body) for body in BAD_BODIES for _ in range(5)]
        sending = asyncio.gather(*bad)
        while not sending.done():
            assert (await post(port, HONEST, files.certificate))[0] == 200
        assert set(await sending) <= {400, 408, 413, None}
        is_over = True
        await looking
        assert most - before < MOST_GROWTH_MIB, f"{before:.0f} -> {most:.0f} MiB"
    finally:
        process.terminate()
        await process.wait()


BAD_BODIES = (
    b"[" + b"{}," * 2_666_000 + b"{}]",
    b"[" + b"{}," * (MAX_VALUES // 2 - 10) + b"{}]",
    b"[" + b'{"a":1},' * (MAX_VALUES // 2 - 10) + b"{}]",
    b'["' + b"\\ud800" * 500_000 + b'"]',
    b"[" * 1_000_000,
    b'{"apiVersion":"' + b"x" * 3_000_000 + b'","request":{"uid":"u"}}',
)


async def _send(port: int, certificate: Path, body: bytes) -> int | None:
    """The status; None where the connection was cut with the body half-way."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, RuntimeError):
        async with tls(port, certificate) as (reader, writer):
            writer.write(head(f"Content-Length: {len(body)}") + body)
            return (await status_and_text(reader))[0]
    return None


async def _answered(port: int, certificate: Path) -> None:
    """Wait until it serves."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError, ConnectionError):
                async with tls(port, certificate):
                    return
            await asyncio.sleep(0.05)


def _mebibytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")
