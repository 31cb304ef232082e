"""`listeners.inbound.trust: none`: callers from outside the mesh have no say in what only the mesh may say."""

import pytest

from tests.scenarios.stage import OK as ANSWER
from tests.scenarios.stage import get, inbound, saying, stage
from tests.scenarios.test_forwarding import OK, ROUTES, exchange
from tests.support.proxy import HEADER, port, running
from tests.support.upstream import answering, field_of, scripted

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Envoy-Expected-Rq-Timeout-Ms: 250\r\n"
    b"x-envoy-original-path: /forged\r\nProxy-Status: forged\r\nx-other: kept\r\n\r\n"
)


@pytest.mark.parametrize(("trust", "is_believed"), [("all", True), ("none", False)])
async def test_internal_fields_of_a_request_are_believed_only_from_the_mesh(trust: str, is_believed: bool):
    heads: list[bytes] = []
    header = HEADER.replace(
        'inbound: {address: "127.0.0.1:0"}', f'inbound: {{address: "127.0.0.1:0", trust: {trust}}}'
    )
    async with scripted(answering(OK, heads)) as app, running(ROUTES.format(port=app.port), header) as worker:
        answer = await exchange(port(worker), REQUEST)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    budget = int(field_of(heads[0], b"x-envoy-expected-rq-timeout-ms") or b"0")
    assert (budget <= 250) is is_believed
    assert (field_of(heads[0], b"x-envoy-original-path") == b"/forged") is is_believed
    assert (field_of(heads[0], b"proxy-status") == b"forged") is is_believed
    assert field_of(heads[0], b"x-other") == b"kept"


@pytest.mark.parametrize("trust", ["all", "none"])
async def test_a_member_of_ours_from_outside_never_reaches_the_app(trust: str) -> None:
    """It names a live request by a span id; a forged one could bound or end another's calls."""
    forged = b"4bf92f3577b34da6"
    fields = (
        b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"tracestate: a=1,sidecar=" + forged,
    )
    async with stage(saying(ANSWER), header=inbound(f"trust: {trust}")) as to:
        assert (await to.ask(get(b"/", *fields))).status == 200
        parent = (to.requests[0].value(b"traceparent") or b"").split(b"-")[2]
        others = b",a=1" if trust == "all" else b""
        assert to.requests[0].value(b"tracestate") == b"sidecar=" + parent + others
        assert parent != forged
