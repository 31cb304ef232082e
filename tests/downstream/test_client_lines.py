"""What upstreams are told of a client is written once for all of its requests that are alike."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.block import Block
from sidecar.core.plain import Field
from sidecar.core.request import Request
from sidecar.core.snapshot import Forwarded
from sidecar.downstream.client_lines import MOST_KEPT, tell_of_client
from sidecar.downstream.terms import ListenerTerms

ABSTRACT = getattr(ListenerTerms, "__abstractmethods__", ())  # a compiled class has none
LISTENER: Any = type("Terms", (ListenerTerms,), dict.fromkeys(ABSTRACT))()
"""Nothing is asked of it but the following two."""
LISTENER.forwarded, LISTENER.owns_client_cert = Forwarded.SET, False
PEER = ("192.0.2.1", 4711)


def request_with(names: list[bytes], *, is_block: bool = True) -> Request:
    fields: list[Field] = [(name, name + b": 1\r\n", b"1") for name in names]
    lookup = dict.fromkeys(names, b"1")
    head = Block(fields, lookup) if is_block else fields
    return Request().take("inbound", b"GET", b"/", b"/", b"app", head, lookup)


@pytest.mark.parametrize(
    ("names", "is_block", "is_kept"),
    [
        ([b"x-%d" % number for number in range(MOST_KEPT)], True, True),
        ([b"x-%d" % number for number in range(MOST_KEPT + 1)], True, False),
        ([b"x-1"], False, False),
        ([b"x-forwarded-client-cert"], True, False),
    ],
)
def test_a_connection_keeps_the_values_of_a_small_block_without_fields_that_tell_of_clients(
    names: list[bytes], is_block: bool, is_kept: bool
) -> None:
    request = request_with(names, is_block=is_block)
    known = tell_of_client(request, LISTENER, PEER, None)
    assert known is not None
    assert known[:3] == (b"app", request.added, Forwarded.SET)
    assert b"192.0.2.1" in request.added
    assert known[3] is (request.lookup if is_kept else None)
