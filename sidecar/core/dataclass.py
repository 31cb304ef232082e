"""`dataclass` for classes that are interpreted: their methods are made at their first use.

The standard library has five methods or more of each class compiled when the class is made, and most are never
called: a quarter of all that a serving process took to import. Here a class has its fields and slots from the
standard library at once, and each method when somebody asks for it. What is made is the same, and to a type checker
it is the standard library's own `dataclass`. Modules that one of the builds compiles take `path_dataclass.py`'s.
"""

from __future__ import annotations

import dataclasses
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, slots=False, eq=True, order=False):
        """As `dataclasses.dataclass`, with those of its options that are used here.

        A frozen class is frozen in subclasses, too: their own fields as well.
        """
        if cls is None:
            return lambda cls: _made(cls, frozen, slots, eq, order)
        return _made(cls, frozen, slots, eq, order)


_UNSET: Final = object()
"""An argument that was not given, where a default is made anew each time."""
_ORDER: Final = ("__lt__", "__le__", "__gt__", "__ge__")


def _made(cls: Any, frozen: bool, slots: bool, eq: bool, order: bool) -> Any:
    own = {
        name for name, value in vars(cls).items() if value is not None
    }  # `__hash__` is None beside an `__eq__`
    if cls.__doc__ is None:
        cls.__doc__ = cls.__name__  # else the standard library looks for the signature
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
    names = ["__init__", "__repr__", *(("__eq__",) if eq else ()), *(_ORDER if order else ())]
    if eq and frozen:
        names.append("__hash__")
    for name in names:
        if name not in own:
            setattr(made, name, _Late(made, name, frozen))
    if eq and not frozen and "__hash__" not in own:
        made.__hash__ = None
    if frozen:
        made.__setattr__ = _refuse_assignment
        made.__delattr__ = _refuse_deletion
        if slots and "__setstate__" not in own:
            made.__getstate__ = _state
            made.__setstate__ = _restore
    return made


class _Late:
    """A method that is made when it is looked up, and takes this one's place."""

    __slots__ = ("_frozen", "_name", "_owner")

    def __init__(self, owner: Any, name: str, frozen: bool) -> None:
        self._owner = owner
        self._name = name
        self._frozen = frozen

    def __get__(self, instance: object, kind: type | None = None) -> Any:
        if instance is None and self._name == "__hash__":
            return self  # the standard library looks whether there is one, in each class of a default
        return self._taken().__get__(instance, kind)

    def __call__(self, *arguments: Any) -> Any:
        return self._taken()(*arguments)

    def _taken(self) -> Any:
        owner, name = self._owner, self._name
        method = _initialiser(owner, self._frozen) if name == "__init__" else _method(owner, name)
        setattr(owner, name, method)
        return method


def _initialiser(owner: Any, frozen: bool) -> Any:
    """`__init__`. By the standard library a frozen class would have two more methods compiled for it."""
    fields = dataclasses.fields(owner)
    known: dict[str, Any] = {"_put": object.__setattr__, "_UNSET": _UNSET}
    parameters, lines = ["self"], []
    for field in fields:
        name, value = field.name, field.name
        if field.default_factory is not dataclasses.MISSING:
            known[f"_make_{name}"] = field.default_factory
            value = f"_make_{name}() if {name} is _UNSET else {name}" if field.init else f"_make_{name}()"
            parameters += [f"{name}=_UNSET"] if field.init else []
        elif field.default is not dataclasses.MISSING:
            known[f"_default_{name}"] = field.default
            value = name if field.init else f"_default_{name}"
            parameters += [f"{name}=_default_{name}"] if field.init else []
        elif field.init:
            parameters.append(name)
        else:
            continue
        lines.append(f"_put(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(owner, "__post_init__"):
        lines.append("self.__post_init__()")
    body = "\n  ".join(lines or ["pass"])
    text = (
        f"def make({', '.join(known)}):\n def __init__({', '.join(parameters)}):\n  {body}\n return __init__"
    )
    scope: dict[str, Any] = {}
    exec(text, vars(sys.modules[owner.__module__]), scope)
    made = scope["make"](**known)
    made.__qualname__ = f"{owner.__qualname__}.__init__"
    made.__annotations__ = {field.name: field.type for field in fields if field.init} | {"return": None}
    return made


def _method(owner: Any, name: str) -> Any:
    """That of a class with the same fields, made by the standard library with nothing else in it."""
    fields = dataclasses.fields(owner)
    body: dict[str, Any] = {
        "__module__": owner.__module__,
        "__qualname__": owner.__qualname__,
        "__doc__": name,
    }
    body["__annotations__"] = {field.name: field.type for field in fields}
    body |= {field.name: _again(field) for field in fields}
    is_order, is_hash = name in _ORDER, name == "__hash__"
    twin: Any = dataclasses.dataclass(
        init=False,
        repr=name == "__repr__",
        eq=is_order or name == "__eq__",
        order=is_order,
        unsafe_hash=is_hash,
    )(type(owner.__name__, (), body))
    return vars(twin)[name]


def _again(field: dataclasses.Field[Any]) -> Any:
    """The same, for another class."""
    return dataclasses.field(
        default=field.default,
        default_factory=field.default_factory,
        init=field.init,
        repr=field.repr,
        hash=field.hash,
        compare=field.compare,
        kw_only=field.kw_only,
    )


# Of frozen classes: one for all of them.


def _refuse_assignment(_: object, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deletion(_: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    """For pickles and copies."""
    return [getattr(self, name) for name in _names(self.__class__)]


def _restore(self: Any, state: list[Any]) -> None:
    put = object.__setattr__
    for name, value in zip(_names(self.__class__), state, strict=True):
        put(self, name, value)


@cache
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))
