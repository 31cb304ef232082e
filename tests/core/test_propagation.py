"""Contexts in other forms than W3C's: read, believed in an order, and written so that all of them agree (SPEC 6)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.propagation.chain import PropagationChain, chain_of, lines_of
from sidecar.core.propagation.datadog import MAX_TAGS_BYTES
from sidecar.core.propagation.form import MAX_PARTS, NextIds
from sidecar.core.propagation.xray import MAX_KEPT_BYTES
from sidecar.core.snapshot import Propagator
from sidecar.core.tracecontext import IdSource
from tests.support.propagators import LIBRARIES, Place, datadog, extracted, injected

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
OTHER, OUR_SPAN = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
SHORT = b"0000000000000000a3ce929d0e0e4736"
TRACEPARENT = b"00-%b-%b-01" % (OTHER, SPAN)
ALL = [Propagator.B3, Propagator.JAEGER, Propagator.XRAY, Propagator.DATADOG]
IDS = IdSource()


def chain(*names: Propagator) -> PropagationChain:
    made = chain_of((Propagator.TRACECONTEXT, *(names or ALL)))
    assert made is not None
    return made


def told(
    lookup: Mapping[bytes, bytes], *, by: PropagationChain | None = None, is_sampled: bool = True
) -> list[bytes]:
    """What goes on of a request with these fields, where this hop's span is `OUR_SPAN`."""
    joined = (by or chain()).join(lookup, IDS)
    ids = NextIds(joined.context.trace_id, OUR_SPAN, is_sampled)
    return lines_of(joined.forms, lookup, ids).split(b"\r\n")[:-1]


def fields(lines: list[bytes]) -> dict[str, str]:
    return dict(line.decode("latin-1").split(": ", 1) for line in lines)


def as_lookup(written: Mapping[str, str]) -> dict[bytes, bytes]:
    return {name.lower().encode(): value.encode("latin-1") for name, value in written.items()}


# The real libraries


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("is_sampled", [True, False])
@pytest.mark.parametrize("trace_id", [TRACE, SHORT])
def test_what_a_library_writes_is_read_and_what_is_written_it_reads(
    library: str, is_sampled: bool, trace_id: bytes
) -> None:
    came = as_lookup(injected(library, Place(trace_id, SPAN, is_sampled)))
    joined = chain().join(came, IDS)
    assert (joined.context.trace_id, joined.context.parent_id) == (trace_id, SPAN)
    assert joined.is_sampled is is_sampled

    written = fields(told(came, is_sampled=is_sampled))
    assert extracted(library, written) == Place(trace_id, OUR_SPAN, is_sampled)
    assert {name.encode() for name in written} == set(came)


@pytest.mark.skipif(find_spec("ddtrace") is None, reason="ddtrace is not installed")
def test_datadogs_own_library_agrees() -> None:
    high_and_low = int(TRACE, 16), int(SPAN, 16)
    places = [(*high_and_low, 2, {"_dd.p.dm": "-4"}), (int(SHORT, 16), int(SPAN, 16), -1, {})]
    _, (kept, dropped) = datadog([], places)

    joined = chain().join(as_lookup(kept), IDS)
    assert (joined.context.trace_id, joined.context.parent_id, joined.is_sampled) == (TRACE, SPAN, True)
    short = chain().join(as_lookup(dropped), IDS)
    assert (short.context.trace_id, short.context.parent_id, short.is_sampled) == (SHORT, SPAN, False)

    ours = [fields(told(as_lookup(kept))), fields(told(as_lookup(dropped), is_sampled=False))]
    (first, second), _ = datadog(ours, [])
    assert first[:3] == (int(TRACE, 16), int(OUR_SPAN, 16), 2)
    assert first[3] == {"_dd.p.tid": TRACE[:16].decode(), "_dd.p.dm": "-4"}
    assert second[:3] == (int(SHORT, 16), int(OUR_SPAN, 16), -1)


# Each form's own rules


@pytest.mark.parametrize(
    ("came", "sampled", "goes_on"),
    [
        ({b"b3": b"%b-%b-1-%b" % (TRACE, SPAN, SPAN)}, True, [b"b3: %b-%b-1" % (TRACE, OUR_SPAN)]),
        ({b"b3": b"%b-%b-d" % (TRACE, SPAN)}, True, [b"b3: %b-%b-d" % (TRACE, OUR_SPAN)]),
        ({b"b3": b"%b-%b" % (TRACE.upper(), SPAN)}, None, [b"b3: %b-%b-1" % (TRACE, OUR_SPAN)]),
        ({b"b3": b"%b-%b-1" % (TRACE[16:], SPAN)}, True, [b"b3: %b-%b-1" % (TRACE[16:], OUR_SPAN)]),
        (
            {
                b"x-b3-traceid": TRACE,
                b"x-b3-spanid": SPAN,
                b"x-b3-sampled": b"true",
                b"x-b3-parentspanid": SPAN,
            },
            True,
            [b"x-b3-traceid: " + TRACE, b"x-b3-spanid: " + OUR_SPAN, b"x-b3-sampled: 1"],
        ),
        (
            {b"x-b3-traceid": TRACE, b"x-b3-spanid": SPAN, b"x-b3-flags": b"1"},
            True,
            [b"x-b3-traceid: " + TRACE, b"x-b3-spanid: " + OUR_SPAN, b"x-b3-flags: 1"],
        ),
        (
            {b"uber-trace-id": b"%b%%3A%b%%3A0%%3A3" % (TRACE, SPAN)},
            True,
            [b"uber-trace-id: %b:%b:0:3" % (TRACE, OUR_SPAN)],
        ),
        (
            {b"x-amzn-trace-id": b"Root=1-%b-%b;Sampled=?;Lineage=a:0" % (TRACE[:8], TRACE[8:])},
            None,
            [
                b"x-amzn-trace-id: Root=1-%b-%b;Parent=%b;Sampled=1;Lineage=a:0"
                % (TRACE[:8], TRACE[8:], OUR_SPAN)
            ],
        ),
    ],
)
def test_a_form_goes_on_as_it_came(
    came: dict[bytes, bytes], sampled: bool | None, goes_on: list[bytes]
) -> None:
    joined = chain().join(came, IDS)
    assert joined.context.trace_id[16:] == TRACE[16:]
    assert joined.is_sampled is sampled
    assert told(came) == goes_on


@pytest.mark.parametrize(
    "came",
    [
        {b"b3": b"0"},
        {b"x-b3-sampled": b"0"},
        {b"x-b3-sampled": b"false"},
        {b"x-datadog-sampling-priority": b"-1"},
        {b"x-datadog-sampling-priority": b"0"},
        {b"x-amzn-trace-id": b"Sampled=0"},
        {b"b3": b"1", b"x-datadog-sampling-priority": b"0"} | {b"b3": b"0"},
    ],
)
def test_a_decision_without_ids_holds_for_the_trace_begun_here(came: dict[bytes, bytes]) -> None:
    joined = chain().join(came, IDS)
    assert joined.context.parent_id is None
    assert joined.is_sampled is False


@pytest.mark.parametrize(
    "came",
    [
        {b"b3": b"%b-%b-1" % (b"0" * 32, SPAN)},
        {b"b3": b"%b-%b-1" % (TRACE[1:], SPAN)},
        {b"b3": b"%b-%b-1, %b-%b-1" % (TRACE, SPAN, TRACE, SPAN)},
        {b"x-b3-traceid": TRACE},
        {b"uber-trace-id": b"0:1:0:1"},
        {b"uber-trace-id": b"%b0:1:0:1" % TRACE},
        {b"uber-trace-id": b"%b:%b:0" % (TRACE, SPAN)},
        {b"x-amzn-trace-id": b"Root=2-%b-%b;Parent=%b" % (TRACE[:8], TRACE[8:], SPAN)},
        {b"x-datadog-trace-id": b"0", b"x-datadog-parent-id": b"1"},
        {b"x-datadog-trace-id": b"%d" % (1 << 64), b"x-datadog-parent-id": b"1"},
        {b"x-datadog-trace-id": b"12a", b"x-datadog-parent-id": b"1"},
    ],
)
def test_an_invalid_one_begins_a_trace_and_is_written_anew(came: dict[bytes, bytes]) -> None:
    joined = chain().join(came, IDS)
    assert joined.context.parent_id is None
    assert joined.context.trace_id not in (TRACE, SHORT, b"0" * 32)
    again = chain().join(as_lookup(fields(told(came))), IDS)
    assert again.context.parent_id == OUR_SPAN


def test_a_priority_of_a_person_stays_and_a_decision_that_differs_is_ours() -> None:
    came = {b"x-datadog-trace-id": b"5", b"x-datadog-parent-id": b"6", b"x-datadog-sampling-priority": b"2"}
    assert fields(told(came))["x-datadog-sampling-priority"] == "2"
    assert fields(told(came, is_sampled=False))["x-datadog-sampling-priority"] == "0"


def test_what_is_kept_of_a_form_is_bounded() -> None:
    tags = b",".join(b"_dd.p.k%d=%b" % (one, b"v" * 60) for one in range(20))
    came = {b"x-datadog-trace-id": b"5", b"x-datadog-parent-id": b"6", b"x-datadog-tags": tags}
    kept = fields(told(came))["x-datadog-tags"]
    assert 0 < len(kept) <= MAX_TAGS_BYTES
    assert all(tag in tags.decode() for tag in kept.split(","))

    parts = b";".join(b"K%d=%b" % (one, b"v" * 60) for one in range(9))
    line = told({b"x-amzn-trace-id": b"Root=1-%b-%b;" % (TRACE[:8], TRACE[8:]) + parts})[0]
    assert line.count(b";K") == MAX_KEPT_BYTES // 64


# Their order


@pytest.mark.parametrize("before", [0, MAX_PARTS - 1, MAX_PARTS, 30_000])
def test_parts_beyond_the_bound_are_not_looked_at(before: int) -> None:
    """A head of 60 KB of separators would take the loop for 14 ms."""
    is_seen = before < MAX_PARTS
    root = b"Root=1-%b-%b" % (TRACE[:8], TRACE[8:])
    came = chain().join({b"x-amzn-trace-id": before * b"=;" + root}, IDS)
    assert (came.context.trace_id == TRACE) is is_seen
    tags = {b"x-datadog-trace-id": b"5", b"x-datadog-tags": before * b"," + b"_dd.p.tid=" + TRACE[:16]}
    assert (chain().join(tags, IDS).context.trace_id[:16] == TRACE[:16]) is is_seen


def test_the_first_valid_one_in_the_configured_order_is_believed_and_the_rest_agree() -> None:
    came = {
        b"traceparent": TRACEPARENT,
        b"tracestate": b"sidecar=" + OUR_SPAN + b",a=1",
        b"b3": b"%b-%b-0" % (TRACE, SPAN),
        b"uber-trace-id": b"%b:%b:0:1" % (TRACE, SPAN),
    }
    first = chain().join(came, IDS)
    assert (first.context.trace_id, first.is_sampled, first.context.tracestate) == (OTHER, True, b"a=1")
    assert told(came) == [
        b"b3: %b-%b-1" % (OTHER, OUR_SPAN),
        b"uber-trace-id: %b:%b:0:1" % (OTHER, OUR_SPAN),
    ]

    turned = chain_of((Propagator.B3, Propagator.TRACECONTEXT, Propagator.JAEGER))
    assert turned is not None
    second = turned.join(came, IDS)
    assert (second.context.trace_id, second.is_sampled) == (TRACE, False)
    assert second.context.tracestate == b"", "it belongs to the other trace"
    assert second.context.own_member == OUR_SPAN, "whose call it is does not depend on its trace"


def test_traceparent_that_is_not_named_is_believed_last_and_the_first_form_is_always_written() -> None:
    by = chain_of((Propagator.JAEGER, Propagator.B3_MULTI))
    assert by is not None
    assert by.always is not None
    assert told({}, by=by)[0].startswith(b"uber-trace-id: ")
    alone = {b"traceparent": TRACEPARENT}
    assert by.join(alone, IDS).context.trace_id == OTHER
    assert told(alone, by=by) == [b"uber-trace-id: %b:%b:0:1" % (OTHER, OUR_SPAN)]
    both = alone | {b"b3": b"%b-%b-1" % (TRACE, SPAN)}
    assert by.join(both, IDS).context.trace_id == TRACE


def test_an_app_with_b3_in_several_fields_is_told_so() -> None:
    by = chain_of((Propagator.B3_MULTI,))
    assert by is not None
    assert [line.partition(b":")[0] for line in told({}, by=by)] == [
        b"x-b3-traceid",
        b"x-b3-spanid",
        b"x-b3-sampled",
    ]


@pytest.mark.parametrize("names", [(), (Propagator.TRACECONTEXT,), (Propagator.BAGGAGE,)])
def test_w3cs_form_alone_needs_no_chain(names: tuple[Propagator, ...]) -> None:
    assert chain_of(names) is None


_TEXT = st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f")
_BYTES = st.text(_TEXT, max_size=60).map(lambda text: text.encode("latin-1").strip()) | st.sampled_from(
    [TRACE, SPAN, b"0", b"1", b"d", b"-1", b"1:1:0:1"]
)


@given(st.dictionaries(st.sampled_from(sorted(chain().fields)), _BYTES))
@example({b"x-datadog-trace-id": b"1" * 20, b"x-datadog-tags": b"_dd.p.tid=,,=,_dd.p.tid=" + b"0" * 16})
@example({b"x-amzn-trace-id": b";;=;Root;Parent=;Root=1-00000000-000000000000000000000000"})
def test_whatever_comes_what_goes_on_is_one_context_that_all_forms_agree_on(
    came: dict[bytes, bytes],
) -> None:
    joined = chain().join(came, IDS)
    trace_id = joined.context.trace_id
    for form in joined.forms:
        written = form.lines(came, NextIds(trace_id, OUR_SPAN, True))
        again = form.read(as_lookup(fields(written.split(b"\r\n")[:-1])))
        assert again == (trace_id, OUR_SPAN, True)
        assert form.fields >= {line.partition(b": ")[0] for line in written.split(b"\r\n")[:-1]}
