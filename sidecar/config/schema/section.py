"""A mapping of the file as a class, in which each key is declared once.

A declaration says of which type the key's value is (`values.py`), what it means, and which field of the snapshot it
fills. From there come the reader (`reading.py`), the JSON Schema (`models.py` has pydantic make it), the value in the
snapshot (`store`), the built-in value that people and editors are shown, and the way back, from a snapshot to the
words of the file (`told`). A process that serves needs the way back alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from inspect import get_annotations
from itertools import chain
from operator import attrgetter
from types import UnionType
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin

from sidecar.config.schema.form import Form, Hidden
from sidecar.core.dataclass import dataclass

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Key:
    """What a declaration says."""

    description: str
    fills: str | None
    """The field of the snapshot's object, with dots to one inside; None: no field of its own."""
    form: Form | None
    """None until the class is made: then that of the type."""
    default: object = None
    """The built-in value as the file would say it; None: unset, or it depends on other keys."""
    is_derived: bool = False
    is_required: bool = False
    examples: list[object] | None = None
    annotation: Any = None
    """The type of its value, once the class is made."""


def key(
    description: str,
    *,
    fills: str | None = None,
    form: Form | None = None,
    default: object = None,
    is_derived: bool = False,
    examples: list[object] | None = None,
) -> Any:
    """An optional key.

    Args:
        fills: the field of the snapshot that its value goes to. A key whose value is a section and that fills
            nothing groups keys that fill fields of the object around it.
        form: how the value stands there, if that is not what its type says.
        default: to show, where it is not what the snapshot's field has: the class's `built_in` says that.
        is_derived: without it something else decides, so there is no default to show.
    """
    return Key(description, fills, form, default, is_derived, examples=examples)


def required(
    description: str,
    *,
    fills: str | None = None,
    form: Form | None = None,
    examples: list[object] | None = None,
) -> Any:
    """A key that must be given; as above."""
    return Key(description, fills, form, is_derived=True, is_required=True, examples=examples)


class Section:
    """A mapping of the file. Those that were read have the value of each key, or None (`reading.py`)."""

    built_in: ClassVar[Any] = None
    """The object of `core/snapshot` whose fields the keys fill, as it is when none is given."""

    _keys: ClassVar[Mapping[str, Key]] = {}
    _entries: ClassVar[tuple[_Entry, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Collect what the class declares."""
        types = get_annotations(cls, eval_str=True)
        own = {name: _taken(cls, name) for name in types}
        for name, about in own.items():
            about.annotation = types[name]
        cls.__annotations__ = {}  # pydantic would work them out again for each model, and has them from the keys
        cls._keys = {**cls._keys, **own}
        for about in cls._keys.values():
            if about.form is None:
                about.form = _form_of(about.annotation)
            has_default = about.fills is not None and about.form is not None and not about.is_derived
            if has_default and about.default is None and cls.built_in is not None:
                about.default = _default(about, cls.built_in)
        entries = (_entry(name, about) for name, about in cls._keys.items())
        cls._entries = tuple(entry for entry in entries if entry.fills or entry.section)

    def store(self, base: T, but: Collection[str] = ()) -> T:
        """`base` with what this section gives, except for the keys `but`."""
        return _with(base, self._changes(base, but))

    def _changes(self, base: Any, but: Collection[str] = ()) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        for entry in self._entries:
            value = entry.given(self)
            if value is None or entry.name in but:
                continue
            if entry.fills is None:
                changes |= value._changes(base)
            elif entry.form is not None:
                changes[entry.fills] = entry.form.store(value)
            else:
                changes[entry.fills] = value.store(entry.get(base) or value.built_in)
        return changes

    @classmethod
    def told(cls, value: Any, hidden: Hidden = frozenset(), prefix: str = "") -> dict[str, str]:
        """Each key that is set in an object of the snapshot, with its value as the file would write it.

        Keys are dotted, behind `prefix`, and stand in the order of the reference.
        """
        told: dict[str, str] = {}
        for entry in cls._entries:
            found = value if entry.fills is None else entry.get(value)
            if found is None:
                if entry.form is not None and entry.form.unset is not None:
                    told[prefix + entry.name] = entry.form.unset
                continue
            if entry.section is not None:
                told |= entry.section.told(found, hidden, f"{prefix}{entry.name}.")
            elif entry.form is not None:
                text = entry.form.text(found, hidden)
                if text is not None:
                    told[prefix + entry.name] = text
        return told


def stored(section: Section | None, base: T) -> T:
    """`base` with what `section` gives, if there is one."""
    return base if section is None else section.store(base)


def keys_of(section: type[Section]) -> Mapping[str, Key]:
    """What the declarations of its keys say, by name, in the order of the reference."""
    return section._keys


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a value of this type is, if it is one."""
    for argument in get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,):
        if isinstance(argument, type) and issubclass(argument, Section):
            return argument
    return None


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    """A key, as `store` and `told` want it: worked out once for each class."""

    name: str
    fills: str | None
    form: Form | None
    section: type[Section] | None
    """Where the value is a section, and no form makes something else of it."""
    given: Callable[[Any], Any]
    """The value in a section that was read."""
    get: Callable[[Any], Any]
    """The value in an object of the snapshot."""


def _entry(name: str, about: Key) -> _Entry:
    section = section_of(about.annotation) if about.form is None else None
    get = attrgetter(about.fills) if about.fills else _nothing
    return _Entry(name, about.fills, about.form, section, attrgetter(name), get)


def _taken(cls: type[Section], name: str) -> Key:
    """A declaration, which the class gives away: its instances have the value in that place."""
    about = vars(cls).get(name)
    assert isinstance(about, Key), f"{cls.__name__}.{name} is declared with `key` or `required`"
    delattr(cls, name)
    return about


def _nothing(_: Any) -> None:
    return None


def _with(base: T, changes: dict[str, Any]) -> T:
    """`base` with these fields, dotted ones inside of what it holds."""
    own = {name: value for name, value in changes.items() if "." not in name}
    for name, value in changes.items():
        first, dot, rest = name.partition(".")
        if dot:
            own[first] = _with(own.get(first, getattr(base, first)), {rest: value})
    return replace(base, **own) if own else base  # type: ignore[type-var]


def _form_of(annotation: Any) -> Form | None:
    """That of the type, without `| None`."""
    parts = (annotation, *get_args(annotation))
    for metadata in chain.from_iterable(getattr(part, "__metadata__", ()) for part in parts):
        form = getattr(metadata, "form", None)
        if isinstance(form, Form):
            return form
    return None


def _default(about: Key, built_in: object) -> object:
    """What the file would say; None for what is unset or empty."""
    assert about.fills is not None
    assert about.form is not None
    value = attrgetter(about.fills)(built_in)
    data = None if value is None else about.form.write(value)
    return None if data in ("", [], {}) else data
