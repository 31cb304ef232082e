"""A copy of one request on its way to another upstream (`mirror`), whose answer nobody gets.

It takes a connection of that upstream's pool, within its limits, and has one try and a time of its own. The body
comes here as it comes from the client; where this upstream has not taken `buffer` bytes by the time that more comes,
the copy is cut: the client is never held back for it. It has a trace of its own, which is linked to the request's.
Owned by its `Copying`; ends with the answer, its time, or `stop`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import floor
from typing import TYPE_CHECKING, Any

from mypy_extensions import trait

from sidecar.core.contract import NO_SLOTS
from sidecar.core.endpoint_facts import NO_ENDPOINT
from sidecar.core.errors import Reason
from sidecar.core.memory_budget import Account
from sidecar.core.mirrored import MARK, CopyOutcome, Mirrored
from sidecar.core.plain import Field
from sidecar.forwarding import heads
from sidecar.forwarding.affinity import key_in
from sidecar.forwarding.body import BodyTee
from sidecar.forwarding.trace import Trace
from sidecar.upstream.cluster import NoPlace
from sidecar.upstream.lease import Fate, Lease, LeasePool, Seeker
from sidecar.upstream.streams import NO_UPSTREAM, ClientStream, Processed, ResponseSink

if TYPE_CHECKING:
    from sidecar.core.head import RequestHead, ResponseHead
    from sidecar.core.snapshot import MirrorPolicy
    from sidecar.forwarding.live import LiveRoute
    from sidecar.forwarding.service import Service
    from sidecar.forwarding.story import Story
    from sidecar.upstream.cluster import Cluster, Wait

_MARKS = frozenset({MARK})


@trait
class CopyOwner(ABC):
    """Who has begun it, and hears of its end."""

    __slots__ = NO_SLOTS

    service: Service
    policy: MirrorPolicy
    cluster: Cluster

    @abstractmethod
    def ended(self, copy: Copy) -> None:
        """It has let go of everything."""


class Copy(ResponseSink, Seeker, BodyTee):
    """See the module."""

    __slots__ = (
        "_account", "_body_is_whole", "_has_body", "_has_place", "_is_over", "_lease", "_owner", "_pending", "_pool",
        "_route", "_started", "_status", "_story", "_stream", "_target", "_timer", "_trailers", "_wait", "trace",
    )  # fmt: skip

    def __init__(self, owner: CopyOwner, story: Story, route: LiveRoute) -> None:
        service = owner.service
        self.trace = Trace()
        self.trace.begin_copy(service, story.trace)
        self._owner = owner
        self._story = story
        self._route = route
        self._started = service.clock()
        self._has_body = story.body is not None
        self._body_is_whole = False
        self._target = story.request.origin_target
        """As it is asked for; of one that was sent."""
        self._trailers: Sequence[Field] = ()
        self._pending: list[Any] = []
        """Of the body, until there is a connection."""
        self._account = Account(service.memory, self._started)
        self._timer = service.loop.call_later(owner.policy.attempt_seconds, self._late)
        self._pool: LeasePool | None = None
        self._lease: Lease | None = None
        self._stream: ClientStream = NO_UPSTREAM
        self._wait: Wait | None = None
        self._status = 0
        self._has_place = self._is_over = False

    def __repr__(self) -> str:
        return f"<Copy to {self._owner.cluster.name} status={self._status}>"

    # On its way

    def begin(self) -> None:
        """Take a place at the upstream, and send it; comes first, in a turn of its own."""
        if not self._is_over:
            self._safely(self._seek)

    def _seek(self) -> None:
        cluster = self._owner.cluster
        if self._story.reason is not None and not self._story.tries:
            self._end(None)  # the request was refused, and went to nobody
            return
        self._has_place = cluster.admit()
        if not self._has_place:
            self._end(CopyOutcome.CROWDED)
            return
        key = key_in(self._story, cluster.hash_key)
        pool = self._pool = cluster.pick((), key)  # and no trial: what comes of it is not counted
        if pool is None:
            self._end(CopyOutcome.FAILED, Reason.DNS_ERROR)
            return
        pool.in_flight += 1
        pool.begun_at = self._started
        lease = pool.take(self._started, True) if pool.idle else None
        if lease is not None:
            self._send(lease)
            return
        wait = cluster.wait_for(pool, self)
        if isinstance(wait, NoPlace):
            self._end(CopyOutcome.CROWDED)
        else:
            self._wait = wait

    def leased(self, lease: Lease) -> None:
        self._wait = None
        self._safely(self._send, lease)

    def not_leased(self, reason: Reason, detail: str, *, is_counted: bool = True) -> None:
        self._wait = None
        self._end(CopyOutcome.FAILED, reason)

    def _send(self, lease: Lease) -> None:
        self._lease = lease
        if self._pool is not None and lease.pool is not self._pool:  # the first that came free
            self._pool.in_flight -= 1
            lease.pool.in_flight += 1
        self._pool = lease.pool
        head = self._head()
        stream = self._stream = lease.begin(self)
        if self._has_body:
            held, self._pending = self._pending, []
            stream.send_head(head, held)
            if self._body_is_whole:
                stream.end(self._trailers)
            self._charge()
        else:
            stream.send_head(head)

    def _head(self) -> RequestHead:
        route, seconds = self._route, self._owner.policy.attempt_seconds
        sent_ms = floor(seconds * 1000.0) if route.is_deadline_sent else None
        endpoint = None if self._pool is None else self._pool.endpoint
        head = heads.request_head(
            self._story, route, self.trace.span_id, sent_ms, seconds, endpoint, self.trace
        )
        self._target = bytes(head.target)
        head.drop |= _MARKS
        head.own.append(MARK + b": 1\r\n")
        return head

    def _safely(self, step: Callable[..., None], *arguments: Any) -> None:
        """A mistake of ours ends the copy and nothing else."""
        try:
            step(*arguments)
        except Exception as error:
            message = f"an error in a copy for {self._owner.cluster.name}"
            self._owner.service.loop.call_exception_handler({"message": message, "exception": error})
            self._end(CopyOutcome.FAILED)

    # The request's body

    def teed(self, data: Any) -> None:
        if self._is_over:
            return
        # Looked at before this piece, which may be larger than the buffer: a quick upstream has taken the last one.
        if self._behind() > self._owner.policy.buffer_bytes:
            self._end(CopyOutcome.SLOW)
            return
        if self._lease is None:
            self._pending.append(data)
        else:
            self._safely(self._stream.send_data, data)
        self._charge()

    def tee_ended(self, trailers: Sequence[Field]) -> None:
        self._body_is_whole = True
        self._trailers = trailers
        if self._lease is not None and not self._is_over:
            self._safely(self._stream.end, trailers)

    def tee_gone(self) -> None:
        if not self._body_is_whole:
            self._end(CopyOutcome.CUT)

    def _behind(self) -> int:
        """Bytes that its upstream has not taken."""
        return self._stream.unsent_bytes if self._lease is not None else sum(map(len, self._pending))

    def _charge(self) -> None:
        if not self._is_over:
            self._account.hold(self._behind())

    # What comes back goes to nobody

    def interim(self, head: ResponseHead) -> None: ...

    def head(self, head: ResponseHead) -> None:
        self._status = head.status

    def data(self, data: bytes | memoryview) -> None: ...

    def flush(self) -> None: ...

    def end(self, trailers: Sequence[Field]) -> None:
        is_sent = self._body_is_whole or not self._has_body
        self._end(CopyOutcome.ANSWERED, fate=Fate.REUSABLE if is_sent else Fate.BROKEN)

    def answered(self, head: ResponseHead, body: bytes | memoryview, trailers: Sequence[Field] = ()) -> None:
        self._status = head.status
        self.end(trailers)

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        self._end(CopyOutcome.FAILED, Reason.PROTOCOL_ERROR)

    def failed(self, reason: Reason, detail: str, processed: Processed) -> None:
        self._end(CopyOutcome.FAILED, reason)

    def declined(self, detail: str) -> None:
        self._end(CopyOutcome.FAILED, Reason.PROTOCOL_ERROR)

    def broken(self) -> None:
        self._end(CopyOutcome.FAILED)

    def blocked(self) -> None: ...

    def writable(self) -> None:
        self._charge()

    # Its end

    def _late(self) -> None:
        self._end(CopyOutcome.TIMED_OUT, Reason.TIMEOUT)

    def stop(self) -> None:
        """Memory is short, or the process ends."""
        self._end(CopyOutcome.NO_MEMORY)

    def _end(
        self, outcome: CopyOutcome | None, reason: Reason | None = None, fate: Fate = Fate.BROKEN
    ) -> None:
        """None: it was never to be sent."""
        if self._is_over:
            return
        self._is_over = True
        owner, pool = self._owner, self._pool
        now = owner.service.clock()
        self._timer.cancel()
        owner.cluster.in_flight -= self._has_place
        if pool is not None:
            pool.in_flight -= 1
        if self._wait is not None:
            self._wait.cancel()
            self._wait = None
        lease, self._lease = self._lease, None
        self._stream, self._pending = NO_UPSTREAM, []
        if lease is not None:
            lease.release(fate, now)
        self._account.hold(0)
        owner.ended(self)
        if outcome is not None:
            self._tell(outcome, reason, pool, now, is_sent=lease is not None)

    def _tell(
        self,
        outcome: CopyOutcome,
        reason: Reason | None,
        pool: LeasePool | None,
        now: float,
        *,
        is_sent: bool,
    ) -> None:
        story, route, observe = self._story, self._route, self._owner.service.observe
        observe.copy_ended(route.name, self._owner.cluster.name, outcome)
        trace = self.trace
        if not trace.is_sampled or not (is_sent or reason is not None):
            return
        request, facts = story.request, NO_ENDPOINT if pool is None else pool.facts
        observe.mirrored(
            Mirrored(
                route.name,
                self._owner.cluster.name,
                outcome,
                request.method,
                request.host,
                self._target,
                facts.endpoint,
                trace.trace_id,
                trace.span_id,
                story.trace.trace_id,
                story.trace.span_id,
                trace.is_sampled,
                self._started,
                now,
                self._status,
                reason,
                facts.http_version,
                scheme=facts.scheme,
                tls=facts.tls,
            )
        )
