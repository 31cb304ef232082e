"""Against real parts: what the room sends over both protocols comes out of a collector, and outages cost nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import resource as process_limits
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.errors import Reason
from sidecar.core.numbers import Numbers
from sidecar.core.snapshot import Otlp, Telemetry
from sidecar.core.sources import BreakerReading, ReloadReport, Sources
from sidecar.core.transition import State
from sidecar.telemetry.export import make_sink
from sidecar.telemetry.room import TelemetryRoom
from sidecar.telemetry.settings import Export
from tests.support.ports import free_ports
from tests.telemetry.conftest import Collector
from tests.telemetry.fakes import FakeAttempt, FakeExchange, count_ended, opening


def make_room(file: Telemetry, numbers: Numbers | None = None, log_fd: int | None = None) -> TelemetryRoom:
    numbers = numbers or Numbers()
    breaker = BreakerReading("checkout", "payments", State.OPEN, successful=3, failed=5, rejected=2)
    rooms: list[TelemetryRoom] = []

    def sources() -> Sources:
        return Sources(breakers=[breaker], dropped=rooms[0].dropped())

    fd = log_fd if log_fd is not None else os.open(os.devnull, os.O_WRONLY)
    rooms.append(TelemetryRoom(file, numbers, sources, environ=os.environ, log_fd=fd))
    return rooms[0]


def attributes(item: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in item.attributes}


async def wait_until(condition: Callable[[], bool], seconds: float = 100.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_spans_metrics_and_logs_come_out_of_a_collector(
    tap: Any, collector: Collector, protocol: str
) -> None:
    numbers = Numbers()
    room = make_room(collector.telemetry(protocol, logs=True), numbers)
    room.start()
    try:
        now = time.monotonic()
        opened = opening(at=now)
        exchange = FakeExchange(started=now - 0.02, ended=now, tripped=opened)
        exchange.attempts = (FakeAttempt(started=now - 0.019, ended=now - 0.001),)
        refused = FakeExchange(
            started=now,
            ended=now,
            status=503,
            reason=Reason.CIRCUIT_OPEN,
            detail="open",
            refused_by=opened,
            attempts=(),
            span_id=b"00f067aa0ba902c0",
        )
        expected = [
            asyncio.ensure_future(tap.await_trace(lambda span, name=name: span.name == name, timeout=100))
            for name in ("GET checkout", "GET payments", "circuit_breaker.opened checkout", "config.reload")
        ]
        rejected = asyncio.ensure_future(
            tap.await_trace(lambda span: bool(span.links) and span.kind == 2, timeout=100)
        )
        duration = asyncio.ensure_future(
            tap.await_metric(lambda metric: metric.name == "http.server.request.duration", timeout=100)
        )
        state = asyncio.ensure_future(
            tap.await_metric(lambda metric: metric.name == "sidecar.circuit_breaker.state", timeout=100)
        )
        record = asyncio.ensure_future(tap.await_log(lambda log: "503" in log.body.string_value, timeout=100))
        for one in (exchange, refused):
            count_ended(numbers, one)
            room.observer.finished(one)
        room.observer.transitioned(opened)
        room.reloaded(ReloadReport(at=now, seconds=0.01, generation=2, is_success=True, routes_added=1))
        server, client, transition, _ = await asyncio.gather(*expected)
        link = (await rejected).links[0]
        assert client.parent_span_id == server.span_id == bytes.fromhex("00f067aa0ba902b7")
        assert client.trace_id == server.trace_id
        assert abs(server.start_time_unix_nano / 1e9 - time.time()) < 30
        assert (link.trace_id, link.span_id) == (transition.trace_id, transition.span_id)
        assert transition.links[0].span_id == server.span_id
        rows = {
            attributes(point)["http.response.status_code"]: point
            for point in (await duration).histogram.data_points
        }
        assert {status: row.count for status, row in rows.items()} == {200: 1, 503: 1}
        assert rows[200].exemplars[0].trace_id == server.trace_id
        states = {
            attributes(point)["sidecar.circuit_breaker.state"]: point.as_int
            for point in (await state).sum.data_points
        }
        others = dict.fromkeys(("closed", "half_open", "forced_open", "forced_closed", "disabled"), 0)
        assert states == {"open": 1, **others}
        assert (await record).trace_id == server.trace_id
        assert sum(room.dropped().values()) == 0
    finally:
        await asyncio.to_thread(room.stop)


def dropped_spans(room: TelemetryRoom) -> int:
    return sum(count for (signal, _), count in room.dropped().items() if signal == "traces")


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_killed_collector_costs_bounded_memory_and_telemetry_resumes(
    tap: Any, collector: Collector, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "128")
    room = make_room(collector.telemetry(protocol))
    received: set[bytes] = set()

    async def read() -> None:
        async for span in tap.stream_traces():
            if span.kind == 2:
                received.add(span.span_id)

    reading = asyncio.ensure_future(read())
    room.start()
    try:
        sent = 0

        def send(count: int) -> None:
            nonlocal sent
            for _ in range(count):
                sent += 1
                room.observer.finished(
                    FakeExchange(span_id=b"%016x" % sent, attempts=(), target=b"/" + b"x" * 2000)
                )

        send(1)
        await wait_until(lambda: len(received) == 1)
        collector.kill()
        before = process_limits.getrusage(process_limits.RUSAGE_SELF).ru_maxrss
        send(20_000)  # were it to wait for an export, the queue would never be full
        await wait_until(lambda: room.dropped()["traces", "export_failed"] > 0)
        held = sent - len(received) - dropped_spans(room)
        assert held <= 2048 + 128, "a full queue, and the batch that is being exported"
        assert room.dropped()["traces", "queue_full"] > 0
        after = process_limits.getrusage(process_limits.RUSAGE_SELF).ru_maxrss
        assert after - before < 32 * 1024, "KiB"
        collector.start()
        final = len(received)

        async def until_received() -> None:
            while len(received) == final:
                send(1)
                await asyncio.sleep(0.1)

        await asyncio.wait_for(until_received(), 100)
        await asyncio.to_thread(room.stop, 5.0)
        lost = dropped_spans(room)
        await wait_until(lambda: len(received) + lost >= sent)
        # An export whose answer comes too late has failed for who sent it, though its spans arrived: one batch, on a
        # machine that is busy as the collector starts.
        assert 0 <= len(received) + lost - sent <= 128, "every span arrived or was counted as dropped"
    finally:
        reading.cancel()


async def test_collector_that_never_answers_does_not_hold_the_loop_or_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A listening socket that nobody reads: exports hang until their timeout."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100000")  # milliseconds
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        room = make_room(Telemetry(otlp=Otlp(endpoint, "http/protobuf"), metrics_interval_seconds=0.1))
        room.start()
        for index in range(5000):  # would hang here until the export's timeout
            room.observer.finished(FakeExchange(span_id=b"%016x" % (index + 1)))
            if index % 50 == 0:
                await asyncio.sleep(0)
        before = time.perf_counter()
        await asyncio.to_thread(room.stop, 0.5)
        assert time.perf_counter() - before < 50.0  # against 100: an export's own timeout
        assert room.dropped()["traces", "queue_full"] > 0


def test_nothing_of_opentelemetry_is_imported_without_an_exporter() -> None:
    code = (
        "import sys; from sidecar.core.numbers import Numbers; from sidecar.core.snapshot import Telemetry;"
        "from sidecar.core.sources import Sources; from sidecar.telemetry.room import TelemetryRoom;"
        "TelemetryRoom(Telemetry(), Numbers(), Sources, environ={}, log_fd=1);"
        "sys.exit(any(name.startswith(('opentelemetry', 'grpc', 'google')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_thread_is_started_without_an_exporter() -> None:
    room = make_room(Telemetry())
    assert room.settings.traces is None
    assert room.settings.metrics is None
    assert [thread.name for thread in threading.enumerate() if "sidecar-spans" in thread.name] == []
    room.start()
    room.observer.finished(FakeExchange())
    room.stop()
    assert room.dropped() == {("access_log", "queue_full"): 0, ("access_log", "write_failed"): 0}


def test_a_collection_that_breaks_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
    reader, writer = os.pipe()

    def broken() -> Sources:
        raise ZeroDivisionError("an example")

    file = Telemetry(
        otlp=Otlp(f"http://127.0.0.1:{free_ports(1)[0]}", "http/protobuf"), metrics_interval_seconds=0.05
    )
    numbers = Numbers()
    calls = iter([broken])
    room = TelemetryRoom(file, numbers, lambda: next(calls, Sources)(), environ=os.environ, log_fd=writer)
    room.start()
    with os.fdopen(reader, "rb") as lines:
        told = json.loads(lines.readline())
    room.stop(0.5)
    os.close(writer)
    assert told["kind"] == "telemetry.export"
    assert told["message"] == "sidecar-metrics failed: ZeroDivisionError: an example"
    assert told["error"] == "ZeroDivisionError: an example"


def test_refused_connection_is_an_event_in_the_log_not_noise_on_stderr(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
    reader, writer = os.pipe()
    file = Telemetry(otlp=Otlp(f"http://127.0.0.1:{free_ports(1)[0]}", "http/protobuf"))
    room = make_room(file, log_fd=writer)
    room.start()
    room.observer.finished(FakeExchange())
    deadline = time.monotonic() + 100
    while not room.dropped()["traces", "export_failed"] and time.monotonic() < deadline:
        time.sleep(0.02)
    room.stop()
    os.close(writer)
    with os.fdopen(reader, "rb") as lines:
        assert b'"kind":"telemetry.export"' in lines.read()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_collector_that_is_away_leaves_no_request_behind(
    protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a cycle either, which a collection would free: what a reload freezes before that stays for good."""
    caplog.set_level(logging.CRITICAL, "sidecar.telemetry.export")  # a captured record would keep the error
    path = "" if protocol == "grpc" else "/v1/traces"
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}{path}"
    sink = make_sink("traces", Export(protocol, endpoint, None, "none", 0.5))
    request = os.urandom(1000)
    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(request)
        assert [sink.send(request) for _ in range(3)] == [None] * 3
        assert sys.getrefcount(request) == before
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert [
            one for one in gc.garbage if isinstance(one, type)
        ] == []  # what is made anew for each connection
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        sink.close()
