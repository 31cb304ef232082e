"""Deadlines and cancellation through an app that does nothing for them but what its instrumentation does."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.deadline import Form, parse_timeout
from sidecar.core.tracecontext import IdSource
from tests.scenarios.pod import (
    OK,
    App,
    Forward,
    Pod,
    answering_after,
    copying,
    hanging,
    head,
    instrumented,
    instrumented_without_tracestate,
    pod,
    restarting,
    silent,
)
from tests.scenarios.stage import numbers_of, scraped
from tests.support.raw import RawPeer, Request, raw_client, raw_upstream

ONE_SECOND = b"x-request-timeout-ms: 1000"
TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = b"traceparent: 00-%b-00f067aa0ba902b7-01" % TRACE
CALLER_GONE = b'sidecar; error=connection_terminated; details="caller gone"'

RECOGNISED = [instrumented, instrumented_without_tracestate, copying]
EXACT = [instrumented, copying]


def about(milliseconds: list[int]) -> object:
    """Budgets are rounded down, and the loop's clock is a float."""
    return pytest.approx(milliseconds, abs=1)


def calling(
    *lines: bytes, after: float = 0.0, method: bytes = b"GET", forward: Forward = instrumented
) -> App:
    """An app that calls once, when it has worked for `after` seconds, and answers when that is answered."""

    async def app(at: Pod, request: Request) -> bytes:
        await asyncio.sleep(after)
        await at.call(request, *lines, method=method, forward=forward)
        return OK

    return app


# Bounding


@pytest.mark.parametrize("forward", RECOGNISED)
async def test_a_call_gets_what_is_left_of_its_callers_time(forward: Forward) -> None:
    async with pod(calling(after=0.2, forward=forward)) as at:
        response = await at.ask(ONE_SECOND)

    (call,) = at.answers
    told = int(at.served[0].value(b"x-envoy-expected-rq-timeout-ms") or 0)
    assert told == pytest.approx(995, abs=1)  # Five are the sidecar's own.
    assert at.budgets == about([790])
    assert (call.status, call.at) == (504, 0.99)
    assert response.status == 200, "the app has five milliseconds to make something of it"


@pytest.mark.parametrize("forward", [restarting, silent])
async def test_a_restarted_trace_is_a_call_of_nobody(forward: Forward) -> None:
    async with pod(calling(forward=forward)) as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: bool(at.calls))
        await at.until(lambda: not at.worker.listeners["inbound"].connection_count)
        assert len(at.live_calls) == 1
        await at.until(lambda: bool(at.answers))

    assert at.budgets == about([15_000])
    assert (at.answers[0].status, at.answers[0].at) == (504, 15.0)


@pytest.mark.parametrize("flags", [b"00", b"01", b"02", b"03"])
async def test_the_sampled_flag_plays_no_part(flags: bytes) -> None:
    async with pod(calling()) as at:
        traceparent = b"traceparent: 00-%b-00f067aa0ba902b7-%b" % (TRACE, flags)
        async with at.asking(ONE_SECOND, traceparent):
            await at.until(lambda: bool(at.calls))
        await at.until(lambda: bool(at.answers))

    assert (at.budgets, at.answers[0].why) == (about([990]), CALLER_GONE)


@pytest.mark.parametrize(
    ("line", "budget", "source"),
    [
        (b"x-request-timeout-ms: 400", 395, "header"),
        (b"x-request-timeout-ms: 5000", 990, "trace"),
        (b"x-other: 1", 990, "trace"),
    ],
)
async def test_the_smallest_of_header_trace_and_route_counts_and_is_named(
    line: bytes, budget: int, source: str
) -> None:
    async with pod(calling(line)) as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: bool(at.calls))
            assert at.live_calls[0].budget.source == source
        await at.until(lambda: bool(at.answers))
    assert at.budgets == about([budget])


async def test_a_route_that_allows_less_than_the_caller_is_named() -> None:
    async with pod(calling(), outbound="timeouts: {request: 300ms}") as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: bool(at.calls))
            assert at.live_calls[0].budget.source == "route"
        await at.until(lambda: bool(at.answers))
    assert at.budgets == about([300])


async def test_without_recovery_a_call_is_neither_bounded_nor_cancelled_nor_refused() -> None:
    async def app(at: Pod, request: Request) -> bytes:
        await at.call(request)
        await at.call(request)
        return OK

    async with pod(app, answering_after(2.0), outbound="deadline: {recover_from_trace: false}") as at:
        response = await at.ask(ONE_SECOND)
        await at.until(lambda: len(at.answers) == 2)

    assert response.status == 504
    assert at.budgets == about([15_000, 15_000])
    assert [one.status for one in at.answers] == [200, 200]


# Fan-out and fan-in


async def test_ten_calls_at_once_end_with_their_caller_at_once() -> None:
    async def app(at: Pod, request: Request) -> bytes:
        await asyncio.gather(*(at.call(request) for _ in range(10)))
        return OK

    async with pod(app) as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: len(at.calls) == 10)
            left = at.seconds
        await at.until(lambda: at.service.open_count == 0 and len(at.answers) == 10)
        assert at.seconds - left <= 0.002

    assert at.budgets == about([990] * 10)
    assert [(one.status, one.why) for one in at.answers] == [(503, CALLER_GONE)] * 10


async def test_of_two_callers_in_one_trace_each_call_has_its_own() -> None:
    async with pod(calling()) as at, at.asking(b"x-request-timeout-ms: 3000", TRACEPARENT) as slow:
        await at.until(lambda: len(at.calls) == 1)
        async with at.asking(ONE_SECOND, TRACEPARENT):
            await at.until(lambda: len(at.calls) == 2)
        await at.until(lambda: bool(at.answers))
        assert len(at.live_calls) == 1
        await slow.responses([b"GET"])

    assert at.budgets == about([2990, 990])
    assert [one.status for one in at.answers] == [503, 504]
    assert at.answers[1].at == 2.99


async def test_a_call_that_may_be_either_callers_gets_the_later_time_and_ends_with_neither() -> None:
    first = asyncio.Event()

    async def app(at: Pod, request: Request) -> bytes:
        if request.target == b"/waits":
            await asyncio.sleep(5)
            return OK
        await first.wait()
        await at.call(request, forward=instrumented_without_tracestate)
        return OK

    async with pod(app) as at:
        async with (
            at.asking(b"x-request-timeout-ms: 3000", TRACEPARENT, target=b"/waits"),
            at.asking(ONE_SECOND, TRACEPARENT),
        ):
            await at.until(lambda: len(at.served) == 2)
            first.set()
            await at.until(lambda: bool(at.calls))
        await at.until(lambda: bool(at.answers))

    assert at.budgets == about([2990])
    assert (at.answers[0].status, at.answers[0].at) == (504, 2.99)


# Cancelling


@pytest.mark.parametrize("forward", EXACT)
async def test_a_client_that_leaves_ends_the_call_below_at_once(forward: Forward) -> None:
    async with pod(calling(forward=forward)) as at:
        async with at.asking():
            await at.until(lambda: bool(at.calls))
            left = at.seconds
        await at.until(lambda: at.service.open_count == 0 and bool(at.answers))
        assert at.seconds - left <= 0.002

    (call,) = at.answers
    assert (call.status, call.why) == (503, CALLER_GONE)
    assert call.response.value(b"content-type") == b"application/problem+json"


async def test_a_call_known_by_its_trace_id_alone_is_never_cancelled() -> None:
    async with pod(calling(forward=instrumented_without_tracestate), answering_after(0.5)) as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: bool(at.calls))
        await at.until(lambda: bool(at.answers))

    assert (at.budgets, at.answers[0].status) == (about([990]), 200)


async def test_a_client_that_leaves_in_the_middle_of_the_answer_ends_the_calls_too() -> None:
    async def stream(at: Pod, request: Request) -> bytes:
        asyncio.get_running_loop().create_task(at.call(request))
        await at.until(lambda: bool(at.calls))
        return b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst bytes"

    async with pod(stream) as at:
        async with at.asking() as client:
            while not client.received.endswith(b"first bytes"):
                await client.read_some()
        await at.until(lambda: bool(at.answers))
    assert at.answers[0].why == CALLER_GONE


@pytest.mark.parametrize(
    ("policy", "method", "is_cancelled"),
    [
        ("safe", b"GET", True),
        ("safe", b"HEAD", True),
        ("safe", b"OPTIONS", True),
        ("safe", b"POST", False),
        ("safe", b"PUT", False),
        ("safe", b"DELETE", False),
        ("all", b"POST", True),
        ("off", b"GET", False),
    ],
)
async def test_what_ends_with_its_caller_is_the_routes_choice(
    policy: str, method: bytes, is_cancelled: bool
) -> None:
    async with pod(
        calling(method=method), answering_after(0.5), outbound=f"deadline: {{cancel_with_caller: {policy}}}"
    ) as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: bool(at.calls))
        await at.until(lambda: bool(at.answers))

    assert at.budgets == about([990]), "whatever is cancelled, all of it is bounded"
    assert at.answers[0].status == (503 if is_cancelled else 200)


async def test_a_call_that_a_longer_cap_kept_alive_ends_with_its_callers_attempt() -> None:
    """The inbound attempt is cut before the deadline that its calls were given: nobody waits for them."""
    async with pod(calling(), inbound="timeouts: {attempt: 300ms}") as at:
        response = await at.ask(ONE_SECOND)
        await at.until(lambda: bool(at.answers))

    assert (response.status, at.budgets) == (504, about([990]))
    assert (at.answers[0].status, at.answers[0].why) == (503, CALLER_GONE)
    assert at.answers[0].at <= 0.302


async def test_work_that_outlives_an_answered_request_is_not_touched() -> None:
    background: list[asyncio.Task[object]] = []

    async def app(at: Pod, request: Request) -> bytes:
        async def later() -> None:
            await asyncio.sleep(0.1)
            await at.call(request, target=b"/after")

        background.append(asyncio.create_task(at.call(request, target=b"/before")))
        await at.until(lambda: bool(at.calls))
        background.append(asyncio.create_task(later()))
        return OK

    async with pod(app, answering_after(0.8)) as at:
        response = await at.ask(ONE_SECOND)  # and closes its connection
        await asyncio.gather(*background)

    assert response.status == 200
    assert [call.target for call in at.calls] == [b"/before", b"/after"]
    assert at.budgets == about([990, 15_000])
    assert [one.status for one in at.answers] == [200, 200]


async def test_a_next_request_on_the_same_connection_is_a_different_caller() -> None:
    async def app(at: Pod, request: Request) -> bytes:
        if request.target == b"/first":
            asyncio.get_running_loop().create_task(at.call(request, target=b"/background"))
            await at.until(lambda: bool(at.calls))
            return OK
        await at.call(request)
        return OK

    async with pod(app, answering_after(0.5)) as at:
        async with raw_client(at.inbound) as client:
            await client.send(head(b"GET", b"/first", [TRACEPARENT]))
            await client.responses([b"GET"])
            await client.send(head(b"GET", b"/second", [TRACEPARENT]))
            await at.until(lambda: len(at.calls) == 2)
        await at.until(lambda: len(at.answers) == 2)
    assert [one.status for one in at.answers] == [503, 200]


# Late calls


@pytest.mark.parametrize("forward", EXACT)
async def test_a_call_after_the_client_has_gone_is_refused_at_once(forward: Forward) -> None:
    async with pod(calling(after=0.3, forward=forward)) as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: bool(at.served))
        await at.until(lambda: bool(at.answers))

    (call,) = at.answers
    assert (call.status, call.why, at.calls) == (503, CALLER_GONE, [])
    assert call.at <= 0.302


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_call_after_the_callers_deadline_is_refused_at_once(method: bytes) -> None:
    async with pod(calling(after=1.2, method=method)) as at:
        response = await at.ask(ONE_SECOND)
        await at.until(lambda: bool(at.answers))

    assert (response.status, at.calls) == (504, [])
    (call,) = at.answers
    assert (call.status, call.at) == (504, 1.2)
    assert call.why is not None
    assert call.why.startswith(b"sidecar; error=http_response_timeout; ")


async def test_a_late_post_in_safe_mode_has_the_rest_of_its_callers_time() -> None:
    async with pod(calling(after=0.3, method=b"POST"), answering_after(0.1)) as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: bool(at.served))
        await at.until(lambda: bool(at.answers))

    assert (at.answers[0].status, at.budgets) == (200, about([690]))


async def test_five_seconds_after_the_cancellation_a_call_is_work_of_its_own() -> None:
    async with pod(calling(after=6.0), answering_after(0.1)) as at:
        async with at.asking():
            await at.until(lambda: bool(at.served))
        await at.until(lambda: bool(at.answers))

    assert (at.answers[0].status, at.budgets) == (200, [15_000])


# Who can reach whom


async def test_a_client_that_tries_again_with_the_same_ids_is_a_new_caller() -> None:
    again = (ONE_SECOND, TRACEPARENT, b"tracestate: vendor=1", b"x-request-id: the-same")
    async with pod(calling(after=0.1), answering_after(0.3)) as at:
        async with at.asking(*again):
            await at.until(lambda: len(at.calls) == 1)
        async with at.asking(*again) as second:
            (response,) = await second.responses([b"GET"])

    assert [one.status for one in at.answers] == [503, 200]
    assert (response.status, at.budgets) == (200, about([890, 890]))


async def test_ids_that_a_client_sends_reach_no_other_callers_calls() -> None:
    """The attacker even knows the victim's span id; on its way in it is only a client's word."""
    async with pod(calling(), answering_after(0.5)) as at, at.asking(ONE_SECOND, TRACEPARENT) as victim:
        await at.until(lambda: len(at.calls) == 1)
        span_id = at.served[0].value(b"traceparent").split(b"-")[2]  # type: ignore[union-attr]
        stolen = (b"traceparent: 00-%b-%b-01" % (TRACE, span_id), b"tracestate: sidecar=" + span_id)
        async with at.asking(b"x-request-timeout-ms: 50", *stolen):
            await at.until(lambda: len(at.calls) == 2)
        await at.until(lambda: len(at.answers) == 1)
        (response,) = await victim.responses([b"GET"])

    assert at.served[1].value(b"tracestate") != b"sidecar=" + span_id
    assert response.status == 200
    assert [one.status for one in at.answers] == [503, 200]


async def test_a_guessed_id_is_a_call_of_nobody() -> None:
    ids = IdSource()

    def guessing(request: Request) -> list[bytes]:
        guess = ids.span_id()
        return [b"traceparent: 00-%b-%b-01" % (ids.trace_id(), guess), b"tracestate: sidecar=" + guess]

    async def app(at: Pod, request: Request) -> bytes:
        await asyncio.gather(*(at.call(request, forward=guessing) for _ in range(50)))
        return OK

    async with pod(app, answering_after(0.5)) as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: len(at.calls) == 50)
        await at.until(lambda: len(at.answers) == 50)

    assert at.budgets == about([15_000] * 50)
    assert {one.status for one in at.answers} == {200}


async def test_a_short_deadline_under_anothers_trace_id_takes_nothing_from_it() -> None:
    """The victim's app is known by its trace id alone, which the attacker may send too."""
    forward = instrumented_without_tracestate
    async with (
        pod(calling(after=0.2, forward=forward), answering_after(0.5)) as at,
        at.asking(ONE_SECOND, TRACEPARENT) as victim,
    ):
        async with at.asking(b"x-request-timeout-ms: 220", TRACEPARENT):
            await at.until(lambda: len(at.calls) == 2)
        (response,) = await victim.responses([b"GET"])
        await at.until(lambda: len(at.answers) == 2)

    assert response.status == 200
    assert min(at.budgets) >= 779
    assert [one.status for one in at.answers] == [200, 200]


# Modes


async def test_observing_measures_and_acts_on_nothing() -> None:
    async with pod(calling(), answering_after(2.0), outbound="deadline: {mode: observe}") as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: bool(at.calls))
            (call,) = at.live_calls
            assert (call.budget.source, round(call.budget.measured_seconds, 3)) == ("trace", 0.99)
            assert round(call.deadline - call.started, 3) == 15.0
        await at.until(lambda: bool(at.answers))
        await at.call(at.served[0])

    assert at.budgets == about([-1, -1])
    assert [one.status for one in at.answers] == [200, 200]


async def test_off_looks_at_nothing() -> None:
    async with pod(calling(ONE_SECOND), answering_after(2.0), outbound="deadline: {mode: off}") as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: bool(at.calls))
            assert at.live_calls[0].budget.source == "route"
        await at.until(lambda: bool(at.answers))

    assert (at.budgets, at.answers[0].status) == ([-1], 200)
    assert at.calls[0].value(b"x-request-timeout-ms") == b"1000"


# Ends of another kind


async def test_calls_of_an_open_websocket_are_not_bound_by_its_handshake() -> None:
    async def app(at: Pod, request: Request) -> bytes:
        async def chat() -> None:
            await asyncio.sleep(20)
            await at.call(request)

        asyncio.get_running_loop().create_task(chat())
        return b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    async with (
        pod(app, answering_after(0.1)) as at,
        at.asking(ONE_SECOND, b"Connection: Upgrade", b"Upgrade: websocket") as client,
    ):
        while b"101" not in client.received:
            await client.read_some()
        await at.until(lambda: bool(at.answers))

    assert (at.answers[0].status, at.budgets) == (200, [15_000])


@pytest.mark.parametrize("trust", ["all", "none"])
async def test_to_ask_for_an_upgrade_changes_no_deadline(trust: str) -> None:
    """Only the 101 does: a client that asks for what nobody speaks had its app's calls bound by the route alone."""
    async with pod(calling(), answering_after(0.1), trust=trust) as at:
        response = await at.ask(b"x-request-timeout-ms: 400", b"Connection: Upgrade", b"Upgrade: foo")
    assert (response.status, at.budgets) == (200, about([389]))


async def test_a_call_during_the_handshake_is_bound_and_one_behind_the_101_is_not() -> None:
    async def app(at: Pod, request: Request) -> bytes:
        await at.call(request)

        async def chat() -> None:
            await at.call(request)

        asyncio.get_running_loop().call_later(5, lambda: asyncio.ensure_future(chat()))
        return b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"

    async with (
        pod(app, answering_after(0.1)) as at,
        at.asking(ONE_SECOND, b"Connection: Upgrade", b"Upgrade: foo") as client,
    ):
        while b"101" not in client.received:
            await client.read_some()
        await at.until(lambda: len(at.answers) == 2)
    assert at.budgets == about([990, 15_000])


async def test_calls_of_an_attempt_that_a_fallback_stands_in_for_are_ended() -> None:
    async def app(at: Pod, request: Request) -> bytes:
        await at.call(request)
        return OK

    async def standing_in(peer: RawPeer) -> None:
        request = await peer.request()
        while request is not None:
            if request.target == b"/call":
                await hanging(peer)
                return
            await asyncio.sleep(0.1)
            await peer.send(OK)
            request = await peer.request()

    inbound = "timeouts: {attempt: 300ms}, fallback: {upstream: service}"
    async with pod(app, standing_in, inbound=inbound) as at:
        response = await at.ask(ONE_SECOND)
        await at.until(lambda: bool(at.answers))

    assert response.status == 200
    assert (at.answers[0].status, at.answers[0].why) == (503, CALLER_GONE)
    assert at.answers[0].at <= 0.302


# Several attempts at the app

SIXTY = "timeouts: {request: 60s}"
HEDGED = "hedge: {after: 100ms}"


def _slow_at_first(*, hedge_calls: bool = True) -> App:
    """The first attempt calls and hangs on that; the hedge answers when it has worked for 100 ms."""

    async def app(at: Pod, request: Request) -> bytes:
        if len(at.served) == 1:
            await at.call(request)
        else:
            if hedge_calls:
                await at.call(request, target=b"/of-hedge")
            await asyncio.sleep(0.1)
        return OK

    return app


async def test_a_call_of_a_hedge_is_bound_by_the_same_deadline_and_ends_with_it() -> None:
    async with pod(_slow_at_first(), inbound=HEDGED, apps=2) as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: len(at.calls) == 2)
            left = at.seconds
        await at.until(lambda: len(at.answers) == 2)

    assert at.budgets == [pytest.approx(990, abs=1), pytest.approx(888, abs=3)]
    assert [(one.why, one.at <= left + 0.002) for one in at.answers] == [(CALLER_GONE, True)] * 2
    assert at.calls[1].value(b"x-sidecar-retry") == b"1"


async def test_calls_of_who_lost_to_a_hedge_end_when_it_is_cut() -> None:
    async with pod(_slow_at_first(hedge_calls=False), inbound=HEDGED, apps=2) as at:
        response = await at.ask(ONE_SECOND)
        answered = at.seconds
        await at.until(lambda: bool(at.answers))

    assert response.status == 200
    assert (at.answers[0].why, at.answers[0].at <= answered + 0.002) == (CALLER_GONE, True)


async def test_calls_of_a_hedge_that_lost_end_and_those_of_who_won_go_on() -> None:
    background: list[asyncio.Task[object]] = []

    async def app(at: Pod, request: Request) -> bytes:
        is_hedge = len(at.served) == 2
        background.append(asyncio.create_task(at.call(request, target=b"/hedge" if is_hedge else b"/first")))
        await asyncio.sleep(0.2)
        return OK

    async with pod(app, answering_after(0.5), inbound=HEDGED, apps=2) as at:
        response = await at.ask(ONE_SECOND)
        await asyncio.gather(*background)

    assert response.status == 200
    assert [(one.status, one.at) for one in at.answers] == [(503, 0.2), (200, 0.5)]


async def test_calls_of_an_attempt_that_is_over_do_not_wait_for_the_next_one() -> None:
    async def app(at: Pod, request: Request) -> bytes:
        if len(at.served) == 1:
            await at.call(request)
        return OK

    retry = "retry: {attempts: 1, on: [attempt_timeout], backoff: {base: 10s, max: 10s}}"
    async with pod(app, inbound=f"timeouts: {{request: 60s, attempt: 300ms}}, {retry}") as at:
        response = await at.ask()
        retried = at.seconds

    assert (response.status, len(at.served)) == (200, 2)
    assert retried > 0.4, "it has waited before it tried again"
    assert (at.answers[0].why, at.answers[0].at) == (CALLER_GONE, 0.3)


@pytest.mark.parametrize(
    ("rest", "status", "seconds"),
    [
        (b"14\r\n" + b"x" * 20 + b"\r\n", 413, 0.0),
        (b"no chunk\r\n", 400, 0.0),
        (b"", 408, 30.0),
    ],
    ids=["too_long", "malformed", "stalled"],
)
async def test_calls_of_a_request_that_is_given_up_for_its_body_end_with_it(
    rest: bytes, status: int, seconds: float
) -> None:
    """The app reads heads alone, and calls before the body is whole."""

    async def app(peer: RawPeer) -> None:
        await peer.head()
        text, _, _ = peer.rest.partition(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in text.split(b"\r\n")[1:])
        request = Request(list(lines.items()))
        await stage[0].call(request)

    stage: list[Pod] = []
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
    async with (
        raw_upstream(app) as server,
        pod(
            calling(),
            inbound="max_request_body: 10B, timeouts: {request: 60s}",
            outbound=SIXTY,
            app_at=server.port,
        ) as at,
    ):
        stage.append(at)
        async with raw_client(at.inbound) as client:
            await client.send(chunked)
            await at.until(lambda: bool(at.calls))
            await client.send(rest)
            (response,) = await client.responses([b"POST"])
            given_up = at.seconds
            await at.until(lambda: bool(at.answers))

    assert (response.status, given_up) == (status, pytest.approx(seconds, abs=0.1))
    assert (at.answers[0].why, at.answers[0].at <= given_up + 0.002) == (CALLER_GONE, True)


# What the next hop is told


@pytest.mark.parametrize(
    ("sent", "passed", "budget"),
    [
        (b"deadline-ms=800", b"deadline-ms=795", 795),
        (b"user=al%20ice;p=1, deadline-ms=800 ,x=\"y\"", b"user=al%20ice;p=1,deadline-ms=795,x=\"y\"", 795),
        (b"user=1;q , b= 2", b"user=1;q , b= 2", 15_000),
        (b"user=1,deadline-ms=soon", b"user=1,deadline-ms=soon", 15_000),
    ],
)  # fmt: skip
async def test_a_deadline_in_baggage_is_read_and_handed_on(sent: bytes, passed: bytes, budget: int) -> None:
    async with pod(calling(), answering_after(0.0)) as at:
        await at.ask(b"baggage: " + sent)

    (served,) = at.served
    assert int(served.value(b"x-envoy-expected-rq-timeout-ms") or 0) == pytest.approx(budget, abs=1)
    assert (served.value(b"baggage") or b"").replace(b"=794", b"=795") == passed


@pytest.mark.parametrize(
    ("sent", "passed"),
    [  # Not whole milliseconds, which the loop's clock may be just below.
        (b"", b"deadline-ms=990"),
        (b"user=al%20ice;p=1 , b=\"2\"", b"user=al%20ice;p=1 , b=\"2\",deadline-ms=990"),
        (b"a=1,deadline-ms=5000;p, b=2", b"a=1,deadline-ms=990, b=2"),
    ],
)  # fmt: skip
async def test_baggage_is_given_the_deadline_where_the_route_asks_for_it(sent: bytes, passed: bytes) -> None:
    lines = [b"baggage: " + sent] if sent else []
    async with pod(calling(*lines), answering_after(0.0), outbound="deadline: {inject_baggage: true}") as at:
        await at.ask(b"grpc-timeout: 1000500u")
    assert at.calls[0].value(b"baggage") == passed


@pytest.mark.parametrize("is_grpc", [True, False])
@pytest.mark.parametrize(
    ("sent", "seconds", "unit"),
    [
        (b"1H", 3599.995, b"m"),
        (b"3H", 7200.0, b"m"),  # The route's own, which is less.
        (b"1M", 59.995, b"u"),
        (b"2S", 1.995, b"u"),
        (b"500m", 0.495, b"u"),
        (b"400000u", 0.395, b"u"),
        (b"99999999n", 0.094999999, b"n"),
        (b"40000000n", 0.036, b"n"),  # The margin is at most a tenth.
    ],
)
async def test_grpc_timeout_is_read_and_written_in_every_unit(
    sent: bytes, seconds: float, unit: bytes, is_grpc: bool
) -> None:
    async with pod(calling(), answering_after(0.0), inbound="timeouts: {request: 2h}") as at:
        kind = b"application/grpc" if is_grpc else b"text/plain"
        await at.ask(b"content-type: " + kind, b"grpc-timeout: " + sent)
    if is_grpc:
        seconds -= min(0.005, seconds / 10)  # a gRPC server is to end it before the sidecar does

    (served,) = at.served
    written = served.value(b"grpc-timeout") or b""
    assert written.endswith(unit)
    left = parse_timeout(written, Form.GRPC)
    assert left == pytest.approx(seconds, rel=1e-5)
    told = int(served.value(b"x-envoy-expected-rq-timeout-ms") or 0)
    assert told == pytest.approx(left * 1000, abs=1)


async def test_a_grpc_call_that_was_recovered_is_told_its_time_as_grpc_tells_it() -> None:
    grpc = b"content-type: application/grpc"
    async with pod(calling(grpc)) as at:
        await at.ask(b"grpc-timeout: 1S")

    told = parse_timeout(at.calls[0].value(b"grpc-timeout") or b"", Form.GRPC)
    assert told == pytest.approx(0.985, abs=1e-5)
    (call,) = at.answers
    assert (call.status, call.response.value(b"grpc-status")) == (200, b"4")
    assert call.at == pytest.approx(0.99, abs=1e-3)


GRPC_DEADLINE_EXCEEDED = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 4\r\n" + (
    b"content-length: 0\r\n\r\n"
)


@pytest.mark.parametrize(("seconds", "is_buried"), [(0.99, True), (0.5, False)])
async def test_calls_of_an_app_that_has_said_that_the_time_is_up_are_refused(
    seconds: float, is_buried: bool
) -> None:
    """By gRPC it says so a little before the sidecar would. Half-way through it means something else."""

    async def app(at: Pod, request: Request) -> bytes:
        await asyncio.sleep(seconds)
        return GRPC_DEADLINE_EXCEEDED

    async with pod(app, answering_after(0.0)) as at:
        answer = await at.ask(b"content-type: application/grpc", b"grpc-timeout: 1S")
        assert answer.value(b"grpc-status") == b"4"
        call = await at.call(at.served[0])
    assert (call.status, len(at.calls)) == ((503, 0) if is_buried else (200, 1))
    assert (call.why is not None and b"caller gone" in call.why) == is_buried


@pytest.mark.parametrize("mode", ["observe", "off"])
async def test_without_enforcement_grpc_timeout_passes_as_it_came(mode: str) -> None:
    async with pod(calling(), inbound=f"deadline: {{mode: {mode}}}") as at:
        await at.ask(b"content-type: application/grpc", b"grpc-timeout: 300m")
    (served,) = at.served
    assert served.value(b"grpc-timeout") == b"300m"


# Admission


@pytest.mark.parametrize(("mode", "statuses"), [("enforce", [504, 200]), ("observe", [200, 200])])
async def test_a_call_with_too_little_time_is_refused_only_where_that_is_enforced(
    mode: str, statuses: list[int]
) -> None:
    async def app(at: Pod, request: Request) -> bytes:
        await at.call(request, b"x-request-timeout-ms: 200")
        await at.call(request)
        return OK

    outbound = f"admission: {{mode: {mode}, min_budget: 300ms, max_reject_ratio: 100%}}"
    async with pod(app, answering_after(0.05), outbound=outbound) as at:
        await at.ask(ONE_SECOND)

    assert [one.status for one in at.answers] == statuses
    assert len(at.calls) == statuses.count(200)
    name = 'sidecar_admission_requests_total{sidecar_route="out",sidecar_admission_outcome='
    counts = {outcome: scraped(at.worker, f'{name}"{outcome}"}}') for outcome in ("refused", "spared")}
    assert counts == ({"refused": 1, "spared": 0} if mode == "enforce" else {"refused": 0, "spared": 1})
    assert scraped(at.worker, "sidecar_admission_requests_total{") == 1, "no other route has an admission"
    too_small = scraped(at.worker, "sidecar_deadline_rejected_total{")
    assert (too_small, numbers_of(at.worker, "out").rejected["too_small"]) == (counts["refused"],) * 2
    if mode == "enforce":
        assert at.answers[0].at == 0.0


@pytest.mark.parametrize(("quantile", "is_refused"), [("p50", False), ("p95", True)])
async def test_a_route_learns_from_its_successes_how_much_time_a_call_needs(
    quantile: str, is_refused: bool
) -> None:
    async def mixed(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            await asyncio.sleep(0.4 if request.target == b"/slow" else 0.1)
            await peer.send(OK)

    async def app(at: Pod, request: Request) -> bytes:
        for number in range(40):
            await at.call(request, target=b"/slow" if number % 4 == 0 else b"/quick", forward=silent)
        await at.call(request, b"x-request-timeout-ms: 205", forward=silent)
        return OK

    outbound = f"admission: {{mode: enforce, min_budget: {quantile}, max_reject_ratio: 20%}}"
    async with pod(app, mixed, outbound=outbound) as at:
        await at.ask()

    assert len(at.calls) == (40 if is_refused else 41)
    assert at.answers[-1].status == (504 if is_refused else 200)


async def test_before_twenty_successes_nothing_is_refused() -> None:
    async def app(at: Pod, request: Request) -> bytes:
        for _ in range(19):
            await at.call(request, forward=silent)
        await at.call(request, b"x-request-timeout-ms: 50", forward=silent)
        return OK

    outbound = "admission: {mode: enforce, min_budget: p50}"
    async with pod(app, answering_after(0.1), outbound=outbound) as at:
        await at.ask()
    assert len(at.calls) == 20


async def test_no_more_than_the_given_share_is_refused() -> None:
    async def app(at: Pod, request: Request) -> bytes:
        for _ in range(100):
            await at.call(request, b"x-request-timeout-ms: 200", forward=silent)
        return OK

    outbound = "admission: {mode: enforce, min_budget: 300ms, max_reject_ratio: 25%}"
    async with pod(app, answering_after(0.0), outbound=outbound) as at:
        await at.ask()
    assert [one.status for one in at.answers].count(504) == 25


# Noticing an app through which nothing travels


@pytest.mark.parametrize(
    ("forward", "tied", "untied"), [(instrumented, 2, 0), (copying, 2, 0), (restarting, 0, 2), (silent, 0, 2)]
)
async def test_calls_that_could_be_tied_and_could_not_are_counted(
    forward: Forward, tied: int, untied: int
) -> None:
    async with pod(calling(forward=forward), answering_after(0.0)) as at:
        for _ in range(2):
            await at.ask(ONE_SECOND)
        ties = at.worker.service.callers.ties
        assert (ties.tied, ties.untied) == (tied, untied)
        sources = at.worker.sources()
        assert (sources.callers_tied, sources.callers_untied) == (tied, untied)


async def test_background_work_has_nothing_to_be_tied_to() -> None:
    async with pod(calling(), answering_after(0.0)) as at:
        async with raw_client(at.outbound) as client:
            await client.send(head(b"GET", b"/", []))
            await client.responses([b"GET"])
        assert at.worker.service.callers.ties.untied == 0
