"""What stands before a sidecar that has nothing left to serve another client with, and how that one is told."""

from __future__ import annotations

from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import DataReceived, GoawayReceived, ResponseReceived
from tests.scenarios.stage import OK, Stage, get
from tests.support.raw import RawClient, RawPeer, Response, turns
from tests.support.tls_client import TlsClient

NEVER = get(b"/never")
PSEUDO = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/"))
BEGUN = [b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc", b"PRI * HTTP/2"]


async def answer_but_never(peer: RawPeer) -> None:
    """`/never` is not answered; the script ends when the sidecar closes the connection."""
    while (request := await peer.request()) is not None:
        if request.target == b"/never":
            while await peer.read_some():
                pass
            return
        await peer.send(OK)


def is_told(response: Response) -> bool:
    """It is the answer of SPEC 4 to our own lack, and to limits that are reached."""
    status = (response.value(b"proxy-status") or b"").decode()
    return (
        (response.status, response.value(b"retry-after"), response.value(b"connection"))
        == (503, b"1", b"close")
        and status.startswith("sidecar; error=connection_limit_reached; ")
        and b'"urn:sidecar:problem:overloaded"' in response.body
    )


async def leave(to: Stage, client: RawClient) -> None:
    """It goes, and that was seen."""
    before = to.worker.service.open_connections
    client.writer.close()
    while to.worker.service.open_connections >= before:
        await turns()


async def asked_by_http2(client: RawClient) -> tuple[dict[str, str], bytes]:
    """Status and two fields of the answer to one request, and its body; the connection ends with it."""
    codec = Connection(Role.CLIENT)
    codec.open_stream(PSEUDO, (), is_end=True)
    await client.send(codec.take())
    await client.read_to_end()
    told = codec.receive(client.received, 0.0)
    assert any(isinstance(event, GoawayReceived) for event in told)
    (answer,) = [event for event in told if isinstance(event, ResponseReceived)]
    body = b"".join(event.data for event in told if isinstance(event, DataReceived))
    found = {"status": str(answer.status)}
    for key in ("proxy-status", "retry-after"):
        found[key] = answer.lookup.get(key.encode(), b"").decode()
    return found, body


async def is_told_by_tls(client: TlsClient) -> bool:
    """The same of the answer to one request, by the protocol that was agreed on."""
    if client.tls.selected_alpn_protocol() != "h2":
        return is_told(await client.ask())
    codec = Connection(Role.CLIENT)
    codec.open_stream(PSEUDO, (), is_end=True)
    await client.send(codec.take())
    told: list[object] = []
    while not any(isinstance(event, ResponseReceived) for event in told):
        told += codec.receive(await client.read(), 0.0)
    (answer,) = [event for event in told if isinstance(event, ResponseReceived)]
    return answer.status == 503 and b"connection_limit_reached" in answer.lookup.get(b"proxy-status", b"")
