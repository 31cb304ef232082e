"""The quick way to write a line of the access log against the common one, for all kinds of exchanges."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.client_tls import ClientTls
from sidecar.core.errors import Reason
from sidecar.core.finished import FinishedExchange
from sidecar.core.snapshot import Endpoint
from sidecar.core.transition import State
from sidecar.core.untrusted import Untrusted
from sidecar.telemetry.access_line import usual_line
from sidecar.telemetry.log_lines import as_json, make_line
from tests.telemetry.fakes import ENDPOINT, FakeAttempt, FakeExchange

OFFSET_NS = 1_700_000_000_123_456_789
STRANGE = [
    b"",
    b"/",
    b'/"\\\n\xff',
    "/ä/日本".encode(),
    "/a\u202eb\x85c\x7f".encode(),
    b"http://h/p?q=1",
    b"*",
]
texts = st.binary(max_size=24) | st.sampled_from(STRANGE)
names = st.text(max_size=12) | st.none()


def told(record: FinishedExchange, worker: str = "") -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """The fields of both, in their order."""
    quick = usual_line(record, OFFSET_NS, worker)
    assert quick is not None
    assert quick.endswith(b"}\n")
    common = as_json(make_line(record, OFFSET_NS), worker)
    return list(json.loads(quick).items()), list(json.loads(common).items())


@given(
    target=texts,
    host=texts,
    agent=texts | st.none(),
    method=st.sampled_from([b"GET", b"POST", b"M-SEARCH"]),
    request_id=texts | st.uuids().map(lambda drawn: str(drawn).encode()),
    route=names,
    status=st.integers(0, 499),
    seconds=st.floats(0, 1e5),
    sizes=st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)),
    peer=st.sampled_from([None, ("10.1.2.3", 1), ("fe80::1%eth0", 2), ("", 0)]),
    budget=st.tuples(st.sampled_from(["", "route", "header", "trace"]), st.floats(0, 1e6)),
    breaker=st.sampled_from([None, *State]),
    endpoint=st.sampled_from([None, ENDPOINT, Endpoint("", 0, path='/run/"x"'), Endpoint("::1", 80)]),
    grpc_status=st.sampled_from([None, 0, 1, 5, 16]),
    tls=st.sampled_from([None, ClientTls(), ClientTls('spiffe://a/"b', "example.test", "1.3")]),
    worker=st.sampled_from(["", "2", 'w"1']),
)
def test_it_says_what_the_common_way_says(
    target: bytes,
    host: bytes,
    agent: bytes | None,
    method: bytes,
    request_id: bytes,
    route: str | None,
    status: int,
    seconds: float,
    sizes: tuple[int, int],
    peer: tuple[str, int] | None,
    budget: tuple[str, float],
    breaker: State | None,
    endpoint: Endpoint | None,
    grpc_status: int | None,
    tls: ClientTls | None,
    worker: str,
) -> None:
    exchange = FakeExchange(
        target=target, host=host, user_agent=agent, method=method, request_id=request_id, route_name=route,
        status=status, ended=100.0 + seconds, request_bytes=sizes[0], response_bytes=sizes[1], peer=peer,
        budget_source=budget[0], budget_seconds=budget[1], breaker_state=breaker, grpc_status=grpc_status, tls=tls,
        attempts=(FakeAttempt(endpoint=endpoint),),
    )  # fmt: skip
    quick, common = told(FinishedExchange(exchange), worker)
    assert quick == common


@pytest.mark.parametrize("sign", ["\x7f", "\x85", "\x9b", "\u202e", "\u2028", "\u2066", "\u200b", "\ufeff"])
def test_what_a_reader_cannot_see_is_escaped(sign: str) -> None:
    raw = f"/a{sign}b".encode()
    record = FinishedExchange(
        FakeExchange(target=raw + b"?c=" + raw, user_agent=raw, host=raw, request_id=raw)
    )
    line = usual_line(record, 0, "")
    assert line is not None
    assert sign not in line.decode()
    assert line.count(f"\\u{ord(sign):04x}".encode()) == 5


def test_a_secret_in_a_query_or_a_parameter_is_not_written() -> None:
    target = b"/shop;jsessionid=1A2B/cart?page=2&sig=hunter2"
    line = usual_line(FinishedExchange(FakeExchange(target=target)), 0, "")
    assert line is not None
    assert b"1A2B" not in line
    assert b"hunter2" not in line
    assert b"page=2" in line


@pytest.mark.parametrize(
    "unusual",
    [
        {"reason": Reason.CLIENT_GONE},
        {"status": 500},
        {"detail": "something"},
        {"fallback": "static"},
        {"grpc_status": 14},
        {"untrusted": Untrusted(b"", b"", b"", b"", b"theirs")},
    ],
)
def test_what_most_have_not_is_left_to_the_common_way(unusual: dict[str, Any]) -> None:
    assert usual_line(FinishedExchange(FakeExchange(**unusual)), 0, "") is None
