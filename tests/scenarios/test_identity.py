"""Who a request is on both sides of the sidecar: trace context by W3C, and its line in the access log."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.load import load_text
from sidecar.runtime.worker import Worker
from tests.scenarios.stage import OK, app_routes, get, hang, saying, stage
from tests.support.proxy import HEADER, chance, port
from tests.support.raw import Request, Script, raw_client, raw_upstream, turns

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = b"00f067aa0ba902b7"
VALID = b"00-" + TRACE + b"-" + PARENT + b"-01"


async def seen_with(*lines: bytes) -> Request:
    """The request as the upstream saw it."""
    async with stage(saying(OK)) as to:
        assert (await to.ask(get(b"/", *lines))).status == 200
        return to.requests[0]


def parts(request: Request) -> tuple[bytes, bytes, bytes, bytes]:
    match = re.fullmatch(
        rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", request.value(b"traceparent") or b""
    )
    assert match is not None
    return match[1], match[2], match[3], match[4]


async def test_a_trace_goes_on_with_a_parent_that_the_sidecar_made() -> None:
    request = await seen_with(b"traceparent: " + VALID)
    version, trace, parent, flags = parts(request)
    assert (version, trace, flags) == (b"00", TRACE, b"01")
    assert parent != PARENT
    assert request.value(b"tracestate") == b"sidecar=" + parent


async def test_a_request_without_a_trace_starts_one() -> None:
    first, second = parts(await seen_with()), parts(await seen_with())
    assert first[1] != second[1]
    assert int(first[3], 16) & 2


@pytest.mark.parametrize(
    "value",
    [
        b"ff-" + TRACE + b"-" + PARENT + b"-01",
        b"00-" + b"0" * 32 + b"-" + PARENT + b"-01",
        b"00-" + TRACE + b"-" + b"0" * 16 + b"-01",
        VALID.upper(),
        VALID[:-1],
        VALID + b"-extra",
        VALID + b"0",
        VALID.replace(b"-", b"_"),
        b"00-" + TRACE[:-1] + b"g-" + PARENT + b"-01",
        b"0-" + TRACE + b"-" + PARENT + b"-01",
    ],
)
async def test_an_invalid_traceparent_starts_a_new_trace_and_drops_the_tracestate(value: bytes) -> None:
    request = await seen_with(b"traceparent: " + value, b"tracestate: vendor=1")
    version, trace, parent, _ = parts(request)
    assert version == b"00"
    assert trace != TRACE
    assert request.value(b"tracestate") == b"sidecar=" + parent


async def test_two_traceparents_start_a_new_trace() -> None:
    request = await seen_with(b"traceparent: " + VALID, b"traceparent: " + VALID)
    assert parts(request)[1] != TRACE


@pytest.mark.parametrize("value", [b"01-" + VALID[3:], b"cc-" + VALID[3:] + b"-more", b"fe-" + VALID[3:]])
async def test_a_higher_version_is_read_and_sent_as_00(value: bytes) -> None:
    version, trace, _, flags = parts(await seen_with(b"traceparent: " + value))
    assert (version, trace, flags) == (b"00", TRACE, b"01")


@pytest.mark.parametrize(("given", "sent"), [(b"ff", b"03"), (b"03", b"03"), (b"fd", b"01"), (b"81", b"01")])
async def test_flags_other_than_sampled_and_random_are_not_passed(given: bytes, sent: bytes) -> None:
    request = await seen_with(b"traceparent: 00-" + TRACE + b"-" + PARENT + b"-" + given)
    assert parts(request)[3] == sent


async def test_several_tracestates_are_joined_in_order_behind_ours() -> None:
    request = await seen_with(b"traceparent: " + VALID, b"tracestate: a=1,b=2", b"tracestate: c=3")
    _, _, parent, _ = parts(request)
    assert re.sub(rb" *, *", b",", request.value(b"tracestate") or b"") == b"sidecar=%b,a=1,b=2,c=3" % parent


async def test_our_member_is_moved_to_the_front_and_renewed() -> None:
    request = await seen_with(b"traceparent: " + VALID, b"tracestate: a=1,sidecar=00f067aa0ba902b7,b=2")
    _, _, parent, _ = parts(request)
    assert request.value(b"tracestate") == b"sidecar=%b,a=1,b=2" % parent


async def test_a_tracestate_has_at_most_32_members_with_ours() -> None:
    given = b",".join(b"k%d=1" % number for number in range(32))
    request = await seen_with(b"traceparent: " + VALID, b"tracestate: " + given)
    members = (request.value(b"tracestate") or b"").split(b",")
    assert len(members) == 32
    assert members[1:] == given.split(b",")[:31]


@pytest.mark.parametrize(
    "value", [b"a=1,b=", b"=1", b"a", b"A B=1", b",".join(b"k%d=1" % n for n in range(40))]
)
async def test_a_bad_tracestate_is_dropped_and_the_traceparent_kept(value: bytes) -> None:
    request = await seen_with(b"traceparent: " + VALID, b"tracestate: " + value)
    _, trace, parent, _ = parts(request)
    assert (trace, request.value(b"tracestate")) == (TRACE, b"sidecar=" + parent)


async def test_each_request_has_a_parent_of_its_own() -> None:
    async with stage(saying(OK)) as to:
        await to.ask_all(get(b"/", b"traceparent: " + VALID) * 20, [b"GET"] * 20)
        assert len({parts(request)[2] for request in to.requests}) == 20


async def test_a_caller_cannot_forge_what_the_sidecar_writes() -> None:
    request = await seen_with(b"Via: 9.9 x", b"x-envoy-expected-rq-timeout-ms: 100", b"tracestate: sidecar=1")
    assert len(request.values(b"x-envoy-expected-rq-timeout-ms")) == 1
    assert len(request.values(b"tracestate")) == 1


# The access log


@asynccontextmanager
async def logging_stage(
    script: Script, log: Path, options: str = "format: json", route: str = ""
) -> AsyncIterator[int]:
    """The port of a sidecar that logs to `log`; the log is complete after the block."""
    header = HEADER.replace('format: "off"', options)
    async with raw_upstream(script) as app:
        loop = asyncio.get_running_loop()
        with log.open("wb") as output:
            snapshot = load_text(header + app_routes(app.port, route=route)).snapshot
            worker = Worker(snapshot, dict(os.environ), log_fd=output.fileno(), clock=loop.time, rng=chance())
            await worker.start()
            try:
                yield port(worker)
                await turns(20)
            finally:
                await worker.stop()


def lines_of(log: Path) -> list[dict[str, Any]]:
    """Those of exchanges, in order."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if line["kind"] == "access"]


async def ask(to: int, data: bytes) -> None:
    async with raw_client(to) as client:
        await client.send(data)
        await client.responses([data.split(b" ", 1)[0]])


async def test_each_exchange_is_one_line_of_json_with_its_ids(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with logging_stage(saying(OK), log) as to:
        await ask(
            to, get(b"/a?secret=1", b"traceparent: " + VALID, b"x-request-id: mine", b"User-Agent: test")
        )
        await ask(to, get(b"/b"))
    first, second = lines_of(log)
    assert first["trace_id"] == TRACE.decode()
    assert re.fullmatch("[0-9a-f]{16}", first["span_id"])
    assert (first["request_id"], first["route"]) == ("mine", "app")
    assert second["trace_id"] != first["trace_id"]
    text = log.read_text()
    assert '"200"' in text or "200" in text


async def test_the_line_of_a_failed_exchange_says_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with logging_stage(hang, log, route="timeouts: {request: 1s}") as to:
        await ask(to, get())
        async with raw_client(to) as client:
            await client.send(get(b"/gone"))
            await turns(50)
        await turns(50)
        await ask(to, b"nonsense\r\n\r\n")
    timed_out, gone, malformed = (json.dumps(line) for line in lines_of(log))
    assert '"reason": "timeout"' in timed_out
    assert "504" in timed_out
    assert '"reason": "client_gone"' in gone
    assert "499" in gone
    assert '"reason": "bad_request"' in malformed
    assert "400" in malformed


async def test_a_client_cannot_break_a_line_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with logging_stage(saying(OK), log) as to:
        await ask(to, get(b'/"%0a{}', b'User-Agent: "}\\n\xff', b'x-request-id: "}'))
    (line,) = lines_of(log)
    assert line["request_id"] == '"}'


async def test_no_line_is_written_when_the_log_is_off(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with logging_stage(saying(OK), log, 'format: "off"') as to:
        await ask(to, get())
    assert lines_of(log) == []


async def test_sampling_leaves_out_what_went_well_and_keeps_what_failed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with logging_stage(
        saying(OK, OK, b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"), log, "format: json, sample_ratio: 0%"
    ) as to:
        for _ in range(3):
            await ask(to, get())
    (line,) = lines_of(log)
    assert "500" in json.dumps(line)
