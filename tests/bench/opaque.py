"""What bytes that are no requests cost: a tunnel through the sidecar beside HAProxy's TCP mode, in one run.

    python -m tests.bench.opaque [GIB] [ROUNDS]

The proxy has one core, client and server the other; rounds alternate between direct, HAProxy and the sidecar
(CONNECT, passed through). Told are the proxy's CPU seconds for each GiB, what it moved in a second, and what a round
trip of one byte takes beyond the direct one. Best of all rounds. A pair of blocking sockets is the load, so the
figures are of one connection.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.own_address import own_address
from tests.support.ports import free_ports

GIB = 1024**3
PIECE = bytes(256 * 1024)
TRIPS = 5000
PROXY_CORE, LOAD_CORE = 0, 1
_HAPROXY = """\
global
  nbthread 1
  maxconn 1000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
listen tunnel
  bind 127.0.0.1:{port}
  server there {address}:{to}
"""
_SIDECAR = """\
version: 1
listeners: {{outbound: {{address: "127.0.0.1:{port}", unmatched: pass_through}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
telemetry: {{access_log: {{format: "off"}}}}
upstreams: {{none: {{endpoints: ["127.0.0.1:9"]}}}}
routes: [{{name: none, listener: outbound, match: {{hosts: [none.test]}}, upstream: none}}]
"""


@dataclass
class Measured:
    """The best of all rounds."""

    gib_a_second: float = 0.0
    cpu_seconds: float = float("inf")
    """Of the proxy, for each GiB."""
    trip_us: float = float("inf")

    def better(self, other: Measured) -> Measured:
        return Measured(
            max(self.gib_a_second, other.gib_a_second),
            min(self.cpu_seconds, other.cpu_seconds),
            min(self.trip_us, other.trip_us),
        )


def serve(listening: socket.socket) -> None:
    """Echo single bytes; swallow everything that comes in larger pieces, and say so at its end."""
    while True:
        try:
            one, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_serve_one, args=(one,), daemon=True).start()


def _serve_one(one: socket.socket) -> None:
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with one:
        while data := one.recv(1024 * 1024):
            if len(data) == 1:
                one.sendall(data)
        one.sendall(b"end")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(port: int, head: bytes, size: int, pid: int | None, address: str = "127.0.0.1") -> Measured:
    """One round: round trips, then bytes. `head` is what opens the way, if anything has to."""
    with socket.create_connection((address, port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if head:
            sock.sendall(head)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += sock.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200 "), answer
        trips = []
        for _ in range(TRIPS):
            began = time.perf_counter()
            sock.sendall(b"x")
            assert sock.recv(16) == b"x"
            trips.append(time.perf_counter() - began)
        used, began = cpu_seconds(pid) if pid is not None else 0.0, time.perf_counter()
        for _ in range(size // len(PIECE)):
            sock.sendall(PIECE)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(16) == b"end"
        seconds = time.perf_counter() - began
        used = cpu_seconds(pid) - used if pid is not None else 0.0
    gib = size / GIB
    return Measured(gib / seconds, used / gib, statistics.median(trips) * 1e6)


@contextmanager
def started(*command: str, port: int) -> Iterator[int]:
    """A proxy on its own core, once it listens: its process."""
    process = subprocess.Popen(
        ["taskset", "-c", str(PROXY_CORE), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def main() -> int:
    size = int(float(sys.argv[1] if len(sys.argv) > 1 else 2) * GIB)
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    os.sched_setaffinity(0, {LOAD_CORE})
    address = own_address()
    with socket.create_server((address, 0)) as listening, tempfile.TemporaryDirectory() as folder:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        to, ports = listening.getsockname()[1], free_ports(4)
        haproxy, sidecar = Path(folder) / "haproxy.cfg", Path(folder) / "sidecar.yaml"
        haproxy.write_text(_HAPROXY.format(port=ports[0], address=address, to=to))
        sidecar.write_text(_SIDECAR.format(port=ports[1], probes=ports[2], admin=ports[3]))
        connect = f"CONNECT {address}:{to} HTTP/1.1\r\nHost: {address}:{to}\r\n\r\n".encode()
        run = (sys.executable, "-m", "sidecar", "run", str(sidecar))
        with (
            started("haproxy", "-db", "-f", str(haproxy), port=ports[0]) as one,
            started(*run, port=ports[1]) as other,
        ):
            best = {name: Measured() for name in ("direct", "haproxy", "sidecar")}
            for _ in range(rounds):
                for name, found in (
                    ("direct", measure(to, b"", size, None, address)),
                    ("haproxy", measure(ports[0], b"", size, one)),
                    ("sidecar", measure(ports[1], connect, size, other)),
                ):
                    best[name] = best[name].better(found)
    print(f"{'':10} {'GiB/s':>7} {'CPU s/GiB':>10} {'added µs a round trip':>22}")
    for name, found in best.items():
        added = found.trip_us - best["direct"].trip_us
        print(f"{name:10} {found.gib_a_second:7.2f} {found.cpu_seconds:10.3f} {added:22.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
