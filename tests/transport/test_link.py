"""A link does what its transport does, until it is closed: from then on it does nothing, and never raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.transport.link import Link
from tests.support.by_hand import HandTransport


def linked(*, can_write_eof: bool = True) -> tuple[Link, HandTransport]:
    transport = HandTransport(can_write_eof=can_write_eof)
    return Link(transport), transport


END: dict[str, Callable[[Link], None]] = {
    "end_writing": Link.end_writing,
    "close": Link.close,
    "abort": Link.abort,
    "reset": Link.reset,
    "lost": Link.lost,
}


def test_a_link_writes_pauses_and_resumes_as_its_transport() -> None:
    link, transport = linked()
    link.write(b"a")
    link.writelines((b"b", memoryview(b"c")))
    link.pause()
    link.resume()
    assert (transport.written, transport.calls) == (b"abc", ["pause", "resume"])


@pytest.mark.parametrize("end", END.values(), ids=END.keys())
def test_what_is_written_after_the_end_goes_nowhere(end: Callable[[Link], None]) -> None:
    link, transport = linked()
    link.write(b"before")
    end(link)
    link.write(b"after")
    link.writelines((b"after", b"after"))
    assert transport.written == b"before"


@pytest.mark.parametrize("first", END.values(), ids=END.keys())
@pytest.mark.parametrize("second", END.values(), ids=END.keys())
def test_an_end_may_follow_any_other(first: Callable[[Link], None], second: Callable[[Link], None]) -> None:
    link, _ = linked()
    first(link)
    second(link)
    assert link.is_closing or (first, second) == (Link.end_writing, Link.end_writing)


def test_once_lost_it_knows_nothing_and_touches_nothing() -> None:
    link, transport = linked()
    transport.unsent = 5
    link.lost()
    link.pause()
    link.resume()
    link.set_sink(object())
    link.close()
    link.abort()
    link.reset()
    link.end_writing()
    assert transport.calls == []
    assert transport.protocol is None
    facts = (link.unsent_bytes, link.untaken_bytes(), link.has_left(), link.is_reset(), list(link.unread()))
    assert facts == (0, 0, False, False, [])
    assert (link.is_lost, link.is_closing, link.can_half_close, link.local) == (True, True, False, None)
    assert link.is_readable()  # its end is what waits


def test_writing_ends_once_and_reading_goes_on() -> None:
    link, transport = linked()
    link.end_writing()
    link.resume()
    assert transport.calls == ["write_eof", "resume"]
    assert not link.is_closing


def test_a_transport_that_cannot_half_close_is_only_muted() -> None:
    link, transport = linked(can_write_eof=False)
    link.end_writing()
    link.write(b"after")
    assert (transport.calls, transport.written) == ([], b"")


def test_a_closing_transport_is_not_told_to_end_its_writing() -> None:
    link, transport = linked()
    link.close()
    link.end_writing()
    assert transport.calls == ["close"]


def test_a_link_knows_both_addresses() -> None:
    link, _ = linked()
    assert (link.peer, link.local) == (("192.0.2.1", 4711), ("192.0.2.2", 80))


def test_in_clear_text_nobody_has_proved_anything() -> None:
    link, _ = linked()
    assert (link.identity, link.sni, link.alpn, link.asked) == (None, None, None, None)


@pytest.mark.parametrize("name", ["/run/app.sock", b"", None])
def test_a_unix_socket_has_no_addresses(name: Any) -> None:
    transport = HandTransport()
    transport._extra.update(peername=name, sockname=name)  # type: ignore[attr-defined]
    link = Link(transport)
    assert (link.peer, link.local) == (None, None)
