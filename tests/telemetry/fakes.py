"""Exchanges and attempts as the data path would show them, in the cheapest form: slotted attributes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any, cast

from sidecar.core.client_tls import ClientTls
from sidecar.core.contract import IS_COMPILED
from sidecar.core.deadline import Budget
from sidecar.core.ejection.change import EndpointChange
from sidecar.core.endpoint_facts import EndpointFacts
from sidecar.core.errors import Reason
from sidecar.core.numbers import Numbers
from sidecar.core.outcome import Judged, Verdict
from sidecar.core.request import Request, Traits
from sidecar.core.retry import RetryCause
from sidecar.core.secured import TlsFacts
from sidecar.core.snapshot import Endpoint, Match
from sidecar.core.transition import Cause, State, Transition, TransitionReason, WindowNumbers
from sidecar.core.untrusted import Untrusted
from sidecar.forwarding import counting

ENDPOINT = Endpoint("10.0.0.7", 8080)
JUDGED = Judged(Verdict.SUCCESS, State.CLOSED, 100.001, 0.02, 0.02)


@cache
def _facts(
    endpoint: Endpoint | None, _more: object, version: str, scheme: str, tls: TlsFacts | None
) -> EndpointFacts:
    """One for all attempts at an endpoint of which the same is known."""
    return EndpointFacts(endpoint, version, scheme, tls)


@dataclass(slots=True)
class FakeAttempt:
    upstream: str = "payments"
    endpoint: Endpoint | None = ENDPOINT
    span_id: bytes = b"00f067aa0ba902b8"
    started: float = 100.001
    ended: float = 100.021
    status: int = 200
    reason: Reason | None = None
    sent_ms: int | None = 1990
    waited_seconds: float = 0.0
    ejected: EndpointChange | None = None
    http_version: str = "1.1"
    grpc_status: int | None = None
    scheme: str = "http"
    tls: TlsFacts | None = None
    resend: int = 0
    cause: RetryCause | None = None
    judged: Judged = JUDGED

    @property
    def is_hedge(self) -> bool:
        return self.cause is RetryCause.HEDGE

    @property
    def facts(self) -> EndpointFacts:
        more = None if self.endpoint is None else self.endpoint.facts
        return _facts(self.endpoint, more, self.http_version, self.scheme, self.tls)

    @property
    def pool(self) -> FakeAttempt:
        return self


@dataclass(slots=True)
class FakeRoute:
    rewriting: object | None


@dataclass(slots=True)
class FakeEntry:
    match: Match


@dataclass(slots=True)
class FakeBody:
    size: int


@dataclass(slots=True)
class FakeExchange:
    request_id: bytes = b"req-1"
    listener: str = "outbound"
    route_name: str | None = "checkout"
    method: bytes = b"GET"
    target: bytes = b"/v1/orders?page=2&sig=secret"
    rewritten_target: bytes | None = None
    match: Match | None = None
    host: bytes = b"payments:80"
    http_version: str = "1.1"
    peer: tuple[str, int] | None = ("127.0.0.1", 40000)
    user_agent: bytes | None = b"curl/8"
    trace_id: bytes = b"4bf92f3577b34da6a3ce929d0e0e4736"
    span_id: bytes = b"00f067aa0ba902b7"
    parent_id: bytes | None = b"b7ad6b7169203331"
    is_sampled: bool = True
    tracestate: bytes = b"vendor=1"
    untrusted: Untrusted | None = None
    started: float = 100.0
    ended: float = 100.022
    status: int = 200
    reason: Reason | None = None
    detail: str = ""
    request_bytes: int = 0
    response_bytes: int = 256
    budget_seconds: float = 2.0
    budget_source: str = "header"
    breaker_state: State | None = State.CLOSED
    refused_by: Transition | None = None
    tripped: Transition | None = None
    fallback: str | None = None
    grpc_status: int | None = None
    tls: ClientTls | None = None
    attempts: Sequence[FakeAttempt] = (FakeAttempt(),)

    def __post_init__(self) -> None:
        """Unless a test says otherwise, attempts were begun in this order."""
        if not any(one.resend for one in self.attempts):
            self.attempts = [
                replace(one, resend=number, cause=one.cause or RetryCause.NOT_CONNECTED if number else None)
                for number, one in enumerate(self.attempts)
            ]

    @property
    def stream(self) -> FakeExchange:
        return self

    @property
    def body(self) -> FakeBody | None:
        return FakeBody(self.request_bytes) if self.request_bytes else None

    @property
    def route(self) -> FakeRoute | None:
        return None if self.route_name is None else FakeRoute(self.rewritten_target)

    @property
    def matched(self) -> FakeEntry | None:
        return None if self.match is None else FakeEntry(self.match)

    @property
    def request(self) -> Request:
        lookup = {} if self.user_agent is None else {b"user-agent": self.user_agent}
        traits = Traits(http_version=self.http_version, is_grpc=self.grpc_status is not None)
        request = Request().take(
            self.listener, self.method, self.target, self.target, self.host, [], lookup, traits=traits
        )
        request.tls = self.tls
        return request

    @property
    def trace(self) -> FakeExchange:
        return self

    @property
    def budget(self) -> Budget:
        seconds = self.budget_seconds
        return Budget().take(seconds, self.budget_source, is_spent=seconds <= 0.0, measured_seconds=seconds)


@cache
def _counting() -> Any:
    """The module, by its source: compiled, it takes the data path's own exchanges alone."""
    if not IS_COMPILED:
        return counting
    loader = SourceFileLoader("counting_by_its_source", str(Path(counting.__file__).parent / "counting.py"))
    module = module_from_spec(cast(ModuleSpec, spec_from_loader(loader.name, loader)))
    loader.exec_module(module)
    return module


def count_ended(numbers: Numbers, exchange: FakeExchange) -> None:
    """What the data path does with one that has ended."""
    _counting().count(numbers, exchange)


def transition(
    sequence: int,
    before: State,
    after: State,
    at: float = 100.0,
    causes: int = 0,
    *,
    outage: float | None = None,
    **others: Any,
) -> Transition:
    """One change of a breaker; `causes` of them each a second before the next, the last one at `at`."""
    values = {
        "reason": TransitionReason.CONSECUTIVE_FAILURES,
        "window": WindowNumbers(total=9, failed=5, slow=1, consecutive_failures=5),
        "wait_seconds": 5.0 if after is State.OPEN else None,
    } | others
    return Transition(
        sequence=sequence,
        route="checkout",
        upstream="payments",
        from_state=before,
        to_state=after,
        at=at,
        causes=tuple(cause(n, at - causes + 1 + n) for n in range(causes)),
        outage=outage,
        **values,
    )


def cause(number: int, at: float, error_type: str = "503", status: int = 503) -> Cause:
    """Every other one is sampled, the first one not."""
    ids = b"%032x" % (number + 1), b"%016x" % (number + 1), b"req-%d" % number
    return Cause(*ids, error_type, status, "10.0.0.7:8080", "ill", at, is_sampled=bool(number % 2))


def opening(sequence: int = 1, at: float = 0.0) -> Transition:
    """A breaker that opens; now, unless `at` says when."""
    now = at or time.monotonic()
    return Transition(
        sequence=sequence,
        route="checkout",
        upstream="payments",
        from_state=State.CLOSED,
        to_state=State.OPEN,
        reason=TransitionReason.CONSECUTIVE_FAILURES,
        at=now,
        outage=now,
        window=WindowNumbers(total=5, failed=5, consecutive_failures=5),
        wait_seconds=5.0,
        causes=(Cause(b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7", b"req-1"),),
    )
