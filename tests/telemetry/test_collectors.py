"""Collectors that are not well: they take a part, send garbage or redirect. What is lost is counted, to the item."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent import futures
from dataclasses import replace
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sidecar.core.numbers import Numbers
from sidecar.core.snapshot import AccessLog, LogFormat, Otlp, Telemetry
from sidecar.core.sources import Sources
from sidecar.core.transition import Cause, Transition
from sidecar.telemetry.log_lines import Level
from sidecar.telemetry.room import TelemetryRoom
from tests.support.ports import free_ports
from tests.telemetry.fakes import FakeAttempt, FakeExchange, opening

PROTOCOLS = ("grpc", "http/protobuf")


def partial(count: int) -> bytes:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = count
    answer.partial_success.error_message = "too old"
    return answer.SerializeToString()


class Answers:
    """What a collector says to each request, and what it got."""

    def __init__(self, answer: bytes = b"", status: int = 200) -> None:
        self.answer, self.status = answer, status
        self.requests: list[bytes] = []

    def take(self, request: bytes) -> bytes:
        self.requests.append(request)
        return self.answer


@contextlib.contextmanager
def served(answers: Answers, protocol: str) -> Iterator[str]:
    with _grpc(answers) if protocol == "grpc" else _http(answers) as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _grpc(answers: Answers) -> Iterator[int]:
    class Every(grpc.GenericRpcHandler):
        def service(self, _details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda request, _: answers.take(request))

    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Every(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(0).wait()


@contextlib.contextmanager
def _http(answers: Answers) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = answers.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(answers.status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", "https://elsewhere.invalid/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def told_by(telemetry: Telemetry, *, spans: int) -> tuple[dict[tuple[str, str], int], list[Any]]:
    """Run a room through so many exchanges without attempts; what it counted as lost, and its log."""
    reader, writer = os.pipe()
    room = TelemetryRoom(telemetry, Numbers(), Sources, environ=os.environ, log_fd=writer)
    room.start()
    for number in range(spans):
        room.observer.finished(FakeExchange(span_id=b"%016x" % (number + 1), attempts=()))
    room.stop()
    os.close(writer)
    with os.fdopen(reader, "rb") as lines:
        return room.dropped(), [json.loads(line) for line in lines]


def exporting(endpoint: str, protocol: str, **more: Any) -> Telemetry:
    headers = (("X-Tenant", "a"),)  # gRPC itself takes lower-case names alone
    access_log = AccessLog(LogFormat.OFF)
    return Telemetry(otlp=Otlp(endpoint, protocol, headers), access_log=access_log, **more)


@pytest.fixture(autouse=True)
def _traces_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_a_collector_refuses_of_a_request_is_counted_and_told(protocol: str) -> None:
    answers = Answers(partial(3))
    with served(answers, protocol) as endpoint:
        lost, log = told_by(exporting(endpoint, protocol), spans=10)
    assert len(answers.requests) == 1
    assert {key: count for key, count in lost.items() if count} == {("traces", "refused"): 3}
    assert any("refused 3 items: too old" in line["message"] for line in log)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_that_claims_to_refuse_more_than_it_got_refused_all(protocol: str) -> None:
    with served(Answers(partial(1000)), protocol) as endpoint:
        lost, _ = told_by(exporting(endpoint, protocol), spans=10)
    assert lost["traces", "refused"] == 10


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_answer_that_is_garbage_is_told_and_ends_nothing(protocol: str) -> None:
    answers = Answers(b"<html>It works!</html>")
    with served(answers, protocol) as endpoint:
        lost, log = told_by(exporting(endpoint, protocol), spans=10)
    assert len(answers.requests) == 1
    assert not any(lost.values())
    assert any("is a collector there?" in line["message"] for line in log)


def test_a_redirection_is_a_loss_and_is_told() -> None:
    with served(Answers(status=301), "http/protobuf") as endpoint:
        lost, log = told_by(exporting(endpoint, "http/protobuf"), spans=10)
    assert lost["traces", "export_failed"] == 10
    assert any("redirects, with status 301" in line["message"] for line in log)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_that_is_not_there_is_told_by_its_address_and_why(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "300")  # less than the first wait before another try
    (nobody,) = free_ports(1)
    lost, log = told_by(exporting(f"http://127.0.0.1:{nobody}", protocol), spans=1)
    assert lost["traces", "export_failed"] == 1
    (line,) = (one["message"] for one in log if one["kind"] == "telemetry.export")
    assert str(nobody) in line
    assert "onnection refused" in line


def test_a_collector_that_says_no_is_told_by_its_address_and_its_answer() -> None:
    with served(Answers(status=404), "http/protobuf") as endpoint:
        secret = endpoint.replace("//", "//user:hidden@")
        lost, log = told_by(exporting(secret, "http/protobuf"), spans=1)
    assert lost["traces", "export_failed"] == 1
    (line,) = (one["message"] for one in log if one["kind"] == "telemetry.export")
    assert line == f"Failed to export to {endpoint}/v1/traces: 404 Not Found".replace("//", "//(hidden)@")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_last_lines_of_a_process_are_exported_too(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    answers = Answers()
    with served(answers, protocol) as endpoint:
        telemetry = exporting(endpoint, protocol, logs=True)
        fd = os.open(os.devnull, os.O_WRONLY)
        room = TelemetryRoom(telemetry, Numbers(), Sources, environ=os.environ, log_fd=fd)
        room.start()
        for number in range(300):
            room.log.event(Level.INFO, "test", f"line {number}", {}, time.monotonic())
        room.stop()
        os.close(fd)
    records = [
        record.body.string_value
        for request in map(ExportLogsServiceRequest.FromString, answers.requests)
        for record in request.resource_logs[0].scope_logs[0].log_records
    ]
    assert records == [f"line {number}" for number in range(300)]
    assert not any(room.dropped().values())


def test_lines_that_never_reach_a_collector_because_the_log_stalls_are_counted_for_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody reads the pipe: the writer is stuck in its first lines, and the others never come out of the queue."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    answers = Answers()
    reader, writer = os.pipe()
    with served(answers, "http/protobuf") as endpoint:
        telemetry = exporting(endpoint, "http/protobuf", logs=True)
        room = TelemetryRoom(telemetry, Numbers(), Sources, environ=os.environ, log_fd=writer)
        room.start()
        for _ in range(10_000):
            room.log.event(Level.INFO, "test", "x" * 512, {}, time.monotonic())
        room.stop(0.4)
    os.close(reader)  # the writer's thread ends, too
    received = sum(
        len(request.resource_logs[0].scope_logs[0].log_records)
        for request in map(ExportLogsServiceRequest.FromString, answers.requests)
    )
    lost = room.dropped()
    assert received > 0
    assert received + lost["logs", "queue_full"] + lost["logs", "export_failed"] == 10_000
    os.close(writer)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_record_that_cannot_be_told_is_counted_and_takes_no_other_with_it(protocol: str) -> None:
    answers = Answers()
    reader, writer = os.pipe()
    with served(answers, protocol) as endpoint:
        telemetry = exporting(endpoint, protocol, logs=True)
        room = TelemetryRoom(telemetry, Numbers(), Sources, environ=os.environ, log_fd=writer)
        room.start()
        for trace_id in (b"0" * 31 + b"1", b"no id", b"0" * 31 + b"2"):
            room.observer.finished(FakeExchange(trace_id=trace_id))
        room.log.event(Level.INFO, "test", "a file's name: \udc80", {"file": "\udc80"}, time.monotonic())
        deadline = time.monotonic() + 100.0
        while _failed(room) != (2, 2) and time.monotonic() < deadline:
            time.sleep(0.01)
        room.stop()
    os.close(writer)
    os.close(reader)
    assert _failed(room) == (2, 2)
    assert bytes.fromhex("0" * 31 + "2") in b"".join(answers.requests)


def _failed(room: TelemetryRoom) -> tuple[int, int]:
    lost = room.dropped()
    return lost["traces", "export_failed"], lost["logs", "export_failed"]


BAD = (
    {"OTEL_EXPORTER_OTLP_TIMEOUT": "10s"},
    {"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": ""},
    {"OTEL_EXPORTER_OTLP_COMPRESSION": "none"},
    {"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"},
    {"OTEL_RESOURCE_ATTRIBUTES": "garbage"},
    {"OTEL_EXPORTER_OTLP_HEADERS": "garbage"},
)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("variables", BAD, ids=lambda one: "=".join(*one.items()))
def test_no_variable_keeps_a_process_from_its_start_and_its_export(
    variables: dict[str, str],
    protocol: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    answers = Answers()
    with served(answers, protocol) as endpoint:
        lost, log = told_by(exporting(endpoint, protocol), spans=1)
    assert len(answers.requests) == 1
    assert not any(lost.values())
    is_bad = not variables.keys() & {"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"} and "none" not in variables.values()
    assert bool(log) is is_bad, "told, and in the log"
    noise = capfd.readouterr().err  # gRPC's own core writes there when its server stops
    assert not [value for value in variables.values() if value and value in noise]


@pytest.mark.parametrize(
    ("protocol", "variables"),
    [
        (
            "grpc",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:1", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/"},
        ),
        ("grpc", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1"}),
    ],
)
def test_an_exporter_that_cannot_be_made_is_told_and_everything_else_works(
    protocol: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    lost, log = told_by(exporting("http://file:4317", protocol), spans=10)
    assert lost == {("access_log", "queue_full"): 0, ("access_log", "write_failed"): 0}
    assert [line["message"].split(":")[0] for line in log] == ["traces are not exported"]


def test_a_collector_that_takes_nothing_costs_bounded_memory_with_all_signals_on() -> None:
    """Every field as long as it is ever kept, and a storm of transitions with all their causes."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        telemetry = exporting(f"http://127.0.0.1:{silent.getsockname()[1]}", "http/protobuf", logs=True)
        fd = os.open(os.devnull, os.O_WRONLY)
        room = TelemetryRoom(telemetry, Numbers(), Sources, environ=os.environ, log_fd=fd)
        room.start()
        tracemalloc.start()
        for number in range(8000):
            room.observer.finished(large(number))
            if number % 500 == 0:
                room.log.flush(time.monotonic() + 5.0)
        for number in range(1500):
            room.observer.transitioned(transition(number))
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        room.stop(0.2)
        os.close(fd)
    lost = room.dropped()
    assert min(lost["traces", "queue_full"], lost["logs", "queue_full"]) > 0, "the queues were full"
    assert held < 32 * 1024 * 1024


def large(number: int) -> FakeExchange:
    def text(size: int) -> bytes:
        return b"%d" % number + bytes(size)

    return FakeExchange(
        trace_id=b"%032x" % number,
        span_id=b"%016x" % number,
        target=text(4096),
        host=text(512),
        user_agent=text(512),
        request_id=text(256),
        detail=str(number) + "d" * 512,
        tracestate=text(512),
        attempts=[FakeAttempt(span_id=b"%016x" % number)],
    )


def transition(number: int) -> Transition:
    causes = tuple(Cause(b"%032x" % n, b"%016x" % n, b"%128d" % n) for n in range(number, number + 32))
    return replace(opening(number, at=1.0), causes=causes)
