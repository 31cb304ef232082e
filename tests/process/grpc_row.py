"""Three gRPC services in a row, a sidecar process beside each.

client → sidecar → service 1 → sidecar → sidecar → service 2 → sidecar → sidecar → service 3, which is slow

The services are grpcio's and know nothing of sidecars: of what they were sent they pass on their trace context
alone, and to no call of theirs do they give a timeout.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tests.process.setting import Served
from tests.support.ports import free_ports
from tests.support.process import sidecar

HOPS = 3
METHOD = "/test.Tree/Work"
THREADS = 16

CONFIG = """\
version: 1
listeners:
  inbound: {{address: "127.0.0.1:{inbound}"}}
  outbound: {{address: "127.0.0.1:{outbound}"}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
upstreams:
  app: {{endpoints: ["127.0.0.1:{app}"], protocol: http2}}
  next: {{endpoints: ["127.0.0.1:{next}"], protocol: http2}}
routes:
- {{name: in, upstream: app}}
- name: out
  listener: outbound
  match: {{hosts: [next.test]}}
  upstream: next
  deadline: {{cancel_with_caller: all}}
"""

Context = Callable[[dict[str, str], int], list[tuple[str, str]]]
"""What of its metadata a service passes on; the second is a number for a span id of its own."""


def as_it_came(metadata: dict[str, str], _: int) -> list[tuple[str, str]]:
    """An app that copies `traceparent`."""
    return [("traceparent", metadata["traceparent"])]


def instrumented(metadata: dict[str, str], number: int) -> list[tuple[str, str]]:
    """An app that makes a span of its own, as OpenTelemetry's instrumentation does."""
    version, trace_id, _, flags = metadata["traceparent"].split("-")
    parent = f"{version}-{trace_id}-{number:016x}-{flags}"
    return [("traceparent", parent), ("tracestate", metadata["tracestate"])]


@dataclass
class Call:
    """One call as a service saw it."""

    left: float
    """Seconds by `grpc-timeout`, on arrival: grpcio makes its deadline of nothing else."""
    metadata: dict[str, str]


@dataclass
class Service:
    """One of the row: asks the next one, or is slow."""

    context: Context
    port: int = 0
    below: grpc.Channel | None = None
    calls: list[Call] = field(default_factory=list)
    at_work: int = 0
    """Calls whose code has not come to its end."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    let_go: threading.Event = field(default_factory=threading.Event)
    is_slow: bool = True
    """The last one works until its call has ended."""

    def work(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        left, metadata = context.time_remaining(), dict(context.invocation_metadata())
        with self.lock:
            self.at_work += 1
            self.calls.append(Call(left, metadata))
        try:
            return self._ask(request, context, metadata) if self.below else self._take_time(request, context)
        finally:
            with self.lock:
                self.at_work -= 1

    def _ask(self, request: bytes, context: grpc.ServicerContext, metadata: dict[str, str]) -> bytes:
        assert self.below is not None
        try:
            answer: bytes = self.below.unary_unary(METHOD)(
                request, metadata=self.context(metadata, len(self.calls))
            )
        except grpc.RpcError as error:
            said: Any = error
            context.abort(said.code(), said.details())
            raise
        return answer

    def _take_time(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        over = threading.Event()
        is_live = context.add_callback(over.set)
        while self.is_slow and is_live and not (over.is_set() or self.let_go.wait(0.002)):
            pass
        return request


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, service: Service) -> None:
        self._work = grpc.unary_unary_rpc_method_handler(service.work)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self._work if details.method == METHOD else None


@contextmanager
def _listening(service: Service) -> Iterator[None]:
    server = grpc.server(ThreadPoolExecutor(THREADS))
    server.add_generic_rpc_handlers((_Handler(service),))
    service.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield
    finally:
        service.let_go.set()
        server.stop(0).wait()


@dataclass
class Row:
    """The services and the sidecars, the first ones first, and a channel of the client's."""

    services: list[Service]
    sidecars: list[Served]
    client: grpc.Channel

    @property
    def at_work(self) -> int:
        return sum(service.at_work for service in self.services)

    @property
    def is_reached(self) -> bool:
        """Whether a call is at the last service."""
        return self.services[-1].at_work > 0

    def forget(self) -> None:
        for service in self.services:
            service.calls.clear()


@asynccontextmanager
async def running_row(folder: Path, context: Context) -> AsyncIterator[Row]:
    """Everything runs when it is entered."""
    services = [Service(context) for _ in range(HOPS)]
    inbound, outbound = free_ports(HOPS), free_ports(HOPS)
    with ExitStack() as stack:
        async with AsyncExitStack() as sidecars:
            for service in services:
                stack.enter_context(_listening(service))
            served = [
                await _sidecar(sidecars, folder, number, service.port, inbound, outbound)
                for number, service in enumerate(services)
            ]
            for service, port in zip(services[:-1], outbound, strict=False):
                service.below = _channel(port)
                stack.callback(service.below.close)
            client = _channel(inbound[0])
            stack.callback(client.close)
            yield Row(services, served, client)


def _channel(port: int) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.default_authority", "next.test")])


async def _sidecar(
    stack: AsyncExitStack, folder: Path, number: int, app: int, inbound: list[int], outbound: list[int]
) -> Served:
    probes, admin = free_ports(2)
    file = folder / f"sidecar-{number}.yaml"
    file.write_text(
        CONFIG.format(
            app=app, inbound=inbound[number], outbound=outbound[number], probes=probes, admin=admin,
            next=inbound[min(number + 1, HOPS - 1)],
        )
    )  # fmt: skip
    process = await stack.enter_async_context(sidecar(file, probes, file.with_suffix(".log")))
    return Served(process, inbound[number])
