"""A gRPC service by grpcio, without generated code: messages are bytes. It tells what it was sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

THREADS = 64
NAME = "test.Service"


@dataclass
class GrpcService:
    """What has been called, and what is to be answered."""

    port: int = 0
    calls: list[str] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    """Calls of which the server knows that they are over."""
    let_go: threading.Event = field(default_factory=threading.Event)
    """Slow calls wait for it, or for their end."""
    failure: grpc.StatusCode | None = None
    """Given by `Fail`."""
    failures: int = 0
    """So many calls of `Begin` are UNAVAILABLE, after their head."""
    messages: list[bytes] = field(default_factory=list)
    """What `Begin` and `Slow` were sent."""

    def begin(self, name: str, context: grpc.ServicerContext) -> None:
        self.calls.append(name)
        self.metadata.append(dict(context.invocation_metadata()))
        if not context.add_callback(lambda: self.ended.append(name)):
            self.ended.append(name)  # cancelled before a thread had time for it

    def echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.begin("Echo", context)
        context.set_trailing_metadata((("x-trailing-bin", b"\x00\xff\x01"), ("x-trailing", "text")))
        return request

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.begin("Fail", context)
        context.abort(self.failure or grpc.StatusCode.UNAVAILABLE, "100 % wrong: é")
        raise AssertionError

    def begun(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """The head at once; then the message, or the failure."""
        self.begin("Begin", context)
        self.messages.append(request)
        context.send_initial_metadata((("x-initial", "yes"),))
        if self.failures:
            self.failures -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "after its head")
        return request

    def slow(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.begin("Slow", context)
        self.messages.append(request)
        over = threading.Event()
        if not context.add_callback(over.set):
            return request
        while not (over.is_set() or self.let_go.wait(0.02)):
            pass
        return request

    def count_down(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.begin("CountDown", context)
        size, count = (int(part) for part in request.split())
        for _ in range(count):
            yield bytes(size)

    def total(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self.begin("Total", context)
        return str(sum(map(len, requests))).encode()

    def chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self.begin("Chat", context)
        yield from requests


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, service: GrpcService) -> None:
        self._handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(service.echo),
            "Fail": grpc.unary_unary_rpc_method_handler(service.fail),
            "Begin": grpc.unary_unary_rpc_method_handler(service.begun),
            "Slow": grpc.unary_unary_rpc_method_handler(service.slow),
            "CountDown": grpc.unary_stream_rpc_method_handler(service.count_down),
            "Total": grpc.stream_unary_rpc_method_handler(service.total),
            "Chat": grpc.stream_stream_rpc_method_handler(service.chat),
        }

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        _, name, method = details.method.split("/")
        return self._handlers.get(method) if name == NAME else None


@contextmanager
def grpc_service(
    tls: grpc.ServerCredentials | None = None, address: str = "127.0.0.1:0"
) -> Iterator[GrpcService]:
    """It listens, on a free port of loopback unless `address` says otherwise; by TLS with credentials."""
    service = GrpcService()
    server = grpc.server(ThreadPoolExecutor(THREADS))
    server.add_generic_rpc_handlers((_Handler(service),))
    if tls is None:
        service.port = server.add_insecure_port(address)
    else:
        service.port = server.add_secure_port(address, tls)
    server.start()
    try:
        yield service
    finally:
        service.let_go.set()
        server.stop(0).wait()
