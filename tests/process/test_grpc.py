"""grpcio's client and server, unmodified, on both sides of one sidecar and of two."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.process.setting import Served, served, written
from tests.support.grpc_service import NAME, GrpcService, grpc_service
from tests.support.process import sidecar

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

PATIENCE_SECONDS = 100.0
"""Against hanging."""
H2 = "protocol: http2"
SERVERS_WORDS = "Deadline Exceeded"
"""Of grpcio's server at its deadline; the sidecar's own begin with `timeout:`."""
TRIES = 20
"""A busy machine may keep the server from saying it in time, or its client from hearing it: then another call shows
it."""

RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


@pytest.fixture
def service() -> Iterator[GrpcService]:
    with grpc_service() as service:
        yield service


class Calls:
    """A client's channel, and what metadata its calls have; each runs in a thread, as grpcio's own do."""

    def __init__(
        self, port: int, policy: Mapping[str, Any] | None = None, metadata: tuple[tuple[str, str], ...] = ()
    ) -> None:
        options = [("grpc.service_config", json.dumps(policy))] if policy else None
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        self.metadata = metadata

    async def unary(self, method: str, request: bytes = b"", **options: Any) -> Any:
        """The response, with its call. Raises grpc.RpcError."""
        call = self.channel.unary_unary(f"/{NAME}/{method}").with_call
        options = {"timeout": PATIENCE_SECONDS, "metadata": self.metadata, **options}
        return await asyncio.to_thread(lambda: call(request, **options))

    async def failure(self, method: str, request: bytes = b"", **options: Any) -> Any:
        """The error that it ends with."""
        with pytest.raises(grpc.RpcError) as raised:
            await self.unary(method, request, **options)
        return raised.value

    async def refusal(self, method: str) -> str:
        """The words of the error that it ends with, if it does."""
        try:
            await self.unary(method)
        except grpc.RpcError as error:
            return str(error.details())  # type: ignore[attr-defined]
        return ""


@asynccontextmanager
async def sidecars(folder: Path, port: int, count: int, route: str = "") -> AsyncIterator[list[Served]]:
    """In a row; the first one is the last in the list's order of calls' way."""
    async with AsyncExitStack() as stack:
        row: list[Served] = []
        for number in range(count):
            sub = folder / str(number)
            sub.mkdir()
            row.insert(0, await stack.enter_async_context(served(sub, port, route=route, upstream=H2)))
            port = row[0].port
        yield row


OPEN = "open_for: 60s"
POLICIES = {
    "opens": f"circuit_breaker: {{consecutive_failures: 5, {OPEN}}}",
    "own-fault": f"circuit_breaker: {{consecutive_failures: 2, {OPEN}}}",
    "named": f"circuit_breaker: {{consecutive_failures: 2, {OPEN}, failure_on: ['grpc:NOT_FOUND']}}",
    "counted": f"circuit_breaker: {{consecutive_failures: 2, {OPEN}}}",
    "away": "",
}
"""By the route that has it: each is for the calls of one test, which name it in their metadata."""


@dataclass
class Guarded:
    """A sidecar with a route for each policy, and a service of its own behind each."""

    sidecar: Served
    services: dict[str, GrpcService]

    @contextmanager
    def calls(self, route: str) -> Iterator[Calls]:
        client = Calls(self.sidecar.port, metadata=(("x-route", route),))
        try:
            yield client
        finally:
            client.channel.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    async with AsyncExitStack() as stack:
        services = {name: stack.enter_context(grpc_service()) for name in POLICIES if name != "away"}
        with grpc_service() as gone:
            ports = {"away": gone.port, **{name: one.port for name, one in services.items()}}
        file, inbound, probes = written(
            folder, gone.port, route="match: {path: {prefix: /nowhere}}", upstream=H2
        )
        upstreams = "".join(
            f'{name}: {{endpoints: ["127.0.0.1:{port}"], {H2}}}, ' for name, port in ports.items()
        )
        text = file.read_text().replace("upstreams: {", "upstreams: {" + upstreams, 1)
        routes = "".join(
            f"{{name: {name}, upstream: {name}, match: {{headers: {{x-route: {name}}}}}"
            f"{f', {policy}' if policy else ''}}}, "
            for name, policy in POLICIES.items()
        )
        file.write_text(text.replace("routes: [", f"routes: [{routes}", 1))
        process = await stack.enter_async_context(sidecar(file, probes, folder / "sidecar.log"))
        yield Guarded(Served(process, inbound), services)


@dataclass
class Row:
    """Two sidecars before a service, for tests that leave no call behind and have no need of a policy."""

    service: GrpcService
    ports: list[int]
    """By how many sidecars stand between; that of the service first."""

    @contextmanager
    def calls(self, count: int = 1, policy: Mapping[str, Any] | None = None) -> Iterator[Calls]:
        client = Calls(self.ports[count], policy)
        try:
            yield client
        finally:
            client.channel.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole_row(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Row]:
    folder = tmp_path_factory.mktemp("row")
    with grpc_service() as service:
        async with sidecars(folder, service.port, 2) as served:
            yield Row(service, [service.port, *(one.port for one in reversed(served))])


@pytest.fixture
def row(whole_row: Row) -> Row:
    """With a service that has seen nothing."""
    service = whole_row.service
    service.failure = None
    for seen in (service.calls, service.metadata, service.ended, service.messages):
        seen.clear()
    return whole_row


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what happens in the server's threads."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110  # the server's threads set no event of this loop
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("count", [1, 2])
async def test_unary_calls_and_their_metadata(row: Row, count: int) -> None:
    with row.calls(count) as client:
        metadata = (("x-binary-bin", b"\x00\x01\xfe\xff"), ("x-text", "a b"))
        response, call = await client.unary("Echo", b"hello", metadata=metadata)
    assert response == b"hello"
    trailing: dict[str, Any] = dict(call.trailing_metadata())
    assert (trailing["x-trailing-bin"], trailing["x-trailing"]) == (b"\x00\xff\x01", "text")
    [seen] = row.service.metadata
    assert (seen["x-binary-bin"], seen["x-text"]) == (b"\x00\x01\xfe\xff", "a b")


@pytest.mark.parametrize("count", [1, 2])
async def test_streams_of_all_three_kinds(row: Row, count: int) -> None:
    with row.calls(count) as client:

        def server_streams() -> int:
            down = client.channel.unary_stream(f"/{NAME}/CountDown")(b"1000 2000", timeout=PATIENCE_SECONDS)
            return sum(map(len, down))

        def client_streams() -> bytes:
            pieces = (bytes(1000) for _ in range(2000))
            answer: bytes = client.channel.stream_unary(f"/{NAME}/Total")(pieces, timeout=PATIENCE_SECONDS)
            return answer

        def both_stream() -> list[bytes]:
            words = [b"%d" % number for number in range(500)]
            return list(client.channel.stream_stream(f"/{NAME}/Chat")(iter(words), timeout=PATIENCE_SECONDS))

        assert await asyncio.to_thread(server_streams) == 2_000_000
        assert await asyncio.to_thread(client_streams) == b"2000000"
        assert await asyncio.to_thread(both_stream) == [b"%d" % number for number in range(500)]


async def test_a_conversation_goes_back_and_forth(row: Row) -> None:
    """Each word is sent when the one before has come back: nothing is held until more comes."""
    with row.calls(2) as client:

        def talk() -> list[bytes]:
            came: list[bytes] = []
            turn = threading.Semaphore(1)

            def words() -> Iterator[bytes]:
                for number in range(20):
                    turn.acquire()
                    yield b"%d" % number

            for word in client.channel.stream_stream(f"/{NAME}/Chat")(words(), timeout=PATIENCE_SECONDS):
                came.append(word)
                turn.release()
            return came

        assert await asyncio.to_thread(talk) == [b"%d" % number for number in range(20)]


async def test_an_error_comes_through_with_its_words(row: Row) -> None:
    row.service.failure = grpc.StatusCode.FAILED_PRECONDITION
    with row.calls(2) as client:
        error = await client.failure("Fail")
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "100 % wrong: é")


async def test_a_deadline_falls_from_hop_to_hop_and_is_kept(row: Row) -> None:
    with row.calls(2) as client:
        await client.unary("Echo")  # the connections are there
        begin = time.monotonic()
        error = await client.failure("Slow", timeout=1.0)
        took = time.monotonic() - begin
        await until(lambda: "Slow" in row.service.ended)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert took < PATIENCE_SECONDS / 2
    # grpcio asks for 1010 ms and rounds what it is given; this field beside it is passed on as it came.
    assert 0 < int(row.service.metadata[-1]["x-envoy-expected-rq-timeout-ms"]) <= 1000  # two offsets of 5 ms


@pytest.mark.parametrize("count", [1, 2])
async def test_the_servers_own_end_of_the_time_comes_before_the_sidecars(
    tmp_path: Path, service: GrpcService, count: int
) -> None:
    """It is told of `offset` less than the sidecar waits; its answer counts as the sidecar's own timeout would."""
    breaker = "circuit_breaker: {consecutive_failures: 2, open_for: 60s, count_timeout_after: 500ms}"
    route = f"{breaker}, deadline: {{offset: 60ms}}"
    exceeded = grpc.StatusCode.DEADLINE_EXCEEDED
    async with sidecars(tmp_path, service.port, count, route) as row:
        client = Calls(row[0].port)
        await client.unary("Echo")  # the connections are there
        for _ in range(2):  # their caller's own affair: they open nothing
            assert (await client.failure("Slow", timeout=0.4)).code() is exceeded
        for _ in range(TRIES):
            error = await client.failure("Slow", timeout=1.0)
            assert error.code() is exceeded
            await client.unary("Echo")  # the row of failures ends
            if error.details() == SERVERS_WORDS:
                break
        assert error.details() == SERVERS_WORDS
        for _ in range(TRIES):
            for _ in range(2):
                assert (await client.failure("Slow", timeout=1.0)).code() is exceeded
            if told := await client.refusal("Echo"):
                break
        assert "circuit_open" in told
        client.channel.close()
        for sidecar in row:
            assert 'error_type="DEADLINE_EXCEEDED"' in await own_ends(sidecar)


async def own_ends(sidecar: Served) -> str:
    """How the upstream's attempts ended, as the sidecar counts them."""
    _, text = await sidecar.process.get("/metrics")
    count = "http_client_request_duration_seconds_count"
    return "\n".join(line for line in text.splitlines() if line.startswith(count))


async def test_a_cancelled_call_is_cancelled_at_its_server(row: Row) -> None:
    service = row.service
    with row.calls(2) as client:
        future = client.channel.unary_unary(f"/{NAME}/Slow").future(b"", timeout=PATIENCE_SECONDS)
        await until(lambda: service.calls == ["Slow"])
        assert not service.ended
        future.cancel()
        await until(lambda: service.ended == ["Slow"])
        assert (await client.unary("Echo", b"on"))[0] == b"on"  # the connection goes on


async def test_a_thousand_calls_at_once(row: Row) -> None:
    """On a busy machine some are refused by an overload's REFUSED_STREAM, which gRPC may ask again for."""
    with row.calls(policy=RETRIES) as client:
        echo = client.channel.unary_unary(f"/{NAME}/Echo")

        def all_of_them() -> list[bytes]:
            futures = [echo.future(b"%d" % number, timeout=PATIENCE_SECONDS) for number in range(1000)]
            return [future.result() for future in futures]

        assert await asyncio.to_thread(all_of_them) == [b"%d" % number for number in range(1000)]


async def test_a_slow_reader_holds_its_server_back_and_nobody_else(row: Row) -> None:
    with row.calls() as client:
        stream = client.channel.unary_stream(f"/{NAME}/CountDown")(b"100000 1000", timeout=PATIENCE_SECONDS)
        assert len(await asyncio.to_thread(next, stream)) == 100_000
        for number in range(20):
            assert (await client.unary("Echo", b"%d" % number))[0] == b"%d" % number
        rest = await asyncio.to_thread(lambda: sum(map(len, stream)))
        assert rest == 999 * 100_000


async def test_a_server_that_says_unavailable_opens_the_breaker(guarded: Guarded) -> None:
    """Its answers are HTTP 200: only `grpc-status` tells."""
    with guarded.calls("opens") as client:
        for _ in range(5):
            error = await client.failure("Fail")
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        error = await client.failure("Echo")
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "circuit_open" in error.details()
        assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
    assert guarded.services["opens"].calls == ["Fail"] * 5


async def test_what_is_the_callers_own_fault_opens_nothing(guarded: Guarded) -> None:
    service = guarded.services["own-fault"]
    codes = grpc.StatusCode
    with guarded.calls("own-fault") as client:
        for code in (codes.INVALID_ARGUMENT, codes.NOT_FOUND, codes.UNAUTHENTICATED, codes.ABORTED):
            service.failure = code
            for _ in range(2):
                assert (await client.failure("Fail")).code() is code
        assert (await client.unary("Echo", b"x"))[0] == b"x"


async def test_failure_on_names_a_grpc_status(guarded: Guarded) -> None:
    service = guarded.services["named"]
    with guarded.calls("named") as client:
        for _ in range(3):
            await client.failure("Fail")  # UNAVAILABLE is not named
        service.failure = grpc.StatusCode.NOT_FOUND
        for _ in range(2):
            await client.failure("Fail")
        assert "circuit_open" in (await client.failure("Echo")).details()


async def test_our_own_answers_are_grpc_statuses(guarded: Guarded) -> None:
    with guarded.calls("none of them") as client:
        call = client.channel.unary_unary("/other.Service/Any")
        with pytest.raises(grpc.RpcError) as raised:
            await asyncio.to_thread(lambda: call(b"", timeout=PATIENCE_SECONDS))
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "no_route" in error.details()


async def test_every_end_is_counted_by_its_grpc_status(guarded: Guarded) -> None:
    """What a server said, what the sidecar answered itself, and a caller who left."""
    service = guarded.services["counted"]
    codes = grpc.StatusCode
    with guarded.calls("counted") as client:
        await client.unary("Echo", b"x")
        slow = client.channel.unary_unary(f"/{NAME}/Slow")
        future = slow.future(b"", timeout=PATIENCE_SECONDS, metadata=client.metadata)
        await until(lambda: "Slow" in service.calls)
        future.cancel()
        await until(lambda: "Slow" in service.ended)
        for code in (codes.NOT_FOUND, codes.UNAVAILABLE, codes.DATA_LOSS):
            service.failure = code
            await client.failure("Fail")
        await client.failure("Echo")  # the breaker is open

    async def count(rest: str) -> float:
        labels = (
            'sidecar_route="counted",sidecar_listener="inbound",http_request_method="POST",'
            f'url_scheme="http",{rest}'
        )
        return await guarded.sidecar.metric(f"http_server_request_duration_seconds_count{{{labels}}}")

    grpcs = 'rpc_system="grpc",rpc_grpc_status_code='
    ok = f'http_response_status_code="200",{grpcs}'
    assert await count(f'{ok}"0"') == 1
    assert await count(f'{ok}"5"') == 1
    assert await count(f'{ok}"14",error_type="UNAVAILABLE"') == 1
    assert await count(f'{ok}"15",error_type="DATA_LOSS"') == 1
    assert await count(f'{ok}"14",error_type="circuit_open"') == 1
    assert await count(f'http_response_status_code="499",{grpcs}"1",error_type="client_gone"') == 1


async def test_a_server_that_is_away_is_unavailable(guarded: Guarded) -> None:
    with guarded.calls("away") as client:
        error = await client.failure("Echo")
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "connection_refused" in error.details()


async def test_many_cancelled_calls_are_no_flood(row: Row) -> None:
    """Two sidecars share one connection: what its clients cancel is a feature, not an attack."""
    service = row.service
    with row.calls(2) as client:
        slow = client.channel.unary_unary(f"/{NAME}/Slow")
        for _ in range(6):
            futures = [slow.future(b"", timeout=PATIENCE_SECONDS) for _ in range(50)]
            done = itertools.count()
            await until(lambda done=done: next(done) > 5)  # type: ignore[misc]
            for future in futures:
                future.cancel()
        await until(lambda: len(service.ended) == len(service.calls))
        assert (await client.unary("Echo", b"on"))[0] == b"on"
