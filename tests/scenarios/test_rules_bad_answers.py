"""An upstream's answer that turns out bad: as long as nothing of it has gone to the client, the client gets a 502.

Once the head has gone, there is no other way to say it than to cut the connection (RFC 9112 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.scenarios.stage import GET, stage
from tests.support.raw import RawPeer, Response, Script, raw_client

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GOOD = b"5\r\nhello\r\n"
BAD = {
    "size": b"zz\r\nhello\r\n0\r\n\r\n",
    "size-empty": b"\r\nhello\r\n0\r\n\r\n",
    "size-signed": b"-5\r\nhello\r\n0\r\n\r\n",
    "size-prefixed": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size-beyond-64-bits": b"10000000000000000\r\nhello",
    "size-line-by-lf": b"5\nhello\r\n0\r\n\r\n",
    "size-line-by-cr": b"5\rhello\r\n0\r\n\r\n",
    "extension-with-nul": b"5;a=\x00\r\nhello\r\n0\r\n\r\n",
    "trailer-without-colon": b"0\r\nX-Checksum\r\n\r\n",
    "trailer-name-with-space": b"0\r\nX-Checksum : 1\r\n\r\n",
    "trailer-with-control": b"0\r\nX-Checksum: \x00\r\n\r\n",
}
BAD_BEHIND_DATA = {
    "no-line-end": b"5\r\nhelloXX0\r\n\r\n",
    "line-end-by-lf": b"5\r\nhello\n0\r\n\r\n",
    "longer-than-it-says": b"5\r\nhello, world\r\n0\r\n\r\n",
}
"""The data of the chunk is good, what stands behind it is not."""

FAILURES = (
    'sidecar_circuit_breaker_calls_total{sidecar_route="app",sidecar_upstream="app",'
    'sidecar_circuit_breaker_outcome="failure"}'
)


def saying_first(*pieces: bytes, is_bytewise: bool = False) -> Script:
    """The first connection's answer, one write for each piece; every other request is answered with an echo."""

    async def script(peer: RawPeer) -> None:
        if peer.number == 0:
            await peer.request()
            for piece in pieces:
                await peer.send(piece, is_bytewise=is_bytewise)
        await peer.echo()

    return script


@dataclass
class Seen:
    """What came to the client that got the bad answer, and to one that asked afterwards."""

    first: Response | None
    """None: not one whole head."""
    is_ended: bool
    after: Response
    failures: float
    """Calls that the breaker took for failed."""


async def seen_with(script: Script) -> Seen:
    async with stage(script) as to:
        async with raw_client(to.port) as client:
            await client.send(GET)
            found = await client.responses([b"GET"])
            is_ended = client.is_ended
        after = await to.ask()
        assert [peer.is_open for peer in to.app.peers] == [False, True]
        return Seen(found[0] if found else None, is_ended, after, to.metric(FAILURES))


@pytest.mark.parametrize(
    "behind",
    [*BAD.values(), *BAD_BEHIND_DATA.values(), *(GOOD + bad for bad in BAD.values())],
    ids=[*BAD, *BAD_BEHIND_DATA, *(f"{name}-behind-a-good-chunk" for name in BAD)],
)
async def test_a_bad_chunk_in_the_packet_of_the_head_is_a_502(behind: bytes) -> None:
    seen = await seen_with(saying_first(HEAD + behind))
    assert seen.first is not None
    assert not seen.first.is_cut
    assert seen.first.status == 502
    assert (seen.first.value(b"proxy-status") or b"").startswith(b"sidecar; error=http_protocol_error; ")
    assert not seen.is_ended, "its connection could go on"
    assert (seen.after.status, seen.failures) == (200, 1)


@pytest.mark.parametrize("interim", [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"])
async def test_an_interim_answer_before_it_in_the_same_packet_changes_nothing(interim: bytes) -> None:
    seen = await seen_with(saying_first(interim + HEAD + BAD["size"]))
    assert seen.first is not None
    assert (seen.first.status, [status for status, _ in seen.first.interims]) == (502, [103])
    assert not seen.is_ended


async def test_so_it_is_where_the_answer_switches_to_no_known_coding() -> None:
    seen = await seen_with(saying_first(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\n\r\nmoo"))
    assert seen.first is not None
    assert (seen.first.status, seen.is_ended) == (502, False)


@pytest.mark.parametrize("bad", [*BAD.values(), *BAD_BEHIND_DATA.values()], ids=[*BAD, *BAD_BEHIND_DATA])
async def test_a_bad_chunk_behind_a_head_that_has_gone_cuts_the_answer(bad: bytes) -> None:
    seen = await seen_with(saying_first(HEAD, bad))
    assert seen.is_ended
    assert seen.first is None or (seen.first.status, seen.first.is_cut) == (200, True)
    assert (seen.after.status, seen.failures) == (200, 1)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_byte_by_byte_it_is_never_taken_for_whole(bad: bytes) -> None:
    seen = await seen_with(saying_first(HEAD + GOOD + bad, is_bytewise=True))
    assert seen.is_ended
    assert seen.first is None or (seen.first.status, seen.first.is_cut) == (200, True)
    assert (seen.after.status, seen.failures) == (200, 1)


async def test_a_good_answer_in_one_packet_is_still_one() -> None:
    async with stage(saying_first(HEAD + GOOD + b"0\r\n\r\n")) as to:
        answer = await to.ask()
        assert (answer.status, answer.body, answer.is_cut) == (200, b"hello", False)
