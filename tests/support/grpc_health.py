"""A server of `grpc.health.v1` by grpcio, with messages by protobuf's own library: nothing of ours is in it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

NAMES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_STATES = {name: number for number, name in enumerate(NAMES)}


def _messages() -> tuple[Any, Any]:
    """`HealthCheckRequest` and `HealthCheckResponse`, of grpc/doc/health-checking.md."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/health.proto", package="grpc.health.v1", syntax="proto3"
    )
    kind = descriptor_pb2.FieldDescriptorProto
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    response = file.message_type.add(name="HealthCheckResponse")
    states = response.enum_type.add(name="ServingStatus")
    for name, number in _STATES.items():
        states.value.add(name=name, number=number)
    response.field.add(
        name="status",
        number=1,
        type=kind.TYPE_ENUM,
        label=kind.LABEL_OPTIONAL,
        type_name=".grpc.health.v1.HealthCheckResponse.ServingStatus",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[no-untyped-call]
    found = (pool.FindMessageTypeByName(f"grpc.health.v1.{name}") for name in (request.name, response.name))
    first, second = (message_factory.GetMessageClass(one) for one in found)
    return first, second


REQUEST, RESPONSE = _messages()


@dataclass
class GrpcHealth:
    """What is answered, and what was asked."""

    port: int = 0
    states: dict[str, str] = field(default_factory=lambda: {"": "SERVING"})
    """By service; others are NOT_FOUND."""
    asked: list[str] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    """What each call had left when it came, in seconds."""

    def check(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request.service)
        self.timeouts.append(context.time_remaining())
        state = self.states.get(request.service)
        if state is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return RESPONSE(status=_STATES[state or "UNKNOWN"])


@contextmanager
def grpc_health(*, has_health: bool = True) -> Iterator[GrpcHealth]:
    """It listens on a free port of loopback. Without `has_health` every call is UNIMPLEMENTED."""
    health = GrpcHealth()
    server = grpc.server(ThreadPoolExecutor(4))
    if has_health:
        check = grpc.unary_unary_rpc_method_handler(
            health.check, REQUEST.FromString, RESPONSE.SerializeToString
        )
        handler = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})
        server.add_generic_rpc_handlers((handler,))
    health.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield health
    finally:
        server.stop(0).wait()
