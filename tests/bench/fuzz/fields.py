"""Values of single fields: trace context, timeouts, who forwarded it, what stops at this hop, durations and sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import count
from math import inf, isclose
from typing import Any, Final

from sidecar.config.schema import units
from sidecar.core import deadline, forwarded, headers, hosts, max_forwards
from sidecar.core.deadline import MIN_SEND_SECONDS, Form
from sidecar.core.plain import VALUE_BYTES
from sidecar.core.snapshot import DeadlinePolicy, Forwarded, Mode
from sidecar.core.tracecontext import (
    MAX_FOREIGN_BYTES,
    MAX_MEMBERS,
    IdSource,
    format_traceparent,
    format_tracestate,
    read,
)
from sidecar.http1.llhttp import MalformedHead
from sidecar.upstream.framing import read_framing
from tests.bench.fuzz import memories
from tests.bench.fuzz.targets import Target, same
from tests.bench.fuzz.words import FIELD_WORDS

_TRACE: Final = b"0af7651916cd43dd8448eb211c80319c"
_SPAN: Final = b"b7ad6b7169203331"
_NAMES: Final = (b"x-envoy-upstream-rq-timeout-ms", b"grpc-timeout", b"l5d-timeout", b"x-own")
_POLICY: Final = DeadlinePolicy(headers=_NAMES, mode=Mode.ENFORCE)


def _value(data: bytes) -> bytes:
    """As a field's value comes out of a head: no control characters, no spaces around it."""
    return bytes(byte for byte in data if byte in VALUE_BYTES).strip(b" \t")


def _two(data: bytes) -> tuple[bytes, bytes]:
    first, _, second = data.partition(b"\n")
    return _value(first), _value(second)


def trace_context(data: bytes) -> None:
    """`traceparent`, a line end, `tracestate`: what goes on is read the same by the next hop."""
    traceparent, tracestate = _two(data)
    numbers = count(1)
    ids = IdSource(lambda size: bytes((next(numbers) + at) % 255 + 1 for at in range(size)), batch=4)
    context = read(traceparent, tracestate, ids)
    assert len(context.trace_id) == 32
    assert context.tracestate.count(b",") < MAX_MEMBERS
    assert len(context.tracestate) <= MAX_FOREIGN_BYTES
    if context.parent_id is None:
        assert not context.tracestate
        return
    parent = format_traceparent(context.trace_id, context.parent_id, context.flags)
    again = read(parent, format_tracestate(_SPAN, context.tracestate), ids)
    same(
        "a context that is read again",
        (context.trace_id, context.parent_id, context.flags, context.tracestate, _SPAN),
        (again.trace_id, again.parent_id, again.flags, again.tracestate, again.own_member),
    )


def timeouts(data: bytes) -> None:
    """A timeout in each form, a line end, a `baggage`: nobody below is told more than there is."""
    memories.forget()
    value, baggage = _two(data)
    for name in _NAMES:
        lookup = {name: value, b"baggage": baggage} if baggage else {name: value}
        budget = deadline.budget(lookup, _POLICY, 15.0, None)
        assert 0.0 <= budget.seconds <= 15.0
        assert budget.is_spent is (budget.seconds <= 0.0)
        if budget.seconds >= MIN_SEND_SECONDS:
            _is_told(budget, budget.seconds)
    for form in (Form.MILLISECONDS, Form.DURATION, Form.GRPC):
        seconds = deadline.parse_timeout(value, form)
        assert seconds is None or -inf < seconds < inf


def _is_told(budget: deadline.Budget, seconds: float) -> None:
    for is_grpc in (False, True):
        for name, text in deadline.timeout_fields(budget.carried, seconds, is_grpc=is_grpc):
            form = (
                Form.GRPC
                if name == b"grpc-timeout"
                else Form.DURATION
                if text.endswith(b"s")
                else Form.MILLISECONDS
            )
            told = deadline.parse_timeout(text, form)
            assert told is not None
            assert told <= seconds + 1e-9


def baggage(data: bytes) -> None:
    value = _value(data)
    once = deadline.with_baggage_deadline(value, 1.5)
    if b"deadline-ms" in once:
        found = deadline.baggage_deadlines(once)
        assert len(once) <= max(deadline.MAX_BAGGAGE_BYTES, len(value) + 16)
        assert found == [1.5] or not found
    same("a baggage that is written again", once, deadline.with_baggage_deadline(once, 1.5))


def forwarded_by(data: bytes) -> None:
    """`X-Forwarded-For`, a line end, `Forwarded`: what is written is whole lines, and goes on being read."""
    memories.forget()
    came, node = _two(data)
    lookup = {b"x-forwarded-for": came, b"x-forwarded-proto": came, b"forwarded": node, b"host": b"app"}
    for mode in Forwarded:
        _, lines = forwarded.forwarded_lines(mode, lookup, ("192.0.2.1", 1), False, b"app:80")
        assert not lines or lines.endswith(b"\r\n")
        for line in lines.split(b"\r\n")[:-1]:
            name, colon, value = line.partition(b": ")
            assert colon
            assert name.lower() in headers.FORWARDED
            assert not value.translate(None, VALUE_BYTES)
        same(
            "lines without what a route drops", lines, forwarded.lines_without(lines, frozenset({b"x-other"}))
        )
    appended = forwarded.forwarded_lines(Forwarded.APPEND, lookup, None, True, b"")[1]
    assert b"unknown" in appended


def hop_fields(data: bytes) -> None:
    """`Connection`, a line end, `Keep-Alive` and `Max-Forwards`."""
    listed, other = _two(data)
    for name in headers.listed_in_connection(listed):
        assert name == name.lower()
        assert name not in (b"content-length", b"host")
    fields = [(b"connection", b"", listed), (b"keep-alive", b"", other)]
    with contextlib.suppress(MalformedHead):  # of too many options
        assert read_framing(200, "1.1", fields, is_head_request=False).keeps_seconds >= 0
    left = max_forwards.after_hop(b"OPTIONS", other)
    assert left is None or max_forwards.ENDS_HERE <= left <= max_forwards.MAX_FORWARDS
    hosts.is_valid_host(other)
    headers.is_valid_request_id(other)


_UNITS: Final[tuple[Callable[[Any], Any], ...]] = (
    units.parse_duration, units.parse_size, units.parse_share, units.parse_address, units.parse_endpoint,
    units.parse_upstream_url, units.parse_host,
)  # fmt: skip

_WRITTEN = 1e-9
"""How far what is written may be from what was read: `units.digits` writes ten places."""


def unit_texts(data: bytes) -> None:
    """A value of the configuration: told as `ValueError`, or read again when it is written."""
    text = data.decode("utf-8", "replace")
    for parse in _UNITS:
        try:
            found = parse(text)
        except ValueError:
            continue
        if parse is units.parse_duration:
            written = units.parse_duration(units.format_duration(found))
            same("a duration that is written", True, isclose(found, written, rel_tol=_WRITTEN))
        elif parse is units.parse_size:
            same("a size that is written", found, units.parse_size(units.format_size(found)))
        elif parse is units.parse_share:
            written = units.parse_share(units.format_share(found))
            same("a share that is written", True, isclose(found, written, rel_tol=_WRITTEN))


def _trace_seeds() -> Iterator[bytes]:
    yield b"00-" + _TRACE + b"-" + _SPAN + b"-01\nsidecar=" + _SPAN + b",a=b, c@d=e"
    yield (
        b"cc-" + _TRACE + b"-" + _SPAN + b"-01-more\n" + b",".join(b"k%d=v" % number for number in range(33))
    )


TARGETS: Final = [
    Target("trace_context", trace_context, _trace_seeds, FIELD_WORDS, max_bytes=1024),
    Target("timeouts", timeouts, lambda: [b"100\ndeadline-ms=5;a=b, c=d", b"1m30s", b"10S", b"5, 6"], FIELD_WORDS,
           max_bytes=256),
    Target("baggage", baggage, lambda: [b"a=b;c, deadline-ms=5;p=q , deadline-ms = 7"], FIELD_WORDS, max_bytes=512),
    Target("forwarded", forwarded_by, lambda: [b'1.2.3.4, ::1\nfor="[::1]:80";proto=https, for=a'], FIELD_WORDS,
           max_bytes=512),
    Target("hop_fields", hop_fields, lambda: [b"close, X-A, keep-alive\ntimeout=5, max=100", b"\n5"], FIELD_WORDS,
           max_bytes=512),
    Target("units", unit_texts, lambda: [b"1h30m", b"10MiB", b"5%", b"127.0.0.1:80", b"[::1]:80", b"unix:/a",
           b"http://a:1", b"a.b"], FIELD_WORDS, max_bytes=128, share=0.5),
]  # fmt: skip
