"""Attempts that race in whatever order things happen: nothing is lost, and nobody hears a thing twice.

Each example is a schedule of answers, failures, pauses, cancels and deadlines on up to six attempts, by hedges and
retries. However it goes, each permit and each place goes back once, the client hears of one end, and each upstream
that had the body whole had each byte of it.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.errors import Reason
from sidecar.core.head import response_head
from sidecar.core.snapshot import BreakerPolicy, Endpoint, HedgePolicy, RetryOn, RetryPolicy, RouteTimeouts
from sidecar.forwarding.exchange import Exchange
from sidecar.upstream.lease import Fate
from sidecar.upstream.streams import Processed, ResponseSink
from tests.support.by_hand import HandClient, HandConnecting, HandLease, Path, request

ENDPOINTS = [Endpoint(f"127.0.0.{number}", 8080) for number in range(1, 5)]
BODY = bytes(range(200))
RETRY = RetryPolicy(
    attempts=2,
    on=frozenset({RetryOn.STATUS_5XX, RetryOn.RESET, RetryOn.CONNECT_FAILURE, RetryOn.ATTEMPT_TIMEOUT}),
    is_non_idempotent=True,
)
ENDS = {"whole", "reset", "switch"}

steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["200", "500", "head", "bad head", "data", "end", "reset", "refused", "open", "fail", "wait", "wait",
             "send", "send", "pause", "resume", "leave"]
        ),
        st.integers(0, 5),
        st.sampled_from([0.0, 0.01, 0.1, 0.12, 0.3]),
    ),
    max_size=40,
)  # fmt: skip


class Schedule:
    """One exchange, and what happens to it."""

    def __init__(self, *, connectings: list[HandConnecting], has_idle: bool, is_upload: bool) -> None:
        self.path = Path(
            *ENDPOINTS,
            retry=RETRY,
            hedge=HedgePolicy(after=0.1, most=2),
            timeouts=RouteTimeouts(request_seconds=1.0, attempt_seconds=0.5),
            breaker=BreakerPolicy(consecutive_failures=3),
        )
        self.connectings = connectings
        self.leases = [self.path.idle_lease(number) for number in range(4)] if has_idle else []
        self.left = BODY if is_upload else b""
        self.is_whole = not is_upload
        self.client = HandClient()
        asked = request(b"POST" if is_upload else b"GET", length=len(BODY) if is_upload else 0)
        self.exchange = Exchange().take(self.path.service, self.client, asked)
        self.exchange.begin()

    @property
    def is_over(self) -> bool:
        return bool(self.path.told.finishes)

    def step(self, what: str, which: int, seconds: float) -> None:
        if what == "wait":
            self.path.loop.advance(seconds)
        elif what == "leave":
            if which == 0:  # not in every example
                self.exchange.gone(Reason.CLIENT_GONE, "gone")
        elif what == "send":
            self.send()
        elif what == "pause":
            self.exchange.blocked()
        elif what == "resume":
            self.exchange.writable()
        elif what in ("open", "fail"):
            waiting = [one for one in self.connectings if one.seekers]
            if waiting:
                one = waiting[which % len(waiting)]
                if what == "open":
                    self.leases.append(one.open())
                else:
                    one.fail()
        else:
            busy = [one for one in self.leases if one.heard_by is not None]
            if busy:
                self.hear(busy[which % len(busy)], what)

    def send(self) -> None:
        if self.is_whole or self.is_over:
            return
        piece, self.left = self.left[:70], self.left[70:]
        self.exchange.data(piece)
        if not self.left and not self.is_over:
            self.is_whole = True
            self.exchange.end(())

    def hear(self, lease: HandLease, what: str) -> None:
        sink = lease.heard_by
        assert isinstance(sink, ResponseSink)
        has_head = lease.names.count("heard head") > 0
        if what in ("200", "500") and not has_head:
            sink.answered(response_head(int(what), [], 2), b"ok")
        elif what in ("head", "bad head") and not has_head:
            lease.notes.append(("heard head",))
            sink.head(response_head(200 if what == "head" else 503, [], None))
        elif what == "data" and has_head:
            sink.data(b"some")
            sink.flush()
        elif what == "end" and has_head:
            sink.end(())
        elif what == "reset":
            sink.failed(Reason.CONNECTION_RESET, "reset", Processed.YES if has_head else Processed.MAYBE)
        elif what == "refused" and not has_head:
            sink.failed(Reason.CONNECTION_REFUSED, "refused", Processed.NEVER)

    def finish(self) -> None:
        """The deadline comes at last; behind a good head it cuts."""
        self.path.loop.advance(5.0)

    def check(self) -> None:
        path, client = self.path, self.client
        assert path.loop.errors == []
        assert len(path.told.finishes) == 1
        assert path.service.exchanges == set()
        assert len(path.service.sweep) == 0
        assert len(path.service.beside.hedges) == 0
        assert path.in_flight == (0, [0] * 4)
        assert path.cluster.pending == 0
        assert path.service.memory.used_bytes == 0
        tally = path.breaker.tally
        assert tally.total == tally.successful + tally.failed + tally.ignored + tally.rejected
        # A permit goes on to the attempt in the place of one that certainly reached nobody.
        assert 0 <= len(self.exchange.attempts) - (tally.total - tally.rejected) <= 1
        assert sum(one.is_hedge for one in self.exchange.attempts) <= 2 * 3
        # One end for the client, and nothing behind it; none if it left.
        status = path.told.finishes[0][0]
        ends = [name for name in client.names if name in ("whole", "reset", "end")]
        assert ends in ([], ["whole", "end"], ["end"], ["reset", "end"])
        assert (ends == []) == (status == 499)
        assert client.names.count("head") + client.names.count("whole") <= 1
        for lease in self.leases:
            assert len(lease.fates) == lease.begun
            assert Fate.HANDED_OVER not in lease.fates
            if ("end", []) in lease.notes and lease.begun == 1:
                assert body_of(lease) == BODY


def body_of(lease: HandLease) -> bytes:
    """What an upstream was sent."""
    return b"".join(
        note[2] if note[0] == "head" else note[1] for note in lease.notes if note[0] in ("head", "data")
    )


@settings(max_examples=600, deadline=None)
@given(schedule=steps, has_idle=st.booleans(), is_upload=st.booleans())
def test_however_attempts_race_nothing_is_lost(
    schedule: list[tuple[str, int, float]], *, has_idle: bool, is_upload: bool
) -> None:
    connectings: list[HandConnecting] = []
    with pytest.MonkeyPatch.context() as patch:

        def begin(*arguments: object) -> HandConnecting:
            connectings.append(HandConnecting(*arguments))  # type: ignore[arg-type]
            return connectings[-1]

        patch.setattr("sidecar.upstream.cluster.Connecting", begin)
        run = Schedule(connectings=connectings, has_idle=has_idle, is_upload=is_upload)
        for what, which, seconds in schedule:
            run.step(what, which, seconds)
        run.finish()
        run.check()
