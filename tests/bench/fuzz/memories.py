"""What the readers remember of earlier messages: found whatever it is called, made small, and forgotten.

A memory is a dict or a set of a module that is empty when the module is imported, or what `lru_cache` keeps. A new
one is found without a change here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sidecar.core import chunked, deadline, forwarded, plain
from sidecar.forwarding import heads
from sidecar.http1 import parse
from sidecar.upstream import framing

_SMALL: Final = {plain: {"MAX_KNOWN": 12, "MAX_LINES_OF_A_NAME": 3, "MAX_BLOCKS": 3, "MAX_BLOCK_BYTES": 200}}
"""Limits at which memories are full. So small, one input can reach them."""


def cold_plain() -> Any:
    """A second `core/plain.py`, which knows nothing of what the first one has learned."""
    spec = importlib.util.find_spec(plain.__name__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _memories_of(module: Any) -> list[Callable[[], None]]:
    """What empties each of them."""
    values = vars(module).values()
    kept = [value.clear for value in values if type(value) in (dict, set) and not value]
    return kept + [value.cache_clear for value in values if hasattr(value, "cache_clear")]


COLD: Final = cold_plain()
_MODULES: Final = (plain, chunked, deadline, forwarded, parse, heads, framing)
_CLEARS: Final = [clear for module in _MODULES for clear in _memories_of(module)]
_COLD_CLEARS: Final = _memories_of(COLD)


def forget() -> None:
    """Empty every memory: each input begins like the first one, so that it alone shows what it found."""
    for clear in _CLEARS:
        clear()


def cold() -> Any:
    """The second `core/plain.py`, with nothing in its memories."""
    for clear in _COLD_CLEARS:
        clear()
    return COLD


@contextmanager
def small() -> Iterator[None]:
    """Within it memories are full soon. A compiled module keeps its own limits."""
    before = [(module, name, getattr(module, name)) for module, limits in _SMALL.items() for name in limits]
    for module, limits in _SMALL.items():
        for name, value in limits.items():
            setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        forget()
