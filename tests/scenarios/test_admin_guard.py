"""Who may ask the admin API, who may not, and that every change is known afterwards with who asked for it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar.admin.answers import Refused
from sidecar.admin.token_file import TokenFile
from sidecar.config.load import load_text
from sidecar.core.transition import State
from sidecar.runtime.worker import Worker
from tests.scenarios.operator import operator, serving
from tests.scenarios.stage import app_routes
from tests.support.contract import operations
from tests.support.open_files import every_file_taken
from tests.support.proxy import HEADER, running
from tests.support.raw import raw_client

NOBODY = app_routes(9)


# Pages of others


@pytest.mark.parametrize(
    "line",
    [
        "Origin: http://evil.example",
        "Origin: null",
        "Origin: http://127.0.0.1:1",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ],
)
async def test_a_page_of_another_origin_changes_nothing(line: str) -> None:
    async with running(NOBODY) as worker:
        response = await operator(worker).send("POST", "/breakers/app/open", line)
        assert (response.status, worker.assembly.breakers["app", "app"].state) == (403, State.CLOSED)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), 200),
        (("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"), 200),
        (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), 200),
        (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"), 403),
        (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"), 403),
        (("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"), 403),
        (("Sec-Fetch-Site: cross-site",), 403),
        (("Origin: http://evil.example",), 403),
    ],
)
async def test_another_page_may_link_here_but_neither_frame_nor_load_anything(
    lines: tuple[str, ...], status: int
) -> None:
    async with running(NOBODY) as worker:
        assert (await operator(worker).send("GET", "/status", *lines)).status == status


async def test_another_page_may_not_open_tab_after_tab_of_events() -> None:
    lines = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
    async with running(NOBODY) as worker:
        assert (await operator(worker).send("GET", "/events", *lines)).status == 403
        assert worker.control.events.readers == set()


async def test_a_form_of_another_page_that_opens_the_answer_changes_nothing() -> None:
    form = (
        *("Origin: http://evil.example", "Sec-Fetch-Site: cross-site"),
        *("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-User: ?1"),
    )
    async with running(NOBODY) as worker:
        assert (await operator(worker).send("POST", "/drain", *form)).status == 403
        assert worker.datapath.is_ready


async def test_every_answer_tells_browsers_to_keep_it_to_our_own_pages() -> None:
    async with running(NOBODY) as worker:
        hand = operator(worker)
        for method, path in (
            ("GET", "/status"),
            ("GET", "/metrics"),
            ("POST", "/nowhere"),
            ("GET", "/openapi.json"),
        ):
            response = await hand.send(method, path)
            assert response.value(b"x-frame-options") == b"DENY"
            assert response.value(b"cross-origin-resource-policy") == b"same-origin"
            assert response.value(b"x-content-type-options") == b"nosniff"
            assert response.value(b"access-control-allow-origin") is None


async def test_a_page_of_our_own_may_change_things() -> None:
    async with running(NOBODY) as worker:
        hand = operator(worker)
        lines = (f"Origin: http://127.0.0.1:{hand.port}", "Sec-Fetch-Site: same-origin")
        assert (await hand.send("POST", "/breakers/app/open", *lines)).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("evil.example:15000", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("10.0.0.1", 403),
        ("0.0.0.0:15000", 403),
        ("[::]:15000", 403),
        ("[fe80::1]", 403),
        ("2130706433", 403),
        ("evil.example.", 403),
        ("evil.example#localhost", 403),
        ("localhost@evil.example", 403),
        ("localhost:80:80", 403),
        ("localhostevil", 403),
        ("127.0.0.1,evil.example", 403),
        ("[::1].evil.example", 403),
        ("[::1]evil:80", 403),
        ("[::1%25lo]", 403),
        ("::1", 403),
        ("", 403),
        ("localhost", 200),
        ("LOCALHOST:1234", 200),
        ("dashboard.localhost", 200),
        ("localhost.", 200),
        ("LocalHost.:15000", 200),
        ("localhost:", 200),
        ("127.0.0.1:8080", 200),
        ("127.9.9.9", 200),
        ("[::1]:15000", 200),
        ("[0:0:0:0:0:0:0:1]", 200),
    ],
)
async def test_a_name_that_was_pointed_here_reads_nothing(host: str, status: int) -> None:
    async with running(NOBODY) as worker:
        assert (await operator(worker).send("GET", "/config", host=host)).status == status


# The token


@asynccontextmanager
async def guarded_by(token: Path) -> AsyncIterator[Worker]:
    """A sidecar that others could reach, whose admin API asks for the token."""
    address = f'admin: {{address: "0.0.0.0:0", token_file: {token}}}'
    async with running(NOBODY, HEADER.replace('admin: {address: "127.0.0.1:0"}', address)) as worker:
        yield worker


async def test_with_a_token_file_only_who_has_the_token_may_ask(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    async with guarded_by(token) as worker:
        hand = operator(worker)
        response = await hand.send("GET", "/status")
        assert (response.status, response.value(b"www-authenticate")) == (401, b'Bearer realm="sidecar"')
        assert (await hand.send("GET", "/status", "Authorization: Bearer firs")).status == 401
        assert (await hand.send("GET", "/status", "Authorization: Basic first")).status == 401
        assert (
            await hand.send("GET", "/status", "Authorization: Bearer first", host="any.name")
        ).status == 200
        evil = ("Authorization: Bearer first", "Origin: http://evil")
        assert (await hand.send("POST", "/drain", *evil)).status == 403
        (tmp_path / "next").write_text("second")
        (tmp_path / "next").rename(token)
        assert (await hand.send("GET", "/status", "Authorization: Bearer first")).status == 401
        assert (await hand.send("GET", "/status", "Authorization: Bearer second")).status == 200
        token.write_text("")
        assert (await hand.send("GET", "/status", "Authorization: Bearer ")).status == 503
        token.unlink()
        assert (await hand.send("GET", "/status", "Authorization: Bearer second")).status == 503


async def test_the_token_is_asked_for_at_every_resource_but_for_what_is_not_there(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    async with guarded_by(token) as worker:
        hand = operator(worker)
        for method, template in sorted(operations()):
            response = await hand.send(method, template.replace("{route}", "app"))
            assert response.status == 401, (method, template)
        assert (await hand.send("GET", "/nowhere")).status == 401


@pytest.mark.parametrize(
    ("authorization", "is_right"),
    [
        ("Bearer s3cr\u00e9t", True),
        ("bearer s3cr\u00e9t", True),
        ("BEARER   s3cr\u00e9t ", True),
        ("Bearer", False),
        ("Bearer ", False),
        ("s3cr\u00e9t", False),
        ("Bearer s3cr\u00e9", False),
        ("Bearer s3cr\u00e9tt", False),
        ("Bearer s3cr\udce9t", False),
        ("Basic s3cr\u00e9t", False),
        ("", False),
    ],
)
async def test_nothing_but_the_token_is_the_token(tmp_path: Path, authorization: str, is_right: bool) -> None:
    token = tmp_path / "token"
    token.write_text("  s3cr\u00e9t\n")
    statuses = []
    try:
        await TokenFile(str(token)).check(authorization)
    except Refused as refused:
        statuses.append(refused.status)
    assert statuses == ([] if is_right else [401])


async def test_what_is_wrong_with_the_token_file_is_in_the_log_once_and_its_name_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = tmp_path / "token"
    file = TokenFile(str(token))
    for _ in range(3):
        with pytest.raises(Refused) as refused:
            await file.check("Bearer ")
        assert (refused.value.status, refused.value.detail) == (
            503,
            "nobody may ask: the token file cannot be read: No such file or directory",
        )
    token.write_text("\n")
    token.chmod(0o600)
    with pytest.raises(Refused, match="is empty"):
        await file.check("Bearer ")
    token.write_text("secret")
    await file.check("Bearer secret")
    told = [record.getMessage() for record in caplog.records]
    nobody = f"nobody may ask the admin API: the token file {token}"
    assert told == [f"{nobody} cannot be read: No such file or directory", f"{nobody} is empty"]


async def test_a_token_file_that_others_may_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o644)
    async with guarded_by(token):
        assert f"every user of this host may read the token file {token}: its mode is 644" in caplog.text


async def test_a_token_file_without_the_right_to_read_it_says_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("sidecar.admin.token_file.os.stat", refuse)
    with pytest.raises(Refused, match=f"may not be read by uid {os.geteuid()}: give it the right to"):
        await TokenFile(str(tmp_path / "token")).check("Bearer x")


# The socket


async def test_a_unix_socket_serves_any_host(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    header = HEADER.replace('admin: {address: "127.0.0.1:0"}', f"admin: {{address: 'unix:{path}'}}")
    async with running(NOBODY, header):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /status HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()


async def test_a_unix_socket_answers_where_no_file_can_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    header = HEADER.replace('admin: {address: "127.0.0.1:0"}', f"admin: {{address: 'unix:{path}'}}")
    async with running(NOBODY, header):
        reader, writer = await asyncio.open_unix_connection(path)
        with every_file_taken():
            for request in (b"GET /status", b"POST /breakers/app/open?for=5s"):
                writer.write(request + b" HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
                await reader.readuntil(b"}\n")
        writer.close()


async def test_a_unix_socket_is_its_owners_from_the_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    header = HEADER.replace('admin: {address: "127.0.0.1:0"}', f"admin: {{address: 'unix:{path}'}}")
    umask = os.umask(0)
    try:
        async with running(NOBODY, header):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(umask)


@pytest.mark.parametrize(
    ("peer", "status"), [((0, 1), 200), ((os.geteuid(), 1), 200), ((65534, 1), 403), (None, 403)]
)
async def test_a_unix_socket_lets_in_its_own_uid_and_root(
    peer: tuple[int, int] | None, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.admin.guard.peer_process", lambda _request: peer)
    path = tmp_path / "admin.sock"
    header = HEADER.replace('admin: {address: "127.0.0.1:0"}', f"admin: {{address: 'unix:{path}'}}")
    async with running(NOBODY, header):
        for request in (b"GET /status", b"POST /drain") if status == 403 else (b"GET /status",):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(request + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert status == 200 or f"this socket is for uid {os.geteuid()} and root".encode() in answer
            writer.close()


async def test_who_asks_at_a_unix_socket_is_known_by_what_the_kernel_says(tmp_path: Path) -> None:
    path, log = tmp_path / "admin.sock", tmp_path / "log"
    header = HEADER.replace('admin: {address: "127.0.0.1:0"}', f"admin: {{address: 'unix:{path}'}}")
    async with serving(load_text(header + NOBODY).snapshot, log):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"POST /drain HTTP/1.1\r\nHost: x\r\nUser-Agent: me\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 202 Accepted\r\n")
        writer.close()
    _started, line, _ended = map(json.loads, log.read_text().splitlines())
    assert (line["client"], line["user_agent"]) == (f"uid {os.getuid()}, pid {os.getpid()}", "me")


async def test_an_override_that_comes_by_a_unix_socket_is_of_the_process_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    header = HEADER.replace('admin: {address: "127.0.0.1:0"}', f"admin: {{address: 'unix:{path}'}}")
    async with running(NOBODY, header) as worker:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"POST /breakers/app/open HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        order = worker.assembly.breakers["app", "app"].order_at(worker.service.clock())
    assert order is not None
    assert order.by == f"uid {os.getuid()}, pid {os.getpid()}"


# Changes


async def test_every_change_and_every_refused_one_is_in_the_log_whatever_its_level(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with serving(load_text(HEADER + NOBODY).snapshot, log) as worker:
        hand = operator(worker)
        await hand.post("/loglevel?level=error")
        assert await hand.get("/loglevel") == {
            "level": "error",
            "levels": ["debug", "info", "warning", "error"],
        }
        await hand.post("/breakers/app/open?for=5m")
        await hand.post("/breakers/nobody/open")
        await hand.post("/drain", "Origin: http://evil")
        await hand.get("/status")
    started, *lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert started["kind"] == "process.started"
    assert [(one["kind"], one["path"], one["status"], one["client"]) for one in lines] == [
        ("admin.change", "/loglevel", 200, "127.0.0.1"),
        ("admin.change", "/breakers/app/open", 200, "127.0.0.1"),
        ("admin.change", "/breakers/nobody/open", 404, "127.0.0.1"),
        ("admin.change", "/drain", 403, "127.0.0.1"),
    ]
    assert lines[1]["query"] == {"for": "5m"}
    assert [one["origin"] for one in lines] == [None, None, None, "http://evil"]


async def test_what_a_client_writes_is_kept_in_the_log_as_far_as_there_is_room(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with (
        serving(load_text(HEADER + NOBODY).snapshot, log) as worker,
        raw_client(worker.control.admin.port) as client,
    ):
        query = "&".join(f"{'k' * 200}{number}={'v' * 200}" for number in range(15))
        await client.send(
            f"POST /{'p' * 2000}?{query} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {'a' * 2000}\r\n".encode()
            + b"Origin: \xff\r\nConnection: close\r\n\r\n"
        )
        await client.read_to_end()
    _started, line, _ended = map(json.loads, log.read_text().splitlines())
    assert line["status"] == 403
    assert (len(line["path"]), len(line["user_agent"]), line["origin"]) == (256, 256, "?")
    assert line["query"] == {"k" * 100: "v" * 100}


async def test_a_change_that_expects_something_is_in_the_log_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with serving(load_text(HEADER + NOBODY).snapshot, log) as worker:
        await operator(worker).post("/breakers/app/open", "Expect: the unexpected")
        assert worker.assembly.breakers["app", "app"].state is State.FORCED_OPEN
    assert '"kind":"admin.change"' in log.read_text()


async def test_what_is_no_http_is_answered_and_leaves_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    wrong = {
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n": b"400",
        b"\x16\x03\x01\r\n\r\n": b"400",
        b"FOO@ /drain HTTP/1.1\r\nHost: x\r\n\r\n": b"400",
        b"GET / HTTP/1.1\r\n\r\n": b"400",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n": b"431",
    }
    async with running(NOBODY) as worker:
        for raw, status in wrong.items():
            reader, writer = await asyncio.open_connection("127.0.0.1", worker.control.admin.port)
            writer.write(raw)
            assert (await reader.read()).split(b" ")[1] == status
            writer.close()
        assert (await operator(worker).send("GET", "/status")).status == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
