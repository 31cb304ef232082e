"""Golden traces of outages: names, parents, times, status, events and links, read back from the wire format."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from sidecar.core.errors import Reason
from sidecar.core.override import Order, Override
from sidecar.core.transition import State, Transition, TransitionReason, WindowNumbers
from sidecar.telemetry import outages
from sidecar.telemetry.span_shape import SpanShaper
from sidecar.telemetry.spans import Ending, SpanRecorder, TransitionIds
from tests.telemetry.fakes import FakeExchange, cause, transition

IDS = TransitionIds(b"k" * 16)
OFFSET_NS = 1_700_000_000_000_000_000
CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
SAMPLED, HERE = 0x101, 0x100
BEGAN = 10.0


class Told:
    """A process that exports: records go in, spans come out in their order."""

    def __init__(self) -> None:
        self.recorder = SpanRecorder(capacity=100, wake_at=100, wake=lambda: None)
        self.shaper = SpanShaper(IDS)

    def __call__(self, *steps: Transition | Ending) -> list[Span]:
        for step in steps:
            if isinstance(step, Ending):
                self.recorder.end(step)
            else:
                self.recorder.transitioned(step)
        encoded = []
        while self.recorder.events:
            encoded += self.shaper.event_spans(self.recorder.events.popleft(), OFFSET_NS)
        while self.recorder.exchanges:
            encoded += self.shaper.exchange_spans(self.recorder.exchanges.popleft(), OFFSET_NS)
        return list(ScopeSpans.FromString(b"".join(encoded)).spans)


def step(number: int, before: State, after: State, at: float, **others: Any) -> Transition:
    return transition(number, before, after, at, outage=BEGAN, **others)


def opened(causes: int = 3, **others: Any) -> Transition:
    return step(1, CLOSED, OPEN, BEGAN, causes=causes, rejected=4, **others)


def asked(number: int, at: float) -> Transition:
    return step(number, OPEN, HALF_OPEN, at, reason=TransitionReason.WAIT_ELAPSED)


def failed(number: int, at: float, **others: Any) -> Transition:
    return step(number, HALF_OPEN, OPEN, at, causes=1, reason=TransitionReason.PROBE_FAILED, **others)


def closed(number: int, at: float, **others: Any) -> Transition:
    one = step(number, HALF_OPEN, CLOSED, at, reason=TransitionReason.PROBE_SUCCEEDED, **others)
    return replace(one, causes=(cause(1, at - 0.25, "", 200),))


def attributes(item: Any) -> dict[str, Any]:
    found = {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in item.attributes}
    assert len(found) == len(item.attributes), "each key appears once"
    return found


def times(span: Span) -> tuple[float, float]:
    """In seconds of the monotonic clock."""
    return (span.start_time_unix_nano - OFFSET_NS) / 1e9, (span.end_time_unix_nano - OFFSET_NS) / 1e9


def ids(item: Any) -> tuple[bytes, bytes]:
    return item.trace_id, item.span_id


def test_an_outage_is_one_trace_a_staircase_of_waits_and_probes() -> None:
    spans = Told()(opened(), asked(2, 15.0), failed(3, 16.0), asked(4, 26.0), closed(5, 27.0, rejected=11))
    assert [(span.name, times(span)) for span in spans] == [
        ("circuit_breaker.opened checkout", (8.0, 10.0)),
        ("circuit_breaker.wait", (10.0, 15.0)),
        ("circuit_breaker.probe", (15.0, 16.0)),
        ("circuit_breaker.wait", (16.0, 26.0)),
        ("circuit_breaker.probe", (26.0, 26.75)),
        ("circuit_breaker.outage checkout", (10.0, 27.0)),
    ]
    root = spans[0]
    assert root.parent_span_id == b""
    assert {span.parent_span_id for span in spans[1:]} == {root.span_id}
    assert {span.trace_id for span in spans} == {root.trace_id}
    assert len({span.span_id for span in spans}) == len(spans)


def test_each_span_of_an_outage_is_one_that_tail_sampling_keeps() -> None:
    spans = Told()(opened(), asked(2, 15.0), failed(3, 16.0), asked(4, 26.0), closed(5, 27.0))
    for span in spans:
        told = attributes(span)
        assert (span.kind, span.status.code) == (Span.SPAN_KIND_INTERNAL, Status.STATUS_CODE_ERROR)
        assert (told["sidecar.route"], told["sidecar.upstream"]) == ("checkout", "payments")
        assert told["sidecar.outage.id"] == spans[0].trace_id.hex()
        assert span.flags == SAMPLED


def test_the_root_is_told_at_once_with_its_causes_as_events_and_links() -> None:
    (root,) = Told()(opened())
    assert root.status.message == "3 × 503 10.0.0.7:8080"
    assert [(event.name, (event.time_unix_nano - OFFSET_NS) / 1e9) for event in root.events] == [
        ("circuit_breaker.cause", 8.0),
        ("circuit_breaker.cause", 9.0),
        ("circuit_breaker.cause", 10.0),
    ]
    told = {
        "sidecar.request_id": "req-2",
        "error.type": "503",
        "http.response.status_code": 503,
        "sidecar.endpoint": "10.0.0.7:8080",
        "sidecar.detail": "ill",
    }
    assert attributes(root.events[-1]) == attributes(root.links[-1]) == told
    assert [link.flags for link in root.links] == [HERE, SAMPLED, HERE], "as each cause was sampled"
    assert attributes(root) == {
        "sidecar.circuit_breaker.name": "checkout/payments",
        "sidecar.circuit_breaker.state.from": "closed",
        "sidecar.circuit_breaker.state.to": "open",
        "sidecar.circuit_breaker.reason": "consecutive_failures",
        "sidecar.circuit_breaker.sequence": 1,
        "sidecar.circuit_breaker.wait_ms": 5000,
        "sidecar.circuit_breaker.window.total": 9,
        "sidecar.circuit_breaker.window.failed": 5,
        "sidecar.circuit_breaker.window.slow": 1,
        "sidecar.circuit_breaker.why": "3 × 503 10.0.0.7:8080",
        "sidecar.outage.id": root.trace_id.hex(),
        "sidecar.outage.more_causes": 2,
        "sidecar.route": "checkout",
        "sidecar.upstream": "payments",
    }


def test_of_many_causes_32_are_told_and_the_rest_are_counted() -> None:
    window = WindowNumbers(total=200, failed=100, silent=7)
    (root,) = Told()(opened(40, window=window, reason=TransitionReason.FAILURE_RATE))
    assert len(root.events) == len(root.links) == 32
    assert attributes(root.events[-1])["sidecar.request_id"] == "req-39"
    assert attributes(root)["sidecar.outage.more_causes"] == 107 - 32


def test_a_probe_says_who_it_was_and_what_it_found() -> None:
    spans = Told()(opened(), asked(2, 15.0), failed(3, 16.0), asked(4, 26.0), closed(5, 27.0))
    bad, good = spans[2], spans[4]
    base = {
        "sidecar.circuit_breaker.name": "checkout/payments",
        "sidecar.endpoint": "10.0.0.7:8080",
        "sidecar.outage.id": spans[0].trace_id.hex(),
        "sidecar.route": "checkout",
        "sidecar.upstream": "payments",
    }
    assert attributes(bad) == base | {
        "error.type": "503",
        "http.response.status_code": 503,
        "sidecar.circuit_breaker.reason": "probe_failed",
        "sidecar.request_id": "req-0",
    }
    assert attributes(good) == base | {
        "http.response.status_code": 200,
        "sidecar.circuit_breaker.reason": "probe_succeeded",
        "sidecar.request_id": "req-1",
    }
    assert [span.status.message for span in (bad, good)] == ["503", "200"]
    assert [(link.span_id.hex(), link.flags) for span in (bad, good) for link in span.links] == [
        (f"{1:016x}", HERE),
        (f"{2:016x}", SAMPLED),
    ]


def test_a_probe_of_which_nothing_was_heard_is_shown_all_the_same() -> None:
    ended = step(3, HALF_OPEN, OPEN, 45.0, reason=TransitionReason.PROBE_TIMEOUT)
    probe = Told()(opened(), asked(2, 15.0), ended)[-1]
    assert (probe.name, times(probe), list(probe.links)) == ("circuit_breaker.probe", (15.0, 45.0), [])
    assert attributes(probe)["sidecar.circuit_breaker.reason"] == "probe_timeout"


def test_the_end_has_the_numbers() -> None:
    whole = Told()(opened(), asked(2, 15.0), failed(3, 16.0), asked(4, 26.0), closed(5, 27.0, rejected=11))[
        -1
    ]
    assert attributes(whole) == {
        "sidecar.circuit_breaker.name": "checkout/payments",
        "sidecar.circuit_breaker.reason": "probe_succeeded",
        "sidecar.circuit_breaker.state.to": "closed",
        "sidecar.outage.ended": True,
        "sidecar.outage.id": whole.trace_id.hex(),
        "sidecar.outage.probed": 2,
        "sidecar.outage.refused": 7,
        "sidecar.route": "checkout",
        "sidecar.upstream": "payments",
    }


def test_an_outage_that_outlives_the_process_is_shown_as_far_as_it_came() -> None:
    told = Told()
    told(opened())
    wait, whole = told(Ending(25.0, {("checkout", "payments"): 10}))
    assert (wait.name, times(wait)) == ("circuit_breaker.wait", (10.0, 25.0))
    assert (whole.name, times(whole)) == ("circuit_breaker.outage checkout", (10.0, 25.0))
    assert attributes(whole)["sidecar.outage.ended"] is False
    assert attributes(whole)["sidecar.outage.refused"] == 6
    assert told(Ending(26.0, {})) == []


def test_waits_of_the_longest_kind_are_joined_for_ten_minutes() -> None:
    told = Told()
    told(opened())
    shown = []
    at, number = 10.0, 2
    told(asked(2, 15.0))
    while at < 1500.0:
        at, number = at + 61.0, number + 2
        shown += told(failed(number, at, is_longest_wait=True), asked(number + 1, at + 60.0))
    waits = [span for span in shown if span.name == "circuit_breaker.wait"]
    lengths = [until - since for since, until in map(times, waits)]
    assert len(waits) == 2
    assert all(600.0 <= length < 600.0 + 61.0 + 60.0 for length in lengths)
    assert [attributes(wait)["sidecar.outage.waits"] for wait in waits] == [10, 10]
    assert sum(span.name == "circuit_breaker.probe" for span in shown) == 25


def test_the_last_joined_waits_are_shown_when_the_outage_ends() -> None:
    longest = opened(is_longest_wait=True)
    spans = Told()(longest, asked(2, 70.0), closed(3, 71.0))
    assert [span.name.split()[0] for span in spans] == [
        "circuit_breaker.opened",
        "circuit_breaker.probe",
        "circuit_breaker.wait",
        "circuit_breaker.outage",
    ]


def test_an_override_is_an_event_and_a_span_that_links_to_the_outage() -> None:
    order = Order(Override.OPEN, 12.0, 1812.0, "ada@bastion")
    forced = step(2, OPEN, State.FORCED_OPEN, 12.0, reason=TransitionReason.FORCED, order=order)
    ended = Order(Override.AUTO, 12.0, None, "ada@bastion")
    let_go = step(3, State.FORCED_OPEN, CLOSED, 20.0, reason=TransitionReason.FORCED, order=ended)
    root, wait, began, whole, over = Told()(opened(), forced, let_go)
    assert (wait.name, times(wait)) == ("circuit_breaker.wait", (10.0, 12.0))
    assert [span.name for span in (began, over)] == ["circuit_breaker.transition"] * 2
    for span in (began, over):
        assert span.parent_span_id == b""
        assert [ids(link) for link in span.links] == [ids(root)]
        assert [link.flags for link in span.links] == [SAMPLED]
    assert [(event.name, event.time_unix_nano - OFFSET_NS) for event in whole.events] == [
        ("circuit_breaker.override", 12_000_000_000),
        ("circuit_breaker.override", 20_000_000_000),
    ]
    assert attributes(whole.events[0])["sidecar.circuit_breaker.why"] == "by ada@bastion for 30m"
    assert times(whole) == (10.0, 20.0)


def test_of_many_overrides_32_are_told_and_the_rest_are_counted() -> None:
    told = Told()
    told(opened())
    order = Order(Override.OPEN, 12.0, None, "ada")
    for number in range(outages.MAX_OVERRIDES + 3):
        told(
            step(
                2 + number,
                OPEN,
                State.FORCED_OPEN,
                12.0 + number,
                reason=TransitionReason.FORCED,
                order=order,
            )
        )
    (whole,) = told(Ending(100.0, {}))
    assert len(whole.events) == outages.MAX_OVERRIDES
    assert attributes(whole)["sidecar.outage.more_overrides"] == 3


def test_what_is_opened_by_hand_is_no_outage() -> None:
    order = Order(Override.OPEN, 10.0, None, "ada")
    forced = transition(1, CLOSED, State.FORCED_OPEN, 10.0, reason=TransitionReason.FORCED, order=order)
    (span,) = Told()(forced)
    assert (span.name, list(span.links)) == ("circuit_breaker.transition", [])


def test_an_outage_of_an_hour_goes_on_in_another_trace_linked_both_ways() -> None:
    spans = Told()(opened(), asked(2, 15.0), failed(3, BEGAN + 3600.0), asked(4, 3700.0), closed(5, 3701.0))
    assert [span.name for span in spans[3:]] == [
        "circuit_breaker.outage checkout",
        "circuit_breaker.opened checkout",
        "circuit_breaker.wait",
        "circuit_breaker.probe",
        "circuit_breaker.outage checkout",
    ]
    first, root, *rest = spans[3:]
    assert attributes(first)["sidecar.outage.ended"] is False
    assert [ids(link) for link in first.links] == [ids(root)]
    assert [ids(link) for link in root.links] == [ids(spans[0])]
    assert root.trace_id != first.trace_id
    assert {span.trace_id for span in rest} == {root.trace_id}
    assert {attributes(span)["sidecar.outage.id"] for span in spans} == {spans[0].trace_id.hex()}


def test_a_trace_has_200_spans_at_most() -> None:
    told = Told()
    spans = told(opened())
    for number in range(2, 500, 2):
        at = BEGAN + number
        spans += told(asked(number, at), failed(number + 1, at + 1))
    sizes: dict[bytes, int] = {}
    for span in spans:
        sizes[span.trace_id] = sizes.get(span.trace_id, 0) + 1
    assert len(sizes) == 3
    assert max(sizes.values()) <= outages.MAX_SPANS + 1, "and the bar over them"


def test_refused_requests_link_to_the_root_also_after_failed_probes() -> None:
    told = Told()
    (root,) = told(opened())
    refusing = failed(3, 16.0)
    told(asked(2, 15.0), refusing)
    for refused_by in (opened(), refusing):
        told.recorder.finished(
            FakeExchange(refused_by=refused_by, status=503, reason=Reason.CIRCUIT_OPEN, attempts=())
        )
    for refused in told():
        assert [ids(link) for link in refused.links] == [ids(root)]
        assert [link.flags for link in refused.links] == [SAMPLED]


def test_the_exchange_that_tripped_it_has_the_event_and_a_link() -> None:
    told = Told()
    (root,) = told(opened())
    told.recorder.finished(FakeExchange(tripped=opened(), attempts=()))
    (tripping,) = told()
    (event,) = tripping.events
    assert (event.name, event.time_unix_nano) == ("circuit_breaker.transition", OFFSET_NS + 10_000_000_000)
    assert attributes(event)["sidecar.circuit_breaker.reason"] == "consecutive_failures"
    assert attributes(event)["sidecar.circuit_breaker.why"] == "3 × 503 10.0.0.7:8080"
    assert [ids(link) for link in tripping.links] == [ids(root)]


def test_a_breaker_that_a_reload_made_anew_ends_the_outage_of_its_predecessor() -> None:
    told = Told()
    (root,) = told(opened())
    whole, other = told(transition(1, CLOSED, OPEN, 50.0, causes=1, outage=50.0))
    assert (whole.name, times(whole)) == ("circuit_breaker.outage checkout", (10.0, 50.0))
    assert attributes(whole)["sidecar.outage.ended"] is False
    assert "sidecar.outage.refused" not in attributes(whole)
    assert other.trace_id != root.trace_id == whole.trace_id


def test_an_outage_whose_beginning_was_lost_is_shown_from_there_on() -> None:
    told = Told()
    assert told(asked(2, 15.0)) == []
    probe, whole = told(closed(3, 16.0))
    assert [span.name for span in (probe, whole)] == [
        "circuit_breaker.probe",
        "circuit_breaker.outage checkout",
    ]
    assert (probe.trace_id, probe.parent_span_id) == IDS.of_outage("checkout", "payments", BEGAN)


def test_outages_are_bounded() -> None:
    told = Told()
    for number in range(outages.MAX_OUTAGES + 5):
        told(replace(opened(0), route=f"route-{number}"))
    assert len(told(Ending(20.0, {}))) == 2 * outages.MAX_OUTAGES


def test_processes_with_one_secret_agree_on_ids() -> None:
    others = TransitionIds(b"other secret 123")
    assert TransitionIds(b"k" * 16).of(opened()) == IDS.of(opened())
    assert TransitionIds(b"k" * 16).cause_of(opened()) == IDS.cause_of(failed(3, 16.0))
    assert others.of(opened()) != IDS.of(opened())
    assert IDS.of(asked(2, 15.0)) != IDS.of(opened())
    assert IDS.of(replace(opened(), at=99.0)) != IDS.of(opened()), "a breaker of that name that a reload made"
