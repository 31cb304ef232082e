"""A body that is sent again is the same to the byte, however it came and whenever a try ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.head import RequestHead
from sidecar.core.memory_budget import STEP_BYTES, MemoryBudget
from sidecar.core.plain import Field
from sidecar.forwarding.body import RequestBody
from sidecar.forwarding.streams import NO_CLIENT
from sidecar.upstream.streams import NoUpstream

KEPT = 64


class Upstream(NoUpstream):
    """One try's stream: what it was given."""

    def __init__(self) -> None:
        self.data = b""
        self.has_ended = False

    def send_head(
        self, head: RequestHead, held: Sequence[Any] = (), trailers: Sequence[Field] | None = None
    ) -> None:
        self.data = b"".join(bytes(one) for one in held)
        if trailers is not None:
            self.end(trailers)

    def send_data(self, data: bytes) -> None:
        self.data += data

    def end(self, trailers: object) -> None:
        self.has_ended = True


PIECES = st.lists(st.binary(max_size=30), max_size=8)
STEPS = st.lists(st.sampled_from(["piece", "try ends", "another try"]), max_size=30)


@given(pieces=PIECES, steps=STEPS)
def test_every_try_gets_what_has_come_and_the_last_one_all_of_it(
    pieces: list[bytes], steps: list[str]
) -> None:
    body = RequestBody().take(NO_CLIENT)
    body.keep_to_resend(KEPT, MemoryBudget())
    came, left, upstream = b"", list(pieces), None
    for step in [*steps, *["piece"] * len(pieces), "another try"]:
        if step == "piece":
            if left:
                piece = left.pop(0)
                came += piece
                body.arrived(piece)
                if not left:
                    body.completed(())
        elif step == "try ends":
            body.stop()
            upstream = None
        elif upstream is None and body.is_resendable:
            upstream = Upstream()
            body.send(upstream, RequestHead())
        if upstream is not None:
            assert upstream.data == came
    if upstream is not None and pieces and not left:
        assert (upstream.data, upstream.has_ended) == (b"".join(pieces), True)
    if sum(map(len, pieces)) <= KEPT:
        assert body.is_resendable


@given(pieces=PIECES)
def test_what_is_longer_than_is_kept_is_not_sent_again_once_a_try_had_it(pieces: list[bytes]) -> None:
    body = RequestBody().take(NO_CLIENT)
    body.keep_to_resend(KEPT, MemoryBudget())
    body.send(Upstream(), RequestHead())
    for piece in pieces:
        body.arrived(piece)
    is_kept = sum(map(len, pieces)) <= KEPT
    assert body.is_resendable == is_kept  # while that try has it, too: a hedge and a retry look at it then
    body.stop()
    assert body.is_resendable == is_kept


def test_what_is_kept_counts_as_memory_until_it_is_held_again_or_over() -> None:
    memory = MemoryBudget()
    before = memory.used_bytes
    body = RequestBody().take(NO_CLIENT)
    body.keep_to_resend(4 * STEP_BYTES, memory)
    body.send(Upstream(), RequestHead())
    for _ in range(3):
        body.arrived(b"x" * STEP_BYTES)
    assert memory.used_bytes - before == 3 * STEP_BYTES
    body.stop()
    assert (memory.used_bytes, body.held_bytes) == (before, 3 * STEP_BYTES)
    body.send(Upstream(), RequestHead())
    assert memory.used_bytes - before == 3 * STEP_BYTES
    body.release(NO_CLIENT)
    assert memory.used_bytes == before


def test_what_is_kept_is_given_up_where_memory_is_short() -> None:
    memory = MemoryBudget()
    body = RequestBody().take(NO_CLIENT)
    body.keep_to_resend(4 * STEP_BYTES, memory)
    body.send(Upstream(), RequestHead())
    body.arrived(b"x" * 2 * STEP_BYTES)
    kept, memory.is_full = memory.used_bytes, True
    body.arrived(b"x")
    assert memory.used_bytes == kept - 2 * STEP_BYTES
    body.stop()
    assert not body.is_resendable
