"""The last outcomes of each route: how much of them is kept, and where (SPEC 16).

A route has a ring of blocks, 65,536 records at most. All rings together have `limit_bytes`; where that is used up, a
ring that needs a further block gets the oldest one of another that has more than its share, else its own oldest. So
a busy route does not push out what a quiet one has seen.

Owned by the event loop, which writes; readers copy (`OutcomeRing.rows`). Pure: it knows bytes and no exchange."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from typing import Final

from sidecar.core.outcomes.record import FORM, RECORD_BYTES, OutcomeRecord, unpack

MOST_RECORDS: Final = 65_536
"""Of one route: 1.5 MiB."""
BLOCK_RECORDS: Final = 256
BLOCK_BYTES: Final = BLOCK_RECORDS * RECORD_BYTES
MOST_BLOCKS: Final = MOST_RECORDS // BLOCK_RECORDS
LIMIT_BYTES: Final = 8 * 1024 * 1024
"""Of all routes: five full rings."""
MEMORY_SHARE: Final = 8
"""What connections may hold divided by this is the limit, where that is less."""
MOST_NAMES: Final = 1024
"""Endpoints of one route that are told apart; further ones are number 0."""
_LOOKS: Final = 32
"""Rings that are looked at for one that has more than its share."""


def outcome_bytes(memory_bytes: int) -> int:
    """The limit for all routes, where connections may hold `memory_bytes`."""
    return min(LIMIT_BYTES, memory_bytes // MEMORY_SHARE)


class OutcomeStore:
    """All rings of a process."""

    __slots__ = ("_blocks", "_order", "limit_bytes", "rings", "scrap", "unkept")

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.rings: dict[str, OutcomeRing] = {}
        """By route."""
        self.scrap = bytearray(BLOCK_BYTES)
        """Where a ring writes that has no block: nobody reads it."""
        self.unkept = 0
        """Records that there was no room for at all, in whole blocks."""
        self._blocks = 0
        self._order: deque[OutcomeRing] = deque()

    def __repr__(self) -> str:
        return f"<OutcomeStore {self.used_bytes} of {self.limit_bytes} bytes for {len(self.rings)} routes>"

    @property
    def used_bytes(self) -> int:
        return self._blocks * BLOCK_BYTES

    def ring(self, route: str) -> OutcomeRing:
        """That of a route, which is made when first asked for. It holds nothing until there is something to hold."""
        found = self.rings.get(route)
        if found is None:
            found = self.rings[route] = OutcomeRing(self)
            self._order.append(found)
        return found

    def retain(self, routes: Collection[str]) -> None:
        """Forget what others have seen: a reload has taken them away."""
        for name in [one for one in self.rings if one not in routes]:
            self._blocks -= self.rings.pop(name).close()
        self._order = deque(self.rings.values())

    def resize(self, limit_bytes: int) -> None:
        """A reload brought another limit: what is over it goes, the oldest of the longest rings first."""
        self.limit_bytes = limit_bytes
        while self.used_bytes > limit_bytes:
            longest = max(self._order, key=lambda one: one.blocks)
            self._blocks -= 1 if longest.give_up() is not None else longest.clear()

    def take(self, asker: OutcomeRing) -> bytearray | None:
        """A block to write in, whatever stands in it; None: the asker is to use its own oldest one again."""
        if self.used_bytes + BLOCK_BYTES <= self.limit_bytes:
            self._blocks += 1
            return bytearray(BLOCK_BYTES)
        share = max(1, self.limit_bytes // BLOCK_BYTES // len(self.rings))
        if asker.blocks >= share:
            return None
        for _ in range(min(_LOOKS, len(self._order))):
            self._order.rotate(-1)
            other = self._order[0]
            if other.blocks > share and other is not asker:
                return other.give_up()
        return None


class OutcomeRing:
    """The last outcomes of one route, the oldest first. The writer packs a record into `block` at `offset`, and asks
    for `turn` when that has reached `BLOCK_BYTES`."""

    __slots__ = ("_full", "_is_closed", "_numbers", "_store", "block", "dropped", "names", "offset")

    def __init__(self, store: OutcomeStore) -> None:
        self._store = store
        self._full: deque[bytearray] = deque()
        self._is_closed = False
        """Its route has gone: requests that were under way then are not kept."""
        self.block = store.scrap
        self.offset = BLOCK_BYTES
        """Of the next record, in bytes."""
        self.dropped = 0
        """Records that were here and are not any more: the number of the first one that is."""
        self.names: list[tuple[str, str]] = [("", "")]
        """Upstream and endpoint, by number."""
        self._numbers: dict[tuple[str, str], int] = {}

    def __repr__(self) -> str:
        return f"<OutcomeRing {len(self)} records, {self.dropped} dropped>"

    def __len__(self) -> int:
        written = 0 if self._is_scrap else self.offset // RECORD_BYTES
        return len(self._full) * BLOCK_RECORDS + written

    @property
    def _is_scrap(self) -> bool:
        return self.block is self._store.scrap

    @property
    def blocks(self) -> int:
        return len(self._full) + (not self._is_scrap)

    @property
    def used_bytes(self) -> int:
        return self.blocks * BLOCK_BYTES

    def number(self, upstream: str, endpoint: str) -> int:
        """Of an endpoint, for a record; 0: there are too many."""
        name = upstream, endpoint
        found = self._numbers.get(name)
        if found is None:
            if len(self.names) > MOST_NAMES:
                return 0
            found = self._numbers[name] = len(self.names)
            self.names.append(name)
        return found

    def turn(self) -> int:
        """The block is full: begin another one. Returns the offset to go on at."""
        store = self._store
        if not self._is_scrap:
            self._full.append(self.block)
            self.block = store.scrap
        block = None if self._is_closed or len(self._full) >= MOST_BLOCKS else store.take(self)
        if block is None:
            block = self.give_up()
        if block is None:
            block = store.scrap
            store.unkept += 0 if self._is_closed else BLOCK_RECORDS
        self.block = block
        self.offset = 0
        return 0

    def give_up(self) -> bytearray | None:
        """The oldest block that is full, for others to write in; None: there is none."""
        if not self._full:
            return None
        self.dropped += BLOCK_RECORDS
        return self._full.popleft()

    def close(self) -> int:
        """Forget everything for good. Returns how many blocks that gives back."""
        self._is_closed = True
        return self.clear()

    def clear(self) -> int:
        """Forget everything. Returns how many blocks that gives back."""
        blocks = self.blocks
        self.dropped += len(self)
        self._full.clear()
        self.block = self._store.scrap
        self.offset = BLOCK_BYTES
        return blocks

    def rows(self, after: int, most: int) -> tuple[int, list[OutcomeRecord]]:
        """Of the records from number `after` on, those that are still here: the number of the first, and at most
        `most` of them."""
        first = max(after, self.dropped)
        last = min(self.dropped + len(self), first + most)
        return first, [unpack(fields) for fields in self._between(first - self.dropped, last - self.dropped)]

    def _between(self, begin: int, end: int) -> Iterator[tuple[float, ...]]:
        """The fields of the records that stand at these places."""
        while begin < end:
            number, place = divmod(begin, BLOCK_RECORDS)
            block = self._full[number] if number < len(self._full) else self.block
            count = min(BLOCK_RECORDS - place, end - begin)
            yield from FORM.iter_unpack(block[place * RECORD_BYTES : (place + count) * RECORD_BYTES])
            begin += count
