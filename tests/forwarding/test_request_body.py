"""A request body is held for a moment only, and its client is read no faster than the upstream takes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sidecar.core.head import RequestHead
from sidecar.core.memory_budget import STEP_BYTES
from sidecar.core.plain import Field
from sidecar.forwarding.body import MAX_HELD_BYTES, RequestBody
from sidecar.upstream.pool import Pool
from tests.support.by_hand import HERE, HandClient, HandLease, HandLoop, HandStream, hand_cluster

TRAILERS: list[Field] = [(b"a", b"A: 1\r\n", b"1")]


def new_body() -> tuple[RequestBody, HandClient]:
    client = HandClient()
    return RequestBody().take(client), client


def new_lease() -> HandLease:
    return HandLease(Pool(hand_cluster(HandLoop()), HERE))


class FullSocket(HandStream):
    """An upstream that says within the writing of the head that it has enough, and only once, as asyncio's do."""

    def __init__(self, body: RequestBody) -> None:
        super().__init__()
        self._body = body

    def send_head(
        self, head: RequestHead, held: Sequence[Any] = (), trailers: Sequence[Field] | None = None
    ) -> None:
        self._body.hold_back()


def send(body: RequestBody, lease: HandLease) -> None:
    """As an attempt does it."""
    head = RequestHead()
    head.target = b"/"
    body.send(lease.stream, head)


@pytest.mark.parametrize(("size", "told"), [(MAX_HELD_BYTES, []), (MAX_HELD_BYTES + 1, ["hold"])])
def test_a_client_is_held_back_while_nobody_takes_its_body(size: int, told: list[str]) -> None:
    body, client = new_body()
    body.arrived(bytes(size))
    assert (client.names, body.size) == (told, size)


@pytest.mark.parametrize(
    ("size", "told"),
    [(STEP_BYTES, []), (MAX_HELD_BYTES, ["resume"]), (MAX_HELD_BYTES + 1, ["hold", "resume"])],
)
def test_a_client_goes_on_when_its_body_is_taken(size: int, told: list[str]) -> None:
    body, client = new_body()
    body.arrived(bytes(size))
    lease = new_lease()
    send(body, lease)
    assert client.names == told
    assert lease.notes == [("head", b"/", bytes(size))]


def test_a_client_stays_held_back_where_what_was_held_fills_the_socket() -> None:
    """The upstream tells it once: a client that is read on would fill the memory instead."""
    body, client = new_body()
    body.arrived(bytes(MAX_HELD_BYTES + 1))
    socket = FullSocket(body)
    body.send(socket, RequestHead())
    assert client.names == ["hold", "resume", "hold"]


def test_what_arrives_later_goes_on_at_once_and_in_order() -> None:
    body, client = new_body()
    body.arrived(b"a")
    lease = new_lease()
    send(body, lease)
    body.arrived(b"b")
    body.arrived(b"c")
    body.completed(TRAILERS)
    assert lease.notes == [("head", b"/", b"a"), ("data", b"b"), ("data", b"c"), ("end", TRAILERS)]
    assert (client.notes, body.size, body.is_complete) == ([], 3, True)


def test_a_body_that_was_whole_before_is_ended_when_it_is_sent() -> None:
    body, _ = new_body()
    body.arrived(b"ab")
    body.completed(TRAILERS)
    lease = new_lease()
    send(body, lease)
    assert lease.notes == [("head", b"/", b"ab"), ("end", TRAILERS)]


def test_a_body_that_came_with_its_head_holds_nobody_back_whatever_its_size() -> None:
    body, client = new_body()
    body.arrived_whole(memoryview(bytes(MAX_HELD_BYTES + 1)))
    lease = new_lease()
    send(body, lease)
    assert (body.size, body.is_complete) == (MAX_HELD_BYTES + 1, True)
    assert "hold" not in client.names
    assert lease.names == ["head", "end"]


# Another attempt


def test_a_body_of_which_nothing_has_arrived_can_go_to_another_attempt() -> None:
    body, _ = new_body()
    first, second = new_lease(), new_lease()
    send(body, first)
    body.stop()
    assert body.is_untouched
    send(body, second)
    body.arrived(b"late")
    body.completed(())
    assert (first.notes, second.notes) == (
        [("head", b"/", b"")],
        [("head", b"/", b""), ("data", b"late"), ("end", [])],
    )


@pytest.mark.parametrize("when", ["held", "later", "ended"])
def test_a_body_of_which_an_attempt_was_given_something_cannot_go_to_another(when: str) -> None:
    body, _ = new_body()
    if when == "held":
        body.arrived(b"a")
    send(body, new_lease())
    if when == "later":
        body.arrived(b"a")
    if when == "ended":
        body.completed(())
        send(body, new_lease())
    body.stop()
    assert not body.is_untouched


def test_nothing_goes_to_an_attempt_that_has_ended() -> None:
    body, _ = new_body()
    lease = new_lease()
    send(body, lease)
    body.stop()
    body.arrived(b"late")
    body.completed(())
    assert lease.notes == [("head", b"/", b"")]


def test_stopping_before_anything_was_sent_keeps_it_untouched() -> None:
    body, _ = new_body()
    body.arrived(b"held")
    body.stop()
    assert body.is_untouched
    lease = new_lease()
    send(body, lease)
    assert lease.notes == [("head", b"/", b"held")]


def test_where_there_is_little_memory_less_is_held_and_it_can_be_counted() -> None:
    client = HandClient()
    body = RequestBody().take(client, 4096)
    body.arrived(b"a" * 4096)
    assert (body.held_bytes, client.notes) == (4096, [])
    body.arrived(b"b")
    assert (body.held_bytes, client.notes) == (4097, [("hold",)])
    send(body, new_lease())
    assert body.held_bytes == 0


def test_a_body_that_is_whole_and_empty_has_no_piece() -> None:
    """To an upstream of HTTP/1.1 an empty piece would be the last chunk, with another one behind it."""
    body, _ = new_body()
    body.arrived_whole(b"")
    assert (body.again(), body.is_complete) == ([], True)
