"""What one exchange costs in Python over HTTP/2: the data path driven by hand, without sockets and a loop's turns.

    python -m tests.bench.http2_path_cost [--profile NAME]

Microseconds of this process's CPU time for each exchange, the best of many pieces, on one connection to each side.
A client and an origin of nghttp2 (`ngh2`) talk through the sidecar once, and what each of them wrote is recorded;
each round plays that to fresh connections. "8 at once": each read brings eight of them, as a connection of many
streams does.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import os
import pstats
import time
from dataclasses import dataclass, field

import ngh2
import uvloop

from sidecar.config.load import load_text
from sidecar.downstream.http2 import Http2ClientConnection
from sidecar.runtime.worker import Worker
from sidecar.transport.link import Link
from sidecar.upstream.http2 import Http2UpstreamConnection
from tests.bench.http2_cost import ANSWER, GET, GRPC, GRPC_ANSWER, GRPC_TRAILERS, MESSAGE
from tests.bench.path_cost import CONFIG, Sink
from tests.support.proxy import HEADER

ROUNDS, BATCHES = 25, 400
PIECE = 10
"""Batches that are measured at once: little enough to find some that nothing else on the machine disturbs."""
GREETINGS = 2
"""Steps in which both sides say their settings."""
CONFIG_HTTP2 = CONFIG.replace('["127.0.0.1:9"]', '["127.0.0.1:9"], protocol: http2').replace(
    "path: {prefix: /api}", "path: {prefix: /}"
)
Pairs = tuple[tuple[bytes, bytes], ...]


@dataclass
class Case:
    name: str
    request: Pairs
    message: bytes
    answer: Pairs
    body: bytes
    trailers: Pairs
    at_once: int = 1
    requests: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)


def cases() -> list[Case]:
    found = []
    for at_once in (1, 8):
        more = f", {at_once} at once" if at_once > 1 else ""
        found.append(Case("GET" + more, GET, b"", ANSWER, b"s" * 256, (), at_once))
        found.append(Case("gRPC" + more, GRPC, MESSAGE, GRPC_ANSWER, MESSAGE, GRPC_TRAILERS, at_once))
    return found


class Kept(Sink):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def take(self) -> bytes:
        written = b"".join(self.written)
        self.written.clear()
        return written


class Between:
    """The sidecar's two connections of a fresh pair."""

    def __init__(self, worker: Worker) -> None:
        self.to_client, self.to_origin = Kept(), Kept()
        self._turns = worker.service.turns
        listener = worker.listeners["inbound"]
        self.client = Http2ClientConnection(listener, Link(self.to_client))  # type: ignore[arg-type]
        pool = worker.assembly.clusters["app"].pools[0]
        for old in list(pool.idle):
            old.abort()
        self.origin = Http2UpstreamConnection(pool)
        self.origin.connection_made(self.to_origin)  # type: ignore[arg-type]
        pool.add(self.origin)
        pool.more_from = float("inf")
        self._has_begun = False

    def from_client(self, data: bytes) -> None:
        if self._has_begun:
            self.client.data_received(data)
        else:
            self._has_begun = True
            self.client.start(data)
        self._write()

    def from_origin(self, data: bytes) -> None:
        self.origin.data_received(data)
        self._write()

    def _write(self) -> None:
        """What the loop does at the end of its turn."""
        if self.origin._is_write_due:
            self.origin._write_due()
        if self.client._is_write_due:
            self.client._write_due()
        self._turns._begin_turn()

    def close(self) -> None:
        self.client.connection_lost(None)
        self.origin.connection_lost(None)


def record(worker: Worker, case: Case) -> None:
    """What a client and an origin of nghttp2 write for each batch."""
    config = ngh2.Configuration(peer_max_concurrent_streams=1000)
    client, origin = ngh2.Connection(ngh2.Role.CLIENT, config), ngh2.Connection(ngh2.Role.SERVER, config)
    between = Between(worker)
    client.initiate_connection()
    origin.initiate_connection()
    for number in range(BATCHES + GREETINGS):
        if number >= GREETINGS:
            for _ in range(case.at_once):
                stream_id = client.send_request(list(case.request), end_stream=not case.message)
                if case.message:
                    client.send_data(stream_id, case.message, end_stream=True)
        case.requests.append(client.data_to_send())
        between.from_client(case.requests[-1])
        origin.receive_data(between.to_origin.take())
        for event in origin.events():
            if isinstance(event, ngh2.RequestReceived):
                _answer(origin, event.stream_id, case)
        case.answers.append(origin.data_to_send())
        between.from_origin(case.answers[-1])
        client.receive_data(between.to_client.take())
        ended = [event for event in client.events() if isinstance(event, ngh2.StreamClosed)]
        assert number < GREETINGS or len(ended) == case.at_once, f"{case.name}: batch {number} did not end"
    between.close()


def _answer(origin: ngh2.Connection, stream_id: int, case: Case) -> None:
    origin.send_response(stream_id, list(case.answer))
    origin.send_data(stream_id, case.body, end_stream=not case.trailers)
    if case.trailers:
        origin.send_trailers(stream_id, list(case.trailers))


def play(worker: Worker, case: Case) -> float:
    """Microseconds for each exchange, in the best piece."""
    between = Between(worker)
    pairs = list(zip(case.requests, case.answers, strict=True))
    for request, answer in pairs[:GREETINGS]:
        between.from_client(request)
        between.from_origin(answer)
    best = float("inf")
    for start in range(GREETINGS, len(pairs), PIECE):
        before = time.process_time_ns()
        for request, answer in pairs[start : start + PIECE]:
            between.from_client(request)
            between.from_origin(answer)
        best = min(best, time.process_time_ns() - before)
    between.close()
    return best / PIECE / case.at_once / 1000


async def measure(name: str, log: int) -> None:
    """The loop never turns in here: it would take the time of a round for its own lag, and refuse requests."""
    worker = Worker(load_text(HEADER + CONFIG_HTTP2).snapshot, {}, log_fd=log, clock=time.monotonic)
    await worker.start()
    for case in cases():
        if name not in ("", case.name):
            continue
        record(worker, case)
        best = float("inf")
        for _ in range(ROUNDS):
            best = min(best, play(worker, case))
            gc.collect()
        print(f"{case.name:<20}{best:8.2f} µs")
        if name:
            profiler = cProfile.Profile(time.process_time)
            for _ in range(5):
                profiler.runcall(play, worker, case)
            pstats.Stats(profiler).sort_stats("tottime").print_stats(60)
    worker.service.exchanges.clear()
    await worker.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", metavar="NAME", default="", help="of one case: where its time goes")
    options = parser.parse_args()
    gc.disable()
    log = os.open(os.devnull, os.O_WRONLY)
    try:
        uvloop.run(measure(options.profile, log))
    finally:
        os.close(log)


if __name__ == "__main__":
    main()
