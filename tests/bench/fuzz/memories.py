"""What the readers remember of earlier messages: found whatever it is called, made small, and forgotten.

A memory is a dict, a set or a list of a module that is empty when the module is imported, a number or flag that is no
constant by its name, or what `lru_cache` keeps. A new one is found without a change here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from sidecar.core import chunked, deadline, forwarded, plain
from sidecar.forwarding import heads
from sidecar.http1 import parse
from sidecar.upstream import framing

_SMALL: Final = {
    plain: {
        "MAX_KNOWN": 12, "MAX_LINES_OF_A_NAME": 3, "MAX_BLOCKS": 3, "MAX_BLOCK_BYTES": 200, "MAX_TEMPLATES": 2,
        "LEARNING_TURN": 1,
    },
}  # fmt: skip
"""Limits at which memories are full. So small, one input can reach them."""


def cold_plain() -> Any:
    """A second `core/plain.py`, which knows nothing of what the first one has learned."""
    spec = importlib.util.find_spec(plain.__name__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _memories_of(module: Any, fresh: Any) -> list[Callable[[], None]]:
    """What empties each of them. `fresh`: the same module before it has learned anything, if there is one."""
    values, first = vars(module), vars(fresh)
    kept = [
        values[name].clear for name, value in first.items() if type(value) in (dict, set, list) and not value
    ]
    kept += [value.cache_clear for value in values.values() if hasattr(value, "cache_clear")]
    counts = {name: value for name, value in first.items() if _is_count(name, value)}
    return [*kept, partial(values.update, counts)]


def _is_count(name: str, value: object) -> bool:
    return name.islower() and type(value) in (int, bool)


COLD: Final = cold_plain()
_MODULES: Final = (plain, chunked, deadline, forwarded, parse, heads, framing)
_CLEARS: Final = [
    clear for module in _MODULES for clear in _memories_of(module, COLD if module is plain else module)
]
_COLD_CLEARS: Final = _memories_of(COLD, COLD)


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
