"""Batches as bytes: JSON, each item an array that begins with a letter. The reader takes nothing that the writer
could not have written, since what a store holds may come from another version, from an operator's hand, or from an
attacker.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sidecar.core.fleet.messages import (
    MAX_ITEMS,
    MAX_NAME,
    SLOTS,
    BreakerReport,
    Decision,
    FleetBatch,
    FleetItem,
    FleetOrder,
    PermitAnswer,
    PermitAsk,
    PermitReturn,
)
from sidecar.core.override import Override
from sidecar.core.transition import State

_T = TypeVar("_T")

VERSION: Final = 1
MAX_BYTES: Final = 524_288
"""Of one batch; the largest that we write has `MAX_ITEMS` reports with the longest names."""
MAX_ID: Final = 64
"""Characters of the name of a process or a replica."""
MAX_COUNT: Final = 2**53
MAX_SECONDS: Final = 1e8
"""Three years."""
MAX_DOUBLINGS: Final = 64
MAX_PERMITS: Final = 10_000


class BadMessage(ValueError):
    """Bytes that are no batch of this version; says why."""


def encode(batch: FleetBatch) -> bytes:
    """The bytes of a batch."""
    items = [_WRITERS[type(item)](item) for item in batch.items]
    whole = {"v": VERSION, "p": batch.sender, "r": batch.replica, "i": items}
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def decode(data: bytes) -> FleetBatch:
    """The batch of these bytes.

    Raises:
        BadMessage: they are none, are too many, or are of another version.
    """
    if len(data) > MAX_BYTES:
        raise BadMessage(f"{len(data)} bytes are more than {MAX_BYTES}")
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"no JSON: {type(error).__name__}") from None
    if not isinstance(whole, dict) or whole.get("v") != VERSION:
        raise BadMessage(f"not of version {VERSION}")
    if whole.keys() != {"v", "p", "r", "i"} or not isinstance(whole["i"], list):
        raise BadMessage("not the fields of a batch")
    if len(whole["i"]) > MAX_ITEMS:
        raise BadMessage(f"more than {MAX_ITEMS} items")
    return FleetBatch(_id(whole["p"]), _id(whole["r"]), tuple(map(_read, whole["i"])))


def _read(item: object) -> FleetItem:
    if not isinstance(item, list) or not item or not isinstance(item[0], str) or item[0] not in _READERS:
        raise BadMessage("an item of no known kind")
    make, checks = _READERS[item[0]]
    if len(item) - 1 != len(checks):
        raise BadMessage(f"an item {item[0]!r} of {len(item) - 1} fields, not {len(checks)}")
    made: FleetItem = make(*(check(value) for check, value in zip(checks, item[1:], strict=True)))
    return made


# What one field may be.


def _text(value: object, longest: int, shortest: int = 1) -> str:
    if not isinstance(value, str) or not shortest <= len(value) <= longest or not value.isprintable():
        raise BadMessage("a name that is empty, too long or not printable")
    return value


def _name(value: object) -> str:
    return _text(value, MAX_NAME)


def _who(value: object) -> str:
    return _text(value, MAX_NAME, 0)


def _id(value: object) -> str:
    return _text(value, MAX_ID)


def _whole(most: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if type(value) is not int or not 0 <= value <= most:
            raise BadMessage(f"a number that is not 0 to {most}")
        return value

    return check


_count = _whole(MAX_COUNT)


def _flag(value: object) -> bool:
    return _whole(1)(value) == 1


def _seconds(value: object) -> float:
    # Compared before it is made a float, which raises for a whole number of hundreds of digits.
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_SECONDS:
        raise BadMessage(f"a time that is not 0 to {MAX_SECONDS} s")
    return float(value)


def _maybe_seconds(value: object) -> float | None:
    return None if value is None else _seconds(value)


def _state(value: object) -> State:
    return _one_of(_STATES, value)


def _action(value: object) -> Override:
    return _one_of(_ACTIONS, value)


def _one_of(known: dict[str, _T], value: object) -> _T:
    if not isinstance(value, str) or value not in known:
        raise BadMessage(f"a word that is none of {', '.join(known)}")
    return known[value]


def _row(value: object) -> tuple[int, int]:
    first, second = _list(value, 2, 2)
    return _count(first), _count(second)


def _window(value: object) -> tuple[tuple[int, int, int], ...]:
    return tuple(map(_slot, _list(value, 0, SLOTS)))


def _slot(value: object) -> tuple[int, int, int]:
    total, failed, slow = map(_count, _list(value, 3, 3))
    if failed > total or slow > total:
        raise BadMessage("a slot with more failures or slow calls than calls")
    return total, failed, slow


def _list(value: object, shortest: int, longest: int) -> list[object]:
    if not isinstance(value, list) or not shortest <= len(value) <= longest:
        raise BadMessage(f"not a list of {shortest} to {longest}")
    return value


_STATES: Final = {"c": State.CLOSED, "o": State.OPEN, "h": State.HALF_OPEN}
_ACTIONS: Final = {action.value: action for action in Override}
_LETTERS: Final = {state: letter for letter, state in _STATES.items()}

_permits = _whole(MAX_PERMITS)

_READERS: Final[dict[str, tuple[Callable[..., FleetItem], tuple[Callable[[object], object], ...]]]] = {
    "r": (
        BreakerReport,
        (_name, _id, _id, _count, _count, _count, _window, _row, _row, _flag, _flag, _count, _count, _flag),
    ),
    "d": (
        Decision,
        (_name, _count, _count, _state, _id, _id, _seconds, _seconds, _whole(MAX_DOUBLINGS)),
    ),
    "o": (FleetOrder, (_name, _count, _id, _action, _maybe_seconds, _who)),
    "a": (PermitAsk, (_name, _id, _permits, _permits, _seconds, _count)),
    "g": (PermitAnswer, (_name, _id, _permits, _count)),
    "b": (PermitReturn, (_name, _id, _count)),
}


def _write_report(one: BreakerReport) -> list[object]:
    return [
        "r", one.breaker, one.process, one.replica, one.revision, one.fleet, one.pod, one.window, one.row,
        one.pod_row, int(one.is_open), int(one.is_dissenting), one.good, one.probes, int(one.has_failed),
    ]  # fmt: skip


def _write_decision(one: Decision) -> list[object]:
    return [
        "d", one.breaker, one.fleet, one.pod, _LETTERS[one.state], one.decider, one.replica,
        round(one.left_seconds, 4), round(one.wait_seconds, 4), one.doublings,
    ]  # fmt: skip


def _write_order(one: FleetOrder) -> list[object]:
    left = None if one.left_seconds is None else round(one.left_seconds, 4)
    return ["o", one.breaker, one.sequence, one.decider, one.action.value, left, one.by]


def _write_ask(one: PermitAsk) -> list[object]:
    return ["a", one.breaker, one.process, one.number, one.most, round(one.seconds, 4), one.number_of_ask]


def _write_answer(one: PermitAnswer) -> list[object]:
    return ["g", one.breaker, one.process, one.number, one.number_of_ask]


def _write_return(one: PermitReturn) -> list[object]:
    return ["b", one.breaker, one.process, one.number_of_ask]


_WRITERS: Final[dict[type, Callable[[Any], list[object]]]] = {
    BreakerReport: _write_report,
    Decision: _write_decision,
    FleetOrder: _write_order,
    PermitAsk: _write_ask,
    PermitAnswer: _write_answer,
    PermitReturn: _write_return,
}
