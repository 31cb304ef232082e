"""The gRPC service of the demo's row, which payments asks: by grpcio, and as little aware of sidecars as the others.

`demo.Ledger/Enter` takes as many seconds as its request says. What it is told of time is the call's own deadline,
which grpcio makes of `grpc-timeout`. Messages are plain text, so that no code need be generated. Without grpcio there
is no such service, and the demo says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.demo.services import Served, user_id

try:
    import grpc
    import grpc.aio
except ImportError:
    grpc = None

NAME: Final = "ledger"
METHOD: Final = "/demo.Ledger/Enter"
IS_POSSIBLE: Final = grpc is not None
INSTALL: Final = (
    "grpcio is not installed, so no gRPC service is in the row: pip install 'sidecar-proxy[demo]'"
)


class Ledger:
    """The server. Its port is its own from the beginning, and answers from `start` on."""

    def __init__(self, log: Callable[[Served], None]) -> None:
        self.name = NAME
        self.served: list[Served] = []
        self.running = 0
        """Calls being served now."""
        self.is_alive = False
        self._log = log
        self._server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(self._enter)
        service, method = METHOD[1:].split("/")
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service, {method: handler})]
        )
        self.port: int = self._server.add_insecure_port("127.0.0.1:0")

    async def start(self) -> None:
        """Accept calls."""
        await self._server.start()
        self.is_alive = True

    async def stop(self) -> None:
        self.is_alive = False
        await self._server.stop(None)

    async def _enter(self, request: bytes, context: Any) -> bytes:
        """One call. At its deadline, or when its caller leaves, grpcio cancels this."""
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        left = context.time_remaining()
        this = Served(
            NAME,
            METHOD,
            None if left is None else int(left * 1000),
            (metadata.get("traceparent", "") + "--").split("-")[1],
            metadata.get("x-request-id", "-"),
            user_id(metadata),
            time.monotonic(),
            method="POST",
        )
        self.served.append(this)
        self.running += 1
        status = 499
        try:
            await asyncio.sleep(float(request))
            status = 200
        finally:
            self.running -= 1
            this.status, this.seconds = status, time.monotonic() - this.began
            self._log(this)
        return b"entered"


@dataclass(frozen=True)
class Entered:
    """A call to the ledger, as payments saw it."""

    code: str
    """A status of gRPC."""
    words: str
    """What its server, or a sidecar, said of an error."""
    seconds: float

    @property
    def http_status(self) -> int:
        """What payments tells its own caller."""
        return {"OK": 200, "DEADLINE_EXCEEDED": 504}.get(self.code, 502)


class LedgerClient:
    """How payments asks it: through its sidecar's outbound listener, without a deadline of its own."""

    def __init__(self, outbound: int) -> None:
        """`outbound`: the port of that listener."""
        options = [("grpc.default_authority", NAME), ("grpc.enable_http_proxy", 0)]
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{outbound}", options=options)
        self.asked: list[Entered] = []

    async def enter(self, seconds: float, metadata: Sequence[tuple[str, str]]) -> Entered:
        started = time.monotonic()
        try:
            await self._channel.unary_unary(METHOD)(b"%g" % seconds, metadata=metadata)
            code, words = "OK", ""
        except grpc.aio.AioRpcError as error:
            code, words = error.code().name, str(error.details())
        entered = Entered(code, words, time.monotonic() - started)
        self.asked.append(entered)
        return entered

    async def close(self) -> None:
        await self._channel.close()
