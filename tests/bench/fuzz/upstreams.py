"""An upstream's whole connection and what its sink hears of a response: whole against pieces, cold against warm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from sidecar.core.errors import Reason
from sidecar.core.head import NOTHING, RequestHead, ResponseHead
from sidecar.core.plain import Field
from sidecar.core.request import Request, Traits
from sidecar.upstream.http1 import UpstreamConnection
from sidecar.upstream.lease import Fate
from sidecar.upstream.streams import Processed, ResponseSink
from tests.bench.fuzz import memories
from tests.bench.fuzz.pieces import cuttings
from tests.bench.fuzz.seeds import response_seeds
from tests.bench.fuzz.targets import Target, same
from tests.bench.fuzz.transports import connect, leaving, raise_errors, run_in
from tests.bench.fuzz.words import HTTP_WORDS
from tests.support.by_hand import HandLoop, hand_cluster, request

REQUESTS: Final[tuple[Callable[[], Request], ...]] = (
    lambda: request(),
    lambda: request(b"HEAD"),
    lambda: request(b"POST", length=5),
    lambda: request(b"POST", length=-1, traits=Traits(is_chunked=True)),
    lambda: request(traits=Traits(upgrade=b"websocket")),
)
_FOR_EVER: Final = 10_000.0


class Sink(ResponseSink):
    """What one response was, however many reads it came in; gives the connection back at its end."""

    def __init__(self, connection: UpstreamConnection, now: Callable[[], float]) -> None:
        self.connection = connection
        self.now = now
        self.interims: list[int] = []
        self.status = 0
        self.body = b""
        self.trailers: list[Field] = []
        self.ends: list[str] = []

    @property
    def outcome(self) -> tuple[Any, ...]:
        """Of a response that failed, what was told before it is left out: that depends on what one read brings."""
        if self.ends and self.ends[0].startswith("failed"):
            return (self.ends,)
        return self.ends, self.interims, self.status, self.body, self.trailers

    def interim(self, head: ResponseHead) -> None:
        self._is_open()
        self.interims.append(head.status)

    def head(self, head: ResponseHead) -> None:
        self._is_open()
        assert not self.status
        self.status = head.status

    def data(self, data: bytes) -> None:
        self._is_open()
        assert self.status
        assert data
        self.body += data

    def flush(self) -> None:
        self._is_open()

    def end(self, trailers: Sequence[Field]) -> None:
        self._over("whole", Fate.REUSABLE)
        self.trailers = list(trailers)

    def answered(self, head: ResponseHead, body: bytes, trailers: Sequence[Field] = ()) -> None:
        assert not self.status
        self.status, self.body, self.trailers = head.status, body, list(trailers)
        self._over("whole", Fate.REUSABLE)

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        self.status, self.body = head.status, rest
        self._over("switched", Fate.HANDED_OVER)

    def declined(self, detail: str) -> None:
        raise AssertionError(detail)

    def failed(self, reason: Reason, detail: str, processed: Processed) -> None:
        assert detail
        self._over(f"failed {reason.value}", Fate.BROKEN)

    def broken(self) -> None:
        raise AssertionError("an error of our own")

    def blocked(self) -> None: ...
    def writable(self) -> None: ...

    def _over(self, how: str, fate: Fate) -> None:
        self._is_open()
        self.ends.append(how)
        if fate is Fate.HANDED_OVER:
            self.connection.hand_over(_Tunnel(self))
        self.connection.release(fate, self.now())

    def _is_open(self) -> None:
        if self.ends:
            raise AssertionError(f"told after its end: {self.ends}")


class _Tunnel:
    """In the place of what would take over after a switch: what comes then belongs to what came with the switch."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def data_received(self, data: bytes) -> None:
        self.sink.body += data

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None: ...


def heard(asked: Request, pieces: Sequence[bytes], end: int) -> tuple[Any, ...]:
    """What a sink hears of `pieces`, and whether the connection is kept for the next request."""
    loop = HandLoop()
    run_in(loop)
    cluster = hand_cluster(loop)
    connection = UpstreamConnection(cluster.pools[0])
    transport = connect(connection, loop)
    cluster.pools[0].add(connection)
    cluster.connections = 1
    sink = Sink(connection, loop.time)
    head = RequestHead()
    head.request, head.target, head.authority = asked, b"/", b"app"
    head.drop, head.added, head.own = frozenset(), NOTHING, []
    connection.begin(sink).send_head(head)
    for piece in pieces:
        transport.receive(piece)
        loop.settle()
    kept = [one is connection for one in cluster.pools[0].idle]
    if end == 0:
        transport.end_input()
    elif end == 1:
        transport.lose(ConnectionResetError())
    loop.settle()
    outcome = (sink.outcome, kept)
    transport.lose()
    loop.advance(_FOR_EVER)
    raise_errors(loop)
    assert len(sink.ends) == 1
    same("what the upstream keeps", (0, {}, 0), (cluster.connections, cluster.pools[0].idle, loop.timers))
    return outcome


def upstream(data: bytes) -> None:
    """The first byte says what was asked and how the upstream ends; the rest is what it says."""
    asked, end = REQUESTS[data[0] % 5 if data else 0], data[0] // 5 % 3 if data else 0
    rest = data[1:]
    memories.forget()
    whole = heard(asked(), [rest], end)
    same("an upstream of which much is remembered", whole, heard(asked(), [rest], end))
    for pieces in cuttings(rest):
        same("an upstream in pieces", whole, heard(asked(), pieces, end))


def _seeds() -> Iterator[bytes]:
    for number, data in enumerate(response_seeds()):
        yield bytes((number % 15,)) + data
        yield b"\0" + data


TARGETS: Final = [Target("upstream", leaving(upstream), _seeds, HTTP_WORDS, share=2)]
