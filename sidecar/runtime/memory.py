"""When the garbage collector may walk the whole heap: never on the loop, as far as it can be helped.

A full collection walks every live object in one go: 40 ms with 1,000 routes, in which nothing else runs. What lives
long is therefore frozen (`gc.freeze`): at the start, and after each reload what came with it. Frozen objects are
freed by their reference counts as ever; only cycles that were already dead when they were frozen stay. When
those may have become many, everything is thawed and collected once.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEVER = 1_000_000_000
GROWTH = 1.5
"""Frozen objects against those after the last full collection, at which one is due again."""
SLACK = 50_000
"""Objects that growth may come to without one: about 5 MiB."""

COUNT_EVERY = 50
"""Reloads between two counts of the frozen: counting alone walks them all (12 ms with 1,000 routes)."""

_YOUNG, _MIDDLE, _OLD = gc.get_threshold()
_frozen_at_best = 0
_settled = 0


@contextmanager
def imports() -> Iterator[None]:
    """One collection at the end of the block, and then what was imported is frozen: it stays, so that to look through
    it more often, or again at the end of the start, finds nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def settle_all() -> None:
    """Collect and freeze everything: when there may be too much dead among it."""
    global _frozen_at_best  # the collector is one to a process, and so is this
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    _frozen_at_best = gc.get_freeze_count()


def freeze_for_fork() -> None:
    """Before a process forks: what lives now is never looked at by the collector again, so that its pages stay shared
    (gc.freeze of Python's documentation)."""
    gc.collect()
    gc.freeze()


def settle_start() -> None:
    """At the end of the start. What is frozen stays so: imports, and what came before a fork, since thawing would
    write to every page that is shared."""
    global _frozen_at_best
    gc.collect()
    gc.freeze()
    _frozen_at_best = gc.get_freeze_count()


def hold() -> None:
    """No full collections from here to `settle`: a thousand new routes would bring one about."""
    gc.set_threshold(_YOUNG, _MIDDLE, NEVER)


def settle() -> None:
    """Freeze what a reload has made. Does nothing in a process that never called `settle_start`."""
    global _settled
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
    if not _frozen_at_best:
        return
    gc.collect(1)
    gc.freeze()
    _settled += 1
    if _settled % COUNT_EVERY == 0 and gc.get_freeze_count() > _frozen_at_best * GROWTH + SLACK:
        settle_all()
