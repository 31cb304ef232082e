"""Twenty thousand frames of each kind of flood at a running sidecar, and what another client feels of it.

    python -m tests.bench.http2_floods [--frames 20000]

For each flood: the sidecar's CPU time from its first byte to the end of its connection, how that ended (the code of
GOAWAY), and how long the requests of an innocent client took meanwhile, in milliseconds. Beside it is what the same
client saw without a flood just before: the machine's own share. `http2_cost --floods` has the codec's cost alone.
Exit code 1 where a connection did not end by GOAWAY.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sidecar.http2.errors import ErrorCode
from tests.bench.machine import cpu_seconds, tree
from tests.http2.test_floods import FLOODS
from tests.http2.wire import ACK, GOAWAY, PREFACE, SETTINGS, frame, frames_of, setting
from tests.process.setting import Served, served

QUIET_SECONDS = 0.5
END_SECONDS = 20.0


class Origin(BaseHTTPRequestHandler):
    """Answers at once, and keeps its connections."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # an answer in one packet: the second one would wait for an acknowledgement

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_POST = do_GET

    def log_message(self, *arguments: object) -> None: ...


class Origins(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that goes away is what is wanted here."""


@dataclass
class Innocent:
    """A client that asks all the time, in a thread of its own."""

    port: int
    took_ms: list[float] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=END_SECONDS)
        while not self.over.is_set():
            begin = time.monotonic()
            connection.request("GET", "/")
            connection.getresponse().read()
            self.took_ms.append((time.monotonic() - begin) * 1000)
            time.sleep(0.001)
        connection.close()

    def since(self, count: int) -> tuple[float, float]:
        """The median and the worst of all since so many."""
        took = sorted(self.took_ms[count:])
        return (took[len(took) // 2], took[-1]) if took else (0.0, 0.0)


def attack(port: int, data: bytes) -> str:
    """Send it all on a connection; how that ended."""
    with socket.create_connection(("127.0.0.1", port), timeout=END_SECONDS) as attacker:
        came = bytearray()

        def read() -> None:
            with contextlib.suppress(OSError):
                while piece := attacker.recv(65536):
                    came.extend(piece)

        reader = threading.Thread(target=read)
        reader.start()
        with contextlib.suppress(OSError):
            attacker.sendall(data)
        reader.join(END_SECONDS)
        if reader.is_alive():
            attacker.shutdown(socket.SHUT_RDWR)
            return "not ended"
    ends = [one for one in frames_of(bytes(came)) if one.kind == GOAWAY]
    return ErrorCode(int.from_bytes(ends[-1].payload[4:8], "big")).name if ends else "closed"


def measure(sidecar: Served, frames: int) -> bool:
    """Print the table. Returns whether each flood's connection ended by GOAWAY."""
    innocent = Innocent(sidecar.port)
    thread = threading.Thread(target=innocent.ask)
    thread.start()
    is_good = True
    pids = tree(sidecar.process.process.pid)
    print(
        "| flood | CPU ms | ended by | innocent ms, median / worst | before |\n| --- | --- | --- | --- | --- |"
    )
    try:
        for name, (_, _, first, each) in FLOODS.items():
            data = PREFACE + setting() + frame(SETTINGS, ACK, 0) + first
            data += b"".join(each(number) for number in range(frames))
            count = len(innocent.took_ms)
            time.sleep(QUIET_SECONDS)
            before, count = innocent.since(count), len(innocent.took_ms)
            spent = cpu_seconds(pids)
            end = attack(sidecar.port, data)
            spent = (cpu_seconds(pids) - spent) * 1000
            is_good = is_good and end in ErrorCode.__members__
            median, worst = innocent.since(count)
            figures = f"{median:.1f} / {worst:.1f} | {before[0]:.1f} / {before[1]:.1f}"
            print(f"| {name} | {spent:.0f} | {end} | {figures} |", flush=True)
    finally:
        innocent.over.set()
        thread.join()
    return is_good


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=20_000)
    options = parser.parse_args()
    origin = Origins(("127.0.0.1", 0), Origin)
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        async with served(Path(name), origin.server_port) as sidecar:
            is_good = await asyncio.to_thread(measure, sidecar, options.frames)
    origin.shutdown()
    if not is_good:
        sys.exit(1)


if __name__ == "__main__":
    asyncio.run(main())
