"""Apps that hand contexts on in other forms than W3C's: their calls are known by trace id, and are never cancelled.

The apps use the real libraries; Datadog's fields are written by hand here (`tests/core` asks its library).
"""

from __future__ import annotations

import pytest

from sidecar.core.propagation.chain import chain_of
from sidecar.core.snapshot import Propagator
from sidecar.core.ties import told
from sidecar.core.tracecontext import IdSource
from tests.scenarios.pod import OK, App, Pod, answering_after, hanging, pod
from tests.support.propagators import LIBRARIES, Place, extracted, injected
from tests.support.raw import Request

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
ONE_SECOND = b"x-request-timeout-ms: 1000"
_IDS = IdSource()


def lines(library: str, place: Place) -> list[bytes]:
    """The fields of a library, or those of Datadog."""
    if library == "datadog":
        high, low = place.trace_id[:16], int(place.trace_id[16:], 16)
        return [
            b"x-datadog-trace-id: %d" % low,
            b"x-datadog-parent-id: %d" % int(place.span_id, 16),
            b"x-datadog-sampling-priority: %d" % place.is_sampled,
            b"x-datadog-tags: _dd.p.tid=" + high,
        ]
    return [f"{name}: {value}".encode() for name, value in injected(library, place).items()]


def understood(library: str, request: Request) -> Place | None:
    """Where the app's library says that the request belongs."""
    if library != "datadog":
        return extracted(library, {name.decode(): value.decode() for name, value in request.fields})
    tags = request.value(b"x-datadog-tags") or b""
    low = b"%016x" % int(request.value(b"x-datadog-trace-id") or 0)
    parent = b"%016x" % int(request.value(b"x-datadog-parent-id") or 0)
    is_sampled = int(request.value(b"x-datadog-sampling-priority") or 0) > 0
    return Place(tags.partition(b"_dd.p.tid=")[2][:16] + low, parent, is_sampled)


def using(library: str, seen: list[Place]) -> App:
    """An app that calls once, in a span of its own that its library hands on."""

    def forward(request: Request) -> list[bytes]:
        place = understood(library, request)
        assert place is not None
        seen.append(place)
        return lines(library, place._replace(span_id=_IDS.span_id()))

    async def app(at: Pod, request: Request) -> bytes:
        await at.call(request, forward=forward)
        return OK

    return app


def believe(at: Pod, *names: Propagator) -> None:
    at.worker.service.propagation = chain_of(names)


@pytest.mark.parametrize("library", [*LIBRARIES, "datadog"])
@pytest.mark.parametrize("is_sampled", [True, False])
async def test_a_call_by_the_library_alone_gets_what_is_left_and_is_in_the_trace(
    library: str, is_sampled: bool
) -> None:
    seen: list[Place] = []
    async with pod(using(library, seen), answering_after(0.0)) as at:
        believe(at, Propagator.TRACECONTEXT, *map(Propagator, (library,)))
        response = await at.ask(ONE_SECOND, *lines(library, Place(TRACE, SPAN, is_sampled)))
        assert response.status == 200
        ties = at.worker.service.callers.ties
        assert (ties.tied, ties.by_trace_alone, ties.untied) == (1, 1, 0)

    (app,), (call,) = at.served, at.calls
    span_of_app = (app.value(b"traceparent") or b"").split(b"-")[2]
    assert seen == [Place(TRACE, span_of_app, is_sampled)], "the app's parent is this sidecar's span"
    assert at.budgets == pytest.approx([990], abs=1)
    further = understood(library, call)
    assert further is not None
    flags = b"01" if is_sampled else b"00"
    assert call.value(b"traceparent") == b"00-%b-%b-%b" % (TRACE, further.span_id, flags)
    assert (further.trace_id, further.is_sampled) == (TRACE, is_sampled)


async def test_a_client_that_leaves_does_not_cancel_a_call_that_is_known_by_its_trace_id() -> None:
    seen: list[Place] = []
    async with pod(using("b3", seen), hanging) as at:
        async with at.asking(ONE_SECOND, *lines("b3", Place(TRACE, SPAN, True))):
            await at.until(lambda: bool(at.calls))
        await at.until(lambda: not at.worker.listeners["inbound"].connection_count)
        assert len(at.live_calls) == 1
        await at.until(lambda: bool(at.answers))
    assert at.answers[0].at == pytest.approx(0.99, abs=0.01), "the deadline ended it"


async def test_status_says_that_calls_are_known_by_their_trace_ids_alone() -> None:
    async with pod(using("b3", []), answering_after(0.0)) as at:
        ties = at.worker.service.callers.ties
        assert told(ties) is None
        await at.ask(*lines("b3", Place(TRACE, SPAN, True)))
        assert "not cancelled" in (told(ties) or "")
        await at.ask(*lines("b3", Place(TRACE, SPAN, True)), b"traceparent: 00-%b-%b-01" % (TRACE, SPAN))
        assert (ties.tied, ties.by_trace_alone) == (2, 2)


async def test_a_trace_that_begins_here_reaches_an_app_that_reads_no_traceparent() -> None:
    seen: list[Place] = []
    async with pod(using("jaeger", seen), answering_after(0.0)) as at:
        believe(at, Propagator.JAEGER)
        await at.ask(ONE_SECOND)
        assert at.worker.service.callers.ties.tied == 1
    assert (at.served[0].value(b"traceparent") or b"").split(b"-")[1] == seen[0].trace_id


async def test_a_mirrors_copy_carries_its_own_ids_in_every_form() -> None:
    async def app(at: Pod, request: Request) -> bytes:
        return OK

    async with pod(app, answering_after(0.0), inbound="mirror: {upstream: service}") as at:
        await at.ask(*lines("b3", Place(TRACE, SPAN, True)))
        await at.until(lambda: bool(at.calls))
    copy = understood("b3", at.calls[0])
    assert copy is not None
    assert copy.trace_id != TRACE
    assert (at.calls[0].value(b"traceparent") or b"").split(b"-")[1:3] == [copy.trace_id, copy.span_id]


async def test_where_the_route_sets_a_field_of_a_form_the_form_is_the_routes() -> None:
    async def app(at: Pod, request: Request) -> bytes:
        return OK

    async with pod(app, inbound="request_headers: {set: {b3: '0'}}") as at:
        await at.ask(*lines("b3", Place(TRACE, SPAN, True)))
    assert [value for name, value in at.served[0].fields if name.lower() == b"b3"] == [b"0"]


async def test_a_stranger_is_linked_to_by_whatever_form_and_believed_in_none() -> None:
    async with pod(using("b3", []), answering_after(0.0), trust="none") as at:
        believe(at, Propagator.B3)
        live = at.worker.service.exchanges
        seen = []

        async def app_is_asked() -> None:
            await at.until(lambda: bool(live))

        async with at.asking(ONE_SECOND, *lines("b3", Place(TRACE, SPAN, True))):
            await app_is_asked()
            seen = [one.trace.untrusted for one in live if one.request.listener == "inbound"]
            await at.until(lambda: at.finished == 1)
    assert [(one.trace_id, one.span_id) for one in seen if one] == [(TRACE, SPAN)]
    app = understood("b3", at.served[0])
    assert app is not None
    assert app.trace_id != TRACE


async def test_by_default_b3_is_read_and_other_forms_go_on_as_they_are() -> None:
    async with pod(using("b3", []), answering_after(0.0)) as at:
        theirs = lines("jaeger", Place(TRACE, SPAN, True))
        await at.ask(*theirs, *lines("b3", Place(TRACE, SPAN, True)))
    (app,) = at.served
    assert b"uber-trace-id: " + (app.value(b"uber-trace-id") or b"") == theirs[0]
    assert (app.value(b"b3") or b"").startswith(TRACE)
    assert app.value(b"b3") != b"%b-%b-1" % (TRACE, SPAN)
