"""From a file's data to the sections that it gives, or to everything that is wrong in it, each at its place.

A section reads its keys, a list its items, a mapping its names and values; what a value says is read by the reader of
its type (`values.py`). `load/check.py` finds the lines and makes the messages.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

from sidecar.config.schema.section import Section, keys_of
from sidecar.config.schema.values import OrShorthand, Read, Rule
from sidecar.core.dataclass import dataclass

S = TypeVar("S", bound=Section)
Loc = tuple[int | str, ...]


class FaultKind(Enum):
    """What can be wrong with a value."""

    UNKNOWN_KEY = "unknown key"
    MISSING_KEY = "missing key"
    NO_MAPPING = "no mapping"
    NO_LIST = "no list"
    VALUE = "value"


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """One value that cannot be read."""

    kind: FaultKind
    path: list[int | str]
    """To the value, from outside in; for a missing key its own name is the last, for a name that is itself wrong
    `[key]` stands behind it."""
    error: ValueError | None = None
    """The reader's, where the kind is VALUE."""

    @property
    def loc(self) -> Loc:
        return tuple(self.path)


class UnreadableError(Exception):
    """Data that gives no section."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(f"{len(faults)} values cannot be read")
        self.faults = faults


_Reader = Callable[[object, list[Fault]], Any]
"""Gives the value; what it adds to the list is wrong with it, and then the value means nothing."""
_READERS: Final[dict[type[Section], _Reader]] = {}
KEY: Final = "[key]"


def read(section: type[S], data: object) -> S:
    """The section that `data` gives. A key that is not in it is None there.

    Raises:
        UnreadableError: `data` gives none.
    """
    faults: list[Fault] = []
    found: S = _section(section)(data, faults)
    if faults:
        raise UnreadableError(faults)
    return found


def _section(section: type[Section]) -> _Reader:
    if section not in _READERS:
        _READERS[section] = _of_keys(section)
    return _READERS[section]


def _of_keys(section: type[Section]) -> _Reader:
    keys = keys_of(section)
    readers: dict[str, _Reader] = {}  # made when the first of its kind is read: most keys are in no file
    required = [name for name, about in keys.items() if about.is_required]
    unset = dict.fromkeys(keys)

    def read_section(data: object, faults: list[Fault]) -> Any:
        if not isinstance(data, dict):
            faults.append(Fault(FaultKind.NO_MAPPING, []))
            return None
        made = object.__new__(section)
        fields = vars(made)
        fields.update(unset)
        for name, value in data.items():
            reader = readers.get(name)
            if reader is None:
                if name not in keys:
                    faults.append(Fault(FaultKind.UNKNOWN_KEY, [name]))
                    continue
                reader = readers[name] = _reader(keys[name].annotation)
            fields[name] = _inside(name, reader, value, faults)
        faults += [Fault(FaultKind.MISSING_KEY, [name]) for name in required if name not in data]
        return made

    return read_section


def _inside(place: int | str, reader: _Reader, value: object, faults: list[Fault]) -> Any:
    """What is wrong in there is at that place."""
    before = len(faults)
    found = reader(value, faults)
    for fault in faults[before:]:
        fault.path.insert(0, place)
    return found


def _reader(annotation: Any) -> _Reader:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        (inner,) = (one for one in arguments if one is not NoneType)
        return _or_none(_reader(inner))
    if origin is list:
        return _list(_reader(arguments[0]))
    if origin is dict:
        return _mapping(*map(_reader, arguments))
    if origin is Annotated:
        return _annotated(*arguments)
    assert issubclass(annotation, Section), f"nothing reads {annotation}"
    return _section(annotation)


def _annotated(inner: Any, metadata: object, *others: object) -> _Reader:
    assert not others, "one at a time"
    if isinstance(metadata, Read):
        # Many a reader of numbers takes whole ones.
        return _value(metadata.reader, float) if inner is float else _value(metadata.reader)
    if isinstance(metadata, OrShorthand):
        return _then(_value(metadata.reader), _reader(inner))
    assert isinstance(metadata, Rule), "there are no other annotations"
    return _then(_reader(inner), _value(metadata.check))


def _value(reader: Callable[[Any], object], kind: Callable[[Any], object] | None = None) -> _Reader:
    def read_value(data: object, faults: list[Fault]) -> Any:
        try:
            found = reader(data)
        except ValueError as error:
            faults.append(Fault(FaultKind.VALUE, [], error.with_traceback(None)))
            return None
        return found if kind is None else kind(found)

    return read_value


def _or_none(reader: _Reader) -> _Reader:
    return lambda data, faults: None if data is None else reader(data, faults)


def _then(first: _Reader, second: _Reader) -> _Reader:
    """What the first one gives is read by the second one, unless something is wrong with it."""

    def read_both(data: object, faults: list[Fault]) -> Any:
        before = len(faults)
        found = first(data, faults)
        return second(found, faults) if len(faults) == before else None

    return read_both


def _list(reader: _Reader) -> _Reader:
    def read_list(data: object, faults: list[Fault]) -> Any:
        if not isinstance(data, list):
            faults.append(Fault(FaultKind.NO_LIST, []))
            return None
        return [_inside(place, reader, item, faults) for place, item in enumerate(data)]

    return read_list


def _mapping(read_key: _Reader, reader: _Reader) -> _Reader:
    def read_mapping(data: object, faults: list[Fault]) -> Any:
        if not isinstance(data, dict):
            faults.append(Fault(FaultKind.NO_MAPPING, []))
            return None
        found = {}
        for name, value in data.items():
            before = len(faults)
            key = read_key(name, faults)
            for fault in faults[before:]:
                fault.path[:0] = [name, KEY]
            found[key] = _inside(name, reader, value, faults)
        return found

    return read_mapping
