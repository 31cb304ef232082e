"""The load: what is asked for; wrk for as fast as possible, h2load for a fixed rate; their results."""

import json
import math
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench.upstream import LARGE_BYTES, SMALL_BYTES

CONNECTIONS = 32
HOST = "orders.test"
RATE_PER_SECOND = 200
POST_BYTES = 16 * 1024
GRACE_SECONDS = 30.0
GRPC_PATH = "/bench.Service/Call"
GRPC_MESSAGE = b"\x00\x00\x00\x00\x20" + b"m" * 32
"""Not compressed, 32 bytes long: both the request and the answer (PROTOCOL-HTTP2.md)."""
GRPC_FIELDS = ("content-type: application/grpc", "te: trailers", "grpc-timeout: 15S")
SCRIPT = Path(__file__).with_name("wrk.lua")


class LoadError(Exception):
    """A round that had an error, or ended without a result: its numbers mean nothing."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of request. `paced` is sent at a fixed low rate for its latency, the others flat out; `traced` ones
    come with a trace context and a timeout, as from a caller who has a proxy, too."""

    name: str
    title: str
    path: str
    answer_bytes: int = SMALL_BYTES
    post_bytes: int = 0
    paced: bool = False
    traced: bool = False
    streams: int = 0
    """Over HTTP/2, at once on each connection; 0: over HTTP/1.1."""
    connections: int = CONNECTIONS
    is_tls: bool = False
    is_new: bool = False
    """A connection for each request."""
    is_grpc: bool = False
    """A unary call of gRPC: a message each way, and the answer's status in trailers."""


SCENARIOS = (
    Scenario("get", "GET 256 B", "/api/small"),
    Scenario("traced", "GET 256 B, traced, with a timeout", "/api/small", traced=True),
    Scenario("large", "GET 64 KiB", "/api/large", answer_bytes=LARGE_BYTES),
    Scenario("post", "POST 16 KiB", "/api/post", post_bytes=POST_BYTES),
    Scenario("latency", f"GET 256 B at {RATE_PER_SECOND} rps", "/api/small", paced=True),
)
HTTP2_SCENARIOS = (
    Scenario("c4m8", "HTTP/2 GET 256 B, 4 × 8 streams", "/api/small", connections=4, streams=8),
    Scenario("c32m1", "HTTP/2 GET 256 B, 32 × 1 stream", "/api/small", connections=32, streams=1),
    Scenario(
        "grpc4m8", "gRPC unary, 4 × 8", GRPC_PATH, len(GRPC_MESSAGE), connections=4, streams=8, is_grpc=True
    ),
    Scenario(
        "grpc32m1",
        "gRPC unary, 32 × 1",
        GRPC_PATH,
        len(GRPC_MESSAGE),
        connections=32,
        streams=1,
        is_grpc=True,
    ),
)


TLS_SCENARIOS = (
    Scenario("tls", "TLS, GET 256 B on kept connections", "/api/small", is_tls=True),
    Scenario("tls-large", "TLS, GET 64 KiB on kept connections", "/api/large", LARGE_BYTES, is_tls=True),
    Scenario("handshake", "TLS, GET 256 B, a handshake for each", "/api/small", is_tls=True, is_new=True),
)


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of a load generator completed. The percentiles are there for paced runs alone."""

    requests: int
    seconds: float
    p50_us: float = 0.0
    p99_us: float = 0.0


def run_load(scenario: Scenario, *, port: int, core: int, seconds: float) -> Load:
    """Send the scenario's requests to a port of loopback.

    Raises:
        LoadError: any error, any answer but 200, or answers too short.
    """
    send = multiplexed if scenario.streams else paced if scenario.paced else flat_out
    return send(scenario, port=port, core=core, seconds=seconds)


def flat_out(scenario: Scenario, *, port: int, core: int, seconds: float) -> Load:
    """wrk, one thread, keep-alive connections, each with the next request as soon as the last is answered."""
    url = f"{'https' if scenario.is_tls else 'http'}://127.0.0.1:{port}{scenario.path}"
    command = [
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{seconds:.0f}s",
        "--timeout",
        "10s",
        "-H",
        f"Host: {HOST}",
    ]
    if scenario.is_new:
        command += ["-H", "Connection: close"]
    kind = "traced" if scenario.traced else "plain"
    command += ["-s", str(SCRIPT), url, "--", str(scenario.post_bytes), kind]
    lines = _output(core, command, seconds).splitlines()
    result = next((json.loads(line[6:]) for line in lines if line.startswith("BENCH ")), None)
    if result is None:
        raise LoadError("wrk gave no summary")
    failed = {name: count for name, count in result["errors"].items() if count}
    if failed:
        raise LoadError(f"wrk counted {failed} in {result['requests']} requests")
    if not result["requests"] or result["bytes"] < result["requests"] * scenario.answer_bytes:
        raise LoadError(f"answers are missing or too short: {result}")
    return Load(requests=result["requests"], seconds=result["microseconds"] / 1e6)


def multiplexed(scenario: Scenario, *, port: int, core: int, seconds: float) -> Load:
    """h2load over HTTP/2 by prior knowledge, one thread, each stream with the next request at once."""
    command = ["h2load", "-t1", f"-c{scenario.connections}", f"-m{scenario.streams}", f"-D{seconds:.0f}"]
    if scenario.is_grpc:
        command += [part for field in GRPC_FIELDS for part in ("-H", field)]
    command += [f"--connect-to=127.0.0.1:{port}"]
    with tempfile.NamedTemporaryFile(prefix="sidecar-bench-") as body:
        if scenario.is_grpc:
            body.write(GRPC_MESSAGE)
            body.flush()
            command += ["-d", body.name]
        text = _output(core, [*command, f"http://{HOST}{scenario.path}"], seconds)
    counts = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    size = re.search(r"traffic: .*\((\d+)\) data", text)
    took = re.search(r"finished in ([0-9.]+)(us|ms|s|m|h),", text)
    if not (counts and codes and size and took):
        raise LoadError("h2load gave no summary")
    good, *bad = (int(count) for count in (*counts.groups(), *codes.groups()[1:]))
    if any(bad):
        raise LoadError(f"h2load had errors: {counts[0]}; {codes[0]}")
    if not good or int(size[1]) < good * scenario.answer_bytes:
        raise LoadError(f"answers are missing or too short: {counts[0]}; {size[0]}")
    return Load(good, float(took[1]) * _SECONDS[took[2]])


_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def paced(scenario: Scenario, *, port: int, core: int, seconds: float) -> Load:
    """h2load, one HTTP/1.1 connection, a request each 5 ms; every answer's time is in its log."""
    with tempfile.NamedTemporaryFile("r", prefix="sidecar-bench-") as log:
        command = ["h2load", "--h1", "-c1", "-t1", f"--rps={RATE_PER_SECOND}", f"-D{seconds:.0f}"]
        command += [
            f"--log-file={log.name}",
            f"--connect-to=127.0.0.1:{port}",
            f"http://{HOST}{scenario.path}",
        ]
        _output(core, command, seconds)
        rows = [line.split() for line in log]
    if any(row[1] != "200" for row in rows):
        raise LoadError(f"h2load had {sum(row[1] != '200' for row in rows)} answers that were not 200")
    if len(rows) < 0.9 * RATE_PER_SECOND * seconds:
        raise LoadError(f"h2load completed {len(rows)} requests, too few for the rate")
    times_us = sorted(int(row[2]) for row in rows)
    return Load(len(rows), seconds, p50_us=quantile(times_us, 0.5), p99_us=quantile(times_us, 0.99))


def quantile(ordered: list[int], share: float) -> float:
    """Nearest rank: the smallest value that at least this share of the values does not exceed."""
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)])


def _output(core: int, command: list[str], seconds: float) -> str:
    """Standard output of a load generator pinned to a core."""
    try:
        done = subprocess.run(
            ["taskset", "-c", str(core), *command],
            capture_output=True,
            text=True,
            timeout=seconds + GRACE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise LoadError(f"{command[0]} did not end") from None
    if done.returncode:
        raise LoadError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout
