"""One request by the sidecar itself, from its head to the end of its answer: what all checks have in common.

Who makes it says where it goes (a `Way`: by the pool of the traffic, or by a connection apart), what it asks (a
`CheckPolicy`), and hears of its end. What the end means is theirs to say. Owned by them; ends with the answer, its
timeout or `cancel`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from sidecar.core import grpc_health
from sidecar.core.errors import Reason
from sidecar.core.grpc_status import GrpcStatus
from sidecar.core.head import NOTHING, RequestHead, ResponseHead
from sidecar.core.plain import Field
from sidecar.core.request import PLAIN, Request, Traits
from sidecar.core.snapshot import CheckKind, CheckPolicy
from sidecar.core.tracecontext import FLAG_TEXT, RANDOM, SAMPLED
from sidecar.forwarding import verdicts
from sidecar.forwarding.given_up import GivenUp
from sidecar.transport.pace import after_poll
from sidecar.upstream.lease import Fate, Lease, Seeker
from sidecar.upstream.streams import Processed, ResponseSink

if TYPE_CHECKING:
    from sidecar.forwarding.service import Service

MAX_BODY_BYTES: Final = 64 * 1024
"""Of an answer: beyond, its head has said enough, and the connection is cut."""
LATE_SECONDS: Final = 0.01
"""A timeout that is handled later than this is put off by one turn of the loop: what has come is read first."""
GRPC: Final = Traits(http_version="2", is_grpc=True)


class Way(ABC):
    """How a request of our own comes to an endpoint."""

    __slots__ = ()

    @abstractmethod
    def seek(self, request: OwnRequest) -> GivenUp | None:
        """Have a connection opened or waited for, and tell `request`; or why there is none."""

    @abstractmethod
    def leased(self, lease: Lease) -> None:
        """There it is."""

    @abstractmethod
    def not_leased(self) -> None:
        """There will be none."""

    @abstractmethod
    def is_ours(self) -> bool:
        """Whether it waits for something of our own: then nothing is learned of the endpoint."""

    @abstractmethod
    def leave(self, request: OwnRequest) -> None:
        """It is not needed any more, in whatever state; the lease was given back."""


class _Nowhere(Way):
    """Of a request that has ended."""

    __slots__ = ()

    def seek(self, request: OwnRequest) -> GivenUp | None:
        return None

    def leased(self, lease: Lease) -> None: ...
    def not_leased(self) -> None: ...

    def is_ours(self) -> bool:
        return False

    def leave(self, request: OwnRequest) -> None: ...


NOWHERE: Final = _Nowhere()


class Ids:
    """Of the trace that a request of our own begins."""

    __slots__ = ("is_sampled", "span_id", "trace_id")

    def __init__(self, service: Service, *, is_traced: bool) -> None:
        """`is_traced`: it may be sampled; otherwise who is asked is told not to trace it."""
        self.trace_id, self.span_id, _ = service.ids.for_exchange()
        self.is_sampled = is_traced and service.decide(None, self.trace_id)

    def lines(self) -> list[bytes]:
        flags = RANDOM | SAMPLED if self.is_sampled else RANDOM
        return [
            b"x-request-id: ", self.trace_id, b"\r\ntraceparent: 00-", self.trace_id, b"-", self.span_id,
            FLAG_TEXT[flags & 3], b"\r\n",
        ]  # fmt: skip


class OwnRequest(ResponseSink, Seeker):
    """See the module."""

    __slots__ = (
        "_agent", "_authority", "_body", "_ids", "_is_over", "_lease", "_on_end", "_service", "_timer", "_was_stale",
        "answer", "ended", "error", "policy", "started", "trailers", "way",
    )  # fmt: skip

    def __init__(
        self,
        service: Service,
        policy: CheckPolicy,
        way: Way,
        ids: Ids,
        agent: str,
        authority: bytes,
        on_end: Callable[[OwnRequest], None],
    ) -> None:
        """`agent`: what it calls itself. `on_end` is called once, unless `cancel` comes first."""
        self.policy = policy
        self.way = way
        self.answer: ResponseHead | None = None
        self.trailers: Sequence[Field] = ()
        self.error: GivenUp | None = None
        """Why there was no whole answer."""
        self.started = self.ended = service.clock()
        self._agent = agent
        self._authority = authority
        self._ids = ids
        self._service = service
        self._on_end = on_end
        self._timer = service.loop.call_later(policy.timeout_seconds, self._late)
        self._lease: Lease | None = None
        self._body = bytearray()
        self._is_over = self._was_stale = False

    def __repr__(self) -> str:
        return f"<OwnRequest {self.policy.told} {'over' if self._is_over else 'under way'}>"

    @property
    def body(self) -> bytes:
        return bytes(self._body)

    @property
    def was_held(self) -> bool:
        """Whether our own loop was held for so much of its time that its end says nothing of the endpoint."""
        seconds = self.policy.timeout_seconds
        return self._service.sweep.pace.held.blinds(seconds, self._service.clock())

    # On its way

    def begin(self) -> None:
        """Comes first."""
        self._seek()

    def _seek(self) -> None:
        error = self.way.seek(self)
        if error is not None:
            self._finish(Fate.BROKEN, error)

    def leased(self, lease: Lease) -> None:
        self._lease = lease
        self.way.leased(lease)
        kind = self.policy.kind
        if kind is CheckKind.TCP:
            self._finish(Fate.REUSABLE)
        elif kind is CheckKind.GRPC and not lease.pool.is_shared:
            self._fail(Reason.PROTOCOL_ERROR, "the endpoint speaks no HTTP/2, which a gRPC check needs")
        else:
            body = grpc_health.question(self.policy.service or "") if kind is CheckKind.GRPC else b""
            stream = lease.begin(self)
            stream.send_head(self._head(len(body)), (body,) if body else ())
            if body:
                stream.end(())

    def not_leased(self, reason: Reason, detail: str, *, is_counted: bool = True) -> None:
        self.way.not_leased()
        self._fail(reason if is_counted else Reason.OVERLOADED, detail)

    def _head(self, length: int) -> RequestHead:
        is_grpc = self.policy.kind is CheckKind.GRPC
        method = b"POST" if is_grpc else b"GET"
        path = (grpc_health.PATH if is_grpc else self.policy.path or "/").encode()
        head = RequestHead()
        traits = GRPC if is_grpc else PLAIN
        lookup = {b"te": b"trailers"} if is_grpc else {}
        head.request = Request().take("", method, path, path, self._authority, [], lookup, length, traits)
        head.target, head.authority = path, self._authority
        head.drop, head.added = frozenset(), NOTHING
        if is_grpc:
            milliseconds = max(1, round(self.policy.timeout_seconds * 1000.0))
            lines = b"content-type: application/grpc\r\ngrpc-timeout: %dm\r\n" % milliseconds
        else:
            lines = b"Accept: */*\r\n"
        head.own = [b"User-Agent: ", self._agent.encode(), b"\r\n", lines, *self._ids.lines()]
        return head

    # What comes back

    def interim(self, head: ResponseHead) -> None: ...

    def head(self, head: ResponseHead) -> None:
        self.answer = head

    def data(self, data: bytes | memoryview) -> None:
        self._body += data
        if len(self._body) > MAX_BODY_BYTES:
            self._finish(Fate.BROKEN)

    def flush(self) -> None: ...

    def end(self, trailers: Sequence[Field]) -> None:
        self.trailers = trailers
        self._finish(Fate.REUSABLE)

    def answered(self, head: ResponseHead, body: bytes | memoryview, trailers: Sequence[Field] = ()) -> None:
        self.answer = head
        self.trailers = trailers
        self._body += body[: MAX_BODY_BYTES + 1]
        self._finish(Fate.REUSABLE)

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        self._fail(Reason.PROTOCOL_ERROR, "a switch to a protocol that was not asked for")

    def failed(self, reason: Reason, detail: str, processed: Processed) -> None:
        lease = self._lease
        is_stale = lease is not None and lease.is_reused and self.answer is None and not self._was_stale
        if is_stale and processed is Processed.MAYBE:
            # A pooled connection that had ended says nothing of the upstream.
            self._was_stale = True
            self._release(Fate.BROKEN)
            self._seek()
            return
        self._fail(reason, detail)

    def declined(self, detail: str) -> None:
        self._fail(Reason.PROTOCOL_ERROR, detail)

    def broken(self) -> None:
        self._finish(Fate.BROKEN, GivenUp(Reason.CONNECTION_RESET, "an error in the sidecar", is_ours=True))

    def blocked(self) -> None: ...

    def writable(self) -> None: ...

    def _late(self) -> None:
        service = self._service
        now, due = service.clock(), self.started + self.policy.timeout_seconds
        service.sweep.pace.fired(due, now, is_busy=False)
        if now - due > LATE_SECONDS:
            after_poll(service.loop, self._time_out)
        else:
            self._time_out()

    def _time_out(self) -> None:
        is_ours = self._lease is None and self.way.is_ours()
        seconds = self.policy.timeout_seconds
        what = "connection came free" if is_ours else "whole answer"
        if self.policy.kind is CheckKind.TCP:
            what = "connection"
        self._finish(Fate.BROKEN, GivenUp(Reason.TIMEOUT, f"no {what} within {seconds:g} s", is_ours=is_ours))

    # Its end

    def cancel(self) -> None:
        """It is not needed any more: let go of everything. Nobody is told."""
        if not self._is_over:
            self._on_end = _nobody
            self._let_go(Fate.BROKEN)

    def _fail(self, reason: Reason, detail: str) -> None:
        self._finish(Fate.BROKEN, GivenUp(reason, detail))

    def _finish(self, fate: Fate, error: GivenUp | None = None) -> None:
        if self._is_over:
            return
        self.error = error
        self._let_go(fate)
        self.ended = self._service.clock()
        on_end, self._on_end = self._on_end, _nobody
        on_end(self)

    def _let_go(self, fate: Fate) -> None:
        self._is_over = True
        self._timer.cancel()
        self._release(fate)
        way, self.way = self.way, NOWHERE  # which points here: no cycle may be left
        way.leave(self)

    def _release(self, fate: Fate) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(fate, self._service.clock())


def _nobody(_: OwnRequest) -> None:
    """Who is told that it has ended: once, and then nobody."""


def complaint(request: OwnRequest) -> str:
    """What is wrong with what came back, as a token or a status; empty for a good answer."""
    error, answer = request.error, request.answer
    if error is not None:
        return error.reason.error_type
    if answer is None:
        return ""  # a connection was all that was asked for
    if request.policy.kind is CheckKind.HTTP:
        return "" if 200 <= answer.status < 400 else str(answer.status)
    if answer.status != 200:
        return str(answer.status)
    status = verdicts.told_grpc_status(answer, request.trailers)
    if status != GrpcStatus.OK:
        return f"grpc:{GrpcStatus(status).name}"
    try:
        state = grpc_health.answer(request.body)
    except grpc_health.NoHealth as none:
        return str(none)
    return "" if state == grpc_health.SERVING else grpc_health.STATES.get(state, f"state {state}")
