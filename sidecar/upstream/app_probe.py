"""The probes of a pod's own containers, made by the sidecar in the kubelet's place.

Where connections are intercepted the kubelet's would arrive here and not at the app: a tcpSocket probe would succeed
with no app there, and an open breaker would have the app restarted. So the injection writes them anew, to ask the
sidecar, and this asks the app as the kubelet would have: at the pod's own address, without breaker, limit or rule of
TLS.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any, Final

from sidecar.core import grpc_health
from sidecar.core.dataclass import dataclass

ENVIRONMENT: Final = "SIDECAR_APP_PROBES"
"""The variable that has them: JSON, by `container/kind` (`app/liveness`), in Kubernetes' own words."""
KINDS: Final = frozenset({"liveness", "readiness", "startup"})
MAX_HEAD_BYTES: Final = 64 * 1024
_HEALTH: Final = grpc_health.PATH.removeprefix("/")
"""As messages name it."""
_MAX_SERVICE_BYTES: Final = 127


class NotWell(Exception):
    """The app does not pass; the text says why."""


@dataclass(frozen=True, slots=True)
class AppProbe:
    """One probe. Exactly one of `path`, `service` and neither is meant: httpGet, grpc, tcpSocket."""

    port: int
    host: str | None = None
    """None: the pod's own address."""
    path: str | None = None
    is_https: bool = False
    """As the kubelet, without a look at the certificate."""
    headers: tuple[tuple[str, str], ...] = ()
    service: str | None = None
    seconds: float = 1.0


def read(text: str) -> dict[str, AppProbe]:
    """What the environment says.

    Raises:
        ValueError: it is not what the injection writes; the text says where.
    """
    try:
        written = json.loads(text) if text else {}
    except ValueError as error:
        raise ValueError(f"{ENVIRONMENT} is no JSON: {error}") from None
    if not isinstance(written, dict):
        raise ValueError(f"{ENVIRONMENT} is no JSON object")
    return {name: _probe(name, one) for name, one in written.items()}


def _probe(name: str, written: Any) -> AppProbe:
    container, _, kind = name.rpartition("/")
    if not container or kind not in KINDS or not isinstance(written, dict):
        raise ValueError(
            f"{ENVIRONMENT}: {name!r} is no probe: name it CONTAINER/KIND, of {', '.join(sorted(KINDS))}"
        )
    try:
        return _read_probe(written)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{ENVIRONMENT}: {name}: {error!r} in a probe; it needs httpGet, tcpSocket or grpc"
        ) from None


def _read_probe(written: Mapping[str, Any]) -> AppProbe:
    seconds = float(written.get("timeoutSeconds") or 1)
    if "httpGet" in written:
        one = written["httpGet"]
        headers = tuple((str(field["name"]), str(field["value"])) for field in one.get("httpHeaders") or ())
        path = str(one.get("path") or "/")
        path = path if path.startswith("/") else f"/{path}"
        for part in (path, *(text for pair in headers for text in pair)):
            if not part.isprintable():
                raise ValueError("what cannot be printed")
        is_https = str(one.get("scheme") or "HTTP").upper() == "HTTPS"
        return AppProbe(_port(one), one.get("host") or None, path, is_https, headers, None, seconds)
    if "grpc" in written:
        one = written["grpc"]
        service = str(one.get("service") or "")
        if len(service.encode()) > _MAX_SERVICE_BYTES:
            raise ValueError(f"a service of more than {_MAX_SERVICE_BYTES} bytes")
        return AppProbe(_port(one), service=service, seconds=seconds)
    one = written["tcpSocket"]
    return AppProbe(_port(one), one.get("host") or None, seconds=seconds)


def _port(one: Mapping[str, Any]) -> int:
    port = one["port"]
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise ValueError(f"port {port!r}")
    return port


async def ask(probe: AppProbe, address: str) -> None:
    """Ask the app. `address`: the pod's own.

    Raises:
        NotWell: it does not pass.
    """
    host = probe.host or address
    try:
        async with asyncio.timeout(probe.seconds):
            context = _unverified() if probe.is_https else None
            reader, writer = await asyncio.open_connection(
                host, probe.port, ssl=context, limit=MAX_HEAD_BYTES
            )
            try:
                if probe.path is not None:
                    await _ask_http(probe, probe.path, host, reader, writer)
                elif probe.service is not None:
                    await _ask_grpc(probe.service, host, probe.port, reader, writer)
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise NotWell(f"no answer of {host}:{probe.port} within {probe.seconds:g} s") from None
    except (OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise NotWell(f"{host}:{probe.port}: {error}") from None


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _ask_http(
    probe: AppProbe, path: str, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Any status from 200 to 399 is fine, as the kubelet has it."""
    fields = {"Host": f"[{host}]:{probe.port}" if ":" in host else f"{host}:{probe.port}"}
    fields |= {"User-Agent": "kube-probe/sidecar", "Accept": "*/*", "Connection": "close"}
    given = {name.title() for name, _ in probe.headers}
    lines = [f"{name}: {value}\r\n" for name, value in fields.items() if name not in given]
    lines += [f"{name}: {value}\r\n" for name, value in probe.headers]
    writer.write(f"GET {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1", "replace"))
    line = await reader.readuntil(b"\n")
    parts = line.split(b" ", 2)
    if not parts[0].startswith(b"HTTP/1.") or len(parts) < 2 or not parts[1].isdigit():
        raise NotWell(f"{host}:{probe.port} does not speak HTTP/1.1")
    if not 200 <= int(parts[1]) < 400:
        raise NotWell(f"GET {path}: status {int(parts[1])}")


async def _ask_grpc(
    service: str, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """The health checking protocol of gRPC (`core/grpc_health.py`)."""
    # 1 MiB, which a process need not have that asks nobody so and serves HTTP/1.1 alone.
    from sidecar.http2.codec import Role
    from sidecar.http2.connection import Connection
    from sidecar.http2.events import DataReceived, ResponseReceived, StreamReset, TrailersReceived

    codec = Connection(Role.CLIENT)
    pseudo = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", grpc_health.PATH.encode()),
        (b":authority", f"{host}:{port}".encode()),
    )
    pairs = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
    stream = codec.open_stream(pseudo, (), pairs=pairs)
    codec.send_data(stream, grpc_health.question(service))
    codec.end(stream)
    answer, status = b"", b""
    while not status:
        writer.write(codec.take())
        data = await reader.read(MAX_HEAD_BYTES)
        if not data:
            raise NotWell(f"{host}:{port} closed before it answered")
        for event in codec.receive(data, 0.0):
            if isinstance(event, ResponseReceived):
                status = event.lookup.get(b"grpc-status", b"")
            elif isinstance(event, DataReceived):
                answer += event.data
            elif isinstance(event, TrailersReceived):
                status = {key: value for key, _, value in event.fields}.get(b"grpc-status", b"?")
            elif isinstance(event, StreamReset):
                raise NotWell(f"{host}:{port} has reset the call")
    if status != b"0":
        raise NotWell(f"{_HEALTH}: grpc-status {status.decode('latin-1')}")
    try:
        is_serving = grpc_health.answer(answer) == grpc_health.SERVING
    except grpc_health.NoHealth as error:
        raise NotWell(f"{_HEALTH}: {error}") from None
    if not is_serving:
        raise NotWell(f"{_HEALTH}: not SERVING")
