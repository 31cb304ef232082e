"""Fields that come more than once: the smaller of two timeouts counts, and one trace is still one trace."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.stage import OK, get, hang, saying, stage
from tests.support.raw import Request, raw_client, read_request

WAYS = pytest.mark.parametrize("is_bytewise", [False, True], ids=["whole", "bytewise"])
TIMEOUTS = {
    b"x-request-timeout-ms": (b"300", b"600"),
    b"x-envoy-expected-rq-timeout-ms": (b"300", b"600"),
    b"x-envoy-upstream-rq-timeout-ms": (b"300", b"600"),
    b"l5d-timeout": (b"300ms", b"0.6s"),
    b"grpc-timeout": (b"300m", b"600m"),
}


def milliseconds(value: bytes) -> float:
    return float(value.rstrip(b"msu")) / (1000 if value.endswith(b"u") else 1)


async def bounded_by(*lines: bytes, is_bytewise: bool = False) -> tuple[float, Request]:
    """After how many seconds an exchange with these lines was given up, and what the upstream was sent."""
    loop = asyncio.get_running_loop()
    async with stage(hang) as to, raw_client(to.port) as client:
        await client.send(get(b"/", *lines), is_bytewise=is_bytewise)
        began = loop.time()
        (answer,) = await client.responses([b"GET"])
        assert answer.status == 504
        seconds = loop.time() - began
        found = read_request(to.app.received)
        assert found is not None
        return seconds, found[0]


@WAYS
@pytest.mark.parametrize("is_smaller_first", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("name", TIMEOUTS, ids=lambda name: name.decode())
async def test_of_two_lines_of_a_timeout_the_smaller_counts(
    name: bytes, is_smaller_first: bool, is_bytewise: bool
) -> None:
    values = TIMEOUTS[name] if is_smaller_first else TIMEOUTS[name][::-1]
    seconds, request = await bounded_by(*(name + b": " + value for value in values), is_bytewise=is_bytewise)
    assert 0.28 <= seconds <= 0.305
    assert 285 <= milliseconds(request.value(name) or b"") <= 300, "one line, less the offset"


@WAYS
@pytest.mark.parametrize("value", [b"300, 600", b"600,300", b"600, 300, 900"])
async def test_of_one_line_that_a_hop_made_of_two_the_smaller_counts(value: bytes, is_bytewise: bool) -> None:
    """RFC 9110 5.3: any hop may join the lines of a field."""
    seconds, request = await bounded_by(b"x-request-timeout-ms: " + value, is_bytewise=is_bytewise)
    assert 0.28 <= seconds <= 0.305
    assert 285 <= milliseconds(request.value(b"x-request-timeout-ms") or b"") <= 300


async def test_of_three_lines_the_smallest_counts() -> None:
    lines = (b"x-request-timeout-ms: 900", b"x-request-timeout-ms: 300", b"X-Request-Timeout-Ms: 600")
    seconds, _ = await bounded_by(*lines)
    assert 0.28 <= seconds <= 0.305


@pytest.mark.parametrize("invalid", [b"soon", b"", b"3e2", b"+300"])
@pytest.mark.parametrize("is_first", [True, False], ids=["before", "behind"])
async def test_a_line_that_makes_no_sense_does_not_spoil_the_other(invalid: bytes, is_first: bool) -> None:
    lines = [b"x-request-timeout-ms: " + invalid, b"x-request-timeout-ms: 300"]
    seconds, _ = await bounded_by(*(lines if is_first else reversed(lines)))
    assert 0.28 <= seconds <= 0.305


@pytest.mark.parametrize("zero", [b"0", b"-5"])
async def test_a_line_that_is_spent_is_the_smaller(zero: bytes) -> None:
    async with stage() as to:
        answer = await to.ask(get(b"/", b"x-request-timeout-ms: 600", b"x-request-timeout-ms: " + zero))
        assert answer.status == 504
        assert to.app.received == b""


async def test_two_different_timeouts_count_as_ever() -> None:
    seconds, _ = await bounded_by(b"x-request-timeout-ms: 600", b"l5d-timeout: 300ms")
    assert 0.28 <= seconds <= 0.305


# Trace state (W3C Trace Context level 2, "tracestate Header")

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = b"traceparent: 00-%b-00f067aa0ba902b7-01" % TRACE
LONG = b"z" * 256
MANY = [b"bar%02d=%02d" % (number, number) for number in range(1, 34)]

HANDED_ON: dict[str, tuple[tuple[bytes, ...], bytes]] = {
    "one-line": ((b"tracestate: foo=1,bar=2",), b"foo=1,bar=2"),
    "two-lines": ((b"tracestate: foo=1", b"tracestate: bar=2"), b"foo=1,bar=2"),
    "three-lines": ((b"tracestate: foo=1", b"tracestate: bar=2,rojo=3", b"tracestate: congo=4"),
                    b"foo=1,bar=2,rojo=3,congo=4"),
    "name-in-upper-case": ((b"TRACESTATE: foo=1",), b"foo=1"),
    "name-in-mixed-case": ((b"TraceState: foo=1",), b"foo=1"),
    "empty-line-before": ((b"tracestate: ", b"tracestate: foo=1"), b"foo=1"),
    "empty-line-behind": ((b"tracestate: foo=1", b"tracestate: "), b"foo=1"),
    "empty-members": ((b"tracestate: foo=1,,, bar=2,",), b"foo=1,bar=2"),
    "white-space": ((b"tracestate: foo=1 \t , \t bar=2, \t baz=3",), b"foo=1,bar=2,baz=3"),
    "white-space-around": ((b"tracestate:  \tfoo=1\t",), b"foo=1"),
    "key-twice-in-a-line-same-value": ((b"tracestate: foo=1,foo=1",), b"foo=1"),
    "key-twice-in-a-line": ((b"tracestate: foo=1,foo=2",), b"foo=1"),
    "key-twice-over-lines-same-value": ((b"tracestate: foo=1", b"tracestate: foo=1"), b"foo=1"),
    "key-twice-over-lines": ((b"tracestate: foo=1", b"tracestate: foo=2"), b"foo=1"),
    "key-twice-among-others": ((b"tracestate: a=0,foo=1,b=2", b"tracestate: foo=3,c=4"), b"a=0,foo=1,b=2,c=4"),
    "key-three-times": ((b"tracestate: foo=1,foo=2,foo=3,bar=4",), b"foo=1,bar=4"),
    "key-of-all-characters": ((b"tracestate: abcdefghijklmnopqrstuvwxyz0123456789_-*/=1",),
                              b"abcdefghijklmnopqrstuvwxyz0123456789_-*/=1"),
    "key-with-a-vendor": ((b"tracestate: abcdefghijklmnopqrstuvwxyz0123456789_-*/@a-z0-9_-*/=1",),
                          b"abcdefghijklmnopqrstuvwxyz0123456789_-*/@a-z0-9_-*/=1"),
    "key-of-256": ((b"tracestate: foo=1,%b=1" % LONG,), b"foo=1,%b=1" % LONG),
    "key-with-a-digit-first": ((b"tracestate: 0a@v=1",), b"0a@v=1"),
    "value-of-many-characters": ((b"tracestate: a= !\"#$%&'()*+-./0:;<>?@[\\]^_`{|}~",),
                                 b"a= !\"#$%&'()*+-./0:;<>?@[\\]^_`{|}~"),
    "members-31": ((b"tracestate: " + b",".join(MANY[:31]),), b",".join(MANY[:31])),
}  # fmt: skip
"""Lines, and the members that go on behind ours."""

DROPPED: dict[str, tuple[bytes, ...]] = {
    "key-with-space": (b"tracestate: foo =1",),
    "key-in-upper-case": (b"tracestate: FOO=1",),
    "key-with-a-dot": (b"tracestate: foo.bar=1",),
    "key-missing": (b"tracestate: =1",),
    "key-of-257": (b"tracestate: foo=1,%bz=1" % LONG,),
    "value-missing": (b"tracestate: foo=",),
    "value-with-equals": (b"tracestate: foo=bar=baz",),
    "value-of-257": (b"tracestate: foo=%b" % (b"v" * 257),),
    "members-33": (b"tracestate: " + b",".join(MANY),),
    "members-33-over-lines": (b"tracestate: " + b",".join(MANY[:20]), b"tracestate: " + b",".join(MANY[20:])),
    "no-member": (b"tracestate: foo",),
    "bad-behind-a-key-twice": (b"tracestate: foo=1,foo=2,=3",),
    "key-twice-second-value-bad": (b"tracestate: foo=1,foo=a=b",),
}


async def state_with(*lines: bytes, is_bytewise: bool) -> bytes:
    """What goes on behind our own member; the trace must go on in any case."""
    async with stage(saying(OK)) as to, raw_client(to.port) as client:
        await client.send(get(b"/", TRACEPARENT, *lines), is_bytewise=is_bytewise)
        (answer,) = await client.responses([b"GET"])
        assert answer.status == 200
        request = to.requests[0]
        _, trace, parent, _ = (request.value(b"traceparent") or b"").split(b"-")
        assert trace == TRACE
        ours, _, others = (request.value(b"tracestate") or b"").partition(b",")
        assert ours == b"sidecar=" + parent
        return others


@WAYS
@pytest.mark.parametrize(("lines", "others"), HANDED_ON.values(), ids=HANDED_ON)
async def test_a_trace_state_is_handed_on(lines: tuple[bytes, ...], others: bytes, is_bytewise: bool) -> None:
    assert await state_with(*lines, is_bytewise=is_bytewise) == others


@WAYS
@pytest.mark.parametrize("lines", DROPPED.values(), ids=DROPPED)
async def test_a_trace_state_that_is_none_is_dropped_whole(
    lines: tuple[bytes, ...], is_bytewise: bool
) -> None:
    assert await state_with(*lines, is_bytewise=is_bytewise) == b""


@WAYS
async def test_of_32_members_one_makes_room_for_ours(is_bytewise: bool) -> None:
    others = await state_with(b"tracestate: " + b",".join(MANY[:32]), is_bytewise=is_bytewise)
    assert others == b",".join(MANY[:31])


@pytest.mark.parametrize("second", [b"0af7651916cd43dd", b"00f067aa0ba902b7"], ids=["other", "same"])
async def test_our_own_member_twice_is_renewed_once(second: bytes) -> None:
    line = b"tracestate: a=1,sidecar=00f067aa0ba902b7,b=2,sidecar=" + second
    assert await state_with(line, is_bytewise=False) == b"a=1,b=2"
