"""What W3C's own suite asks of a service by Trace Context level 2, each of its 41 tests by name, as data.

https://github.com/w3c/trace-context/tree/main/test sends each request to a service and looks at the trace fields
of the call that the service makes. A proxy is such a service, and so is the reader in the core.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TRACE = b"12345678901234567890123456789012"
PARENT = b"1234567890123456"
SAMPLED = b"00-" + TRACE + b"-" + PARENT + b"-01"
NOT_SAMPLED = b"00-" + TRACE + b"-" + PARENT + b"-00"

Lines = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class TraceCase:
    """One test of the suite with all its requests, and what each comes to."""

    name: str
    requests: tuple[Lines, ...]
    """The trace fields of each request, by name and value."""
    is_continued: tuple[bool, ...]
    """For each request: the trace id goes on, or a new one begins."""
    passed_on: tuple[bytes, ...]
    """For each request: the members of other vendors that the next hop sees."""
    times: int = field(default=1)
    """How often each request is made; no two of them may show the same parent id."""

    def __str__(self) -> str:
        return self.name


def _parents(name: str, *values: bytes, goes_on: bool, times: int = 1) -> TraceCase:
    """A case of requests with one `traceparent` each."""
    requests = tuple(((b"traceparent", value),) for value in values)
    return TraceCase(name, requests, (goes_on,) * len(values), (b"",) * len(values), times)


def _states(name: str, *requests: tuple[bytes, ...], passed_on: tuple[bytes, ...]) -> TraceCase:
    """A case of requests with a valid `traceparent` and some fields `tracestate`, one for each value."""
    lines = tuple(
        ((b"traceparent", NOT_SAMPLED), *((b"tracestate", value) for value in request))
        for request in requests
    )
    return TraceCase(name, lines, (True,) * len(requests), passed_on)


_KEY = b"abcdefghijklmnopqrstuvwxyz0123456789_-*/"
_VALUE = bytes(byte for byte in range(0x20, 0x7F) if byte not in b",=")
_BARS = tuple(
    b",".join(b"bar%02d=%02d" % (number, number) for number in range(first, min(first + 10, 33)))
    for first in (1, 11, 21, 31)
)

SUITE: tuple[TraceCase, ...] = (
    TraceCase("both_traceparent_and_tracestate_missing", ((),), (False,), (b"",)),
    _parents("traceparent_included_tracestate_missing", SAMPLED, goes_on=True),
    TraceCase(
        "traceparent_duplicated",
        (((b"traceparent", SAMPLED.replace(b"9012-", b"9011-")), (b"traceparent", SAMPLED)),),
        (False,),
        (b"",),
    ),
    TraceCase(
        "traceparent_header_name",
        (((b"trace-parent", SAMPLED),), ((b"trace.parent", SAMPLED),)),
        (False, False),
        (b"", b""),
    ),
    TraceCase(
        "traceparent_header_name_valid_casing",
        (((b"TraceParent", SAMPLED),), ((b"TrAcEpArEnT", SAMPLED),), ((b"TRACEPARENT", SAMPLED),)),
        (True,) * 3,
        (b"",) * 3,
    ),
    _parents(
        "traceparent_version_0x00", SAMPLED + b".", SAMPLED + b"-what-the-future-will-be-like", goes_on=False
    ),
    TraceCase(
        "traceparent_version_0xcc",
        (
            ((b"traceparent", b"cc" + SAMPLED[2:]),),
            ((b"traceparent", b"cc" + SAMPLED[2:] + b"-what-the-future-will-be-like"),),
            ((b"traceparent", b"cc" + SAMPLED[2:] + b".what-the-future-will-be-like"),),
        ),
        (True, True, False),
        (b"",) * 3,
    ),
    _parents("traceparent_version_0xff", b"ff" + SAMPLED[2:], goes_on=False),
    _parents(
        "traceparent_version_illegal_characters", b".0" + SAMPLED[2:], b"0." + SAMPLED[2:], goes_on=False
    ),
    _parents("traceparent_version_too_long", b"000" + SAMPLED[2:], b"0000" + SAMPLED[2:], goes_on=False),
    _parents("traceparent_version_too_short", b"0" + SAMPLED[2:], goes_on=False),
    _parents("traceparent_trace_id_all_zero", SAMPLED.replace(TRACE, b"0" * 32), goes_on=False),
    _parents(
        "traceparent_trace_id_illegal_characters",
        SAMPLED.replace(TRACE, b"." + TRACE[1:]),
        SAMPLED.replace(TRACE, TRACE[:-1] + b"."),
        goes_on=False,
    ),
    _parents("traceparent_trace_id_too_long", SAMPLED.replace(TRACE, TRACE + b"3"), goes_on=False),
    _parents("traceparent_trace_id_too_short", SAMPLED.replace(TRACE, TRACE[:-1]), goes_on=False),
    _parents("traceparent_parent_id_all_zero", b"00-" + TRACE + b"-" + b"0" * 16 + b"-01", goes_on=False),
    _parents(
        "traceparent_parent_id_illegal_characters",
        b"00-" + TRACE + b"-." + PARENT[1:] + b"-01",
        b"00-" + TRACE + b"-" + PARENT[:-1] + b".-01",
        goes_on=False,
    ),
    _parents("traceparent_parent_id_too_long", b"00-" + TRACE + b"-" + PARENT + b"7-01", goes_on=False),
    _parents("traceparent_parent_id_too_short", b"00-" + TRACE + b"-" + PARENT[:-1] + b"-01", goes_on=False),
    _parents(
        "traceparent_trace_flags_illegal_characters",
        SAMPLED[:-2] + b".0",
        SAMPLED[:-2] + b"0.",
        goes_on=False,
    ),
    _parents("traceparent_trace_flags_too_long", SAMPLED[:-2] + b"001", goes_on=False),
    _parents("traceparent_trace_flags_too_short", SAMPLED[:-2] + b"1", goes_on=False),
    _parents(
        "traceparent_ows_handling",
        b" " + SAMPLED,
        b"\t" + SAMPLED,
        SAMPLED + b" ",
        SAMPLED + b"\t",
        b"\t " + SAMPLED + b" \t",
        goes_on=True,
    ),
    TraceCase(
        "tracestate_included_traceparent_missing",
        (((b"tracestate", b"foo=1"),), ((b"tracestate", b"foo=1,bar=2"),)),
        (False, False),
        (b"", b""),
    ),
    _states("tracestate_included_traceparent_included", (b"foo=1,bar=2",), passed_on=(b"foo=1,bar=2",)),
    TraceCase(
        "tracestate_header_name",
        tuple(((b"traceparent", NOT_SAMPLED), (name, b"foo=1")) for name in (b"trace-state", b"trace.state")),
        (True, True),
        (b"", b""),
    ),
    TraceCase(
        "tracestate_header_name_valid_casing",
        tuple(
            ((b"traceparent", NOT_SAMPLED), (name, b"foo=1"))
            for name in (b"TraceState", b"TrAcEsTaTe", b"TRACESTATE")
        ),
        (True,) * 3,
        (b"foo=1",) * 3,
    ),
    _states(
        "tracestate_empty_header",
        (b"",),
        (b"foo=1", b""),
        (b"", b"foo=1"),
        passed_on=(b"", b"foo=1", b"foo=1"),
    ),
    _states(
        "tracestate_multiple_headers_different_keys",
        (b"foo=1,bar=2", b"rojo=1,congo=2", b"baz=3"),
        passed_on=(b"foo=1,bar=2,rojo=1,congo=2,baz=3",),
    ),
    # The suite allows all of them or one of each key; a list that is dropped fails it.
    _states(
        "tracestate_duplicated_keys",
        (b"foo=1,foo=1",),
        (b"foo=1,foo=2",),
        (b"foo=1", b"foo=1"),
        (b"foo=1", b"foo=2"),
        passed_on=(b"foo=1",) * 4,
    ),
    _states(
        "tracestate_all_allowed_characters",
        (_KEY + b"=" + _VALUE,),
        (_KEY + b"@a-z0-9_-*/=" + _VALUE,),
        passed_on=(_KEY + b"=" + _VALUE, _KEY + b"@a-z0-9_-*/=" + _VALUE),
    ),
    _states(
        "tracestate_ows_handling",
        (b"foo=1 \t , \t bar=2, \t baz=3",),
        (b"foo=1\t \t,\t \tbar=2,\t \tbaz=3",),
        (b" foo=1",),
        (b"\tfoo=1",),
        (b"foo=1 ",),
        (b"foo=1\t",),
        (b"\t foo=1 \t",),
        passed_on=(b"foo=1,bar=2,baz=3",) * 2 + (b"foo=1",) * 5,
    ),
    _states(
        "tracestate_key_illegal_characters",
        (b"foo =1",),
        (b"FOO=1",),
        (b"foo.bar=1",),
        passed_on=(b"",) * 3,
    ),
    _states("tracestate_key_illegal_vendor_format", (b"@foo=1,bar=2",), passed_on=(b"",)),
    # Ours is one of the 32 that leave, so of 32 that came the last one goes.
    _states(
        "tracestate_member_count_limit",
        _BARS,
        (*_BARS[:3], _BARS[3] + b",bar33=33"),
        passed_on=(b",".join(_BARS).removesuffix(b",bar32=32"), b""),
    ),
    _states(
        "tracestate_key_length_limit",
        (b"foo=1", b"z" * 256 + b"=1"),
        (b"foo=1", b"z" * 257 + b"=1"),
        passed_on=(b"foo=1," + b"z" * 256 + b"=1", b""),
    ),
    _states("tracestate_value_illegal_characters", (b"foo=bar=baz",), (b"foo=,bar=3",), passed_on=(b"", b"")),
    _parents("multiple_requests_with_valid_traceparent", SAMPLED, goes_on=True, times=3),
    TraceCase("multiple_requests_without_traceparent", ((),), (False,), (b"",), times=3),
    _parents(
        "multiple_requests_with_illegal_traceparent",
        SAMPLED.replace(TRACE, b"0" * 32),
        goes_on=False,
        times=3,
    ),
    _parents("propagates_random_flag", NOT_SAMPLED[:-2] + b"02", goes_on=True),
)
"""All of it, in the suite's order; its names without `test_`."""
