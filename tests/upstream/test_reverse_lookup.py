"""The names of an address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sidecar.upstream.lookup import CHANNELS, UNREACHABLE, CaresLookup, LookupFailed
from sidecar.upstream.reverse_lookup import names_of
from tests.support.dns import Reply, dns_server


class Unreaching(CaresLookup):
    """Its first channels reach nobody."""

    def __init__(self, unreaching: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.left = unreaching

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[Any]:
        if self.left:
            self.left -= 1
            raise LookupFailed(UNREACHABLE)
        async with super().channel() as channel:
            yield channel


@pytest.mark.parametrize("unreaching", range(CHANNELS + 1))
async def test_a_channel_that_has_reached_nobody_is_not_the_last_one(unreaching: int) -> None:
    async with dns_server() as dns:
        dns.replies = {"1.0.96.10.in-addr.arpa": Reply(pointer="Payments.shop.svc.cluster.local")}
        lookup = Unreaching(unreaching, nameservers=[dns.address], timeout_seconds=0.5, tries=1)
        if unreaching < CHANNELS:
            assert await names_of("10.96.0.1", lookup) == ("payments.shop.svc.cluster.local",)
        else:
            with pytest.raises(LookupFailed, match=UNREACHABLE):
                await names_of("10.96.0.1", lookup)
