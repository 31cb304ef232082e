"""Classes of `core/dataclass.py` beside the same ones of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import pytest

from sidecar.core import dataclass as ours


def both(*, of: Callable[[ModuleType], type]) -> Any:
    return pytest.mark.parametrize("made", [of(dataclasses), of(ours)], ids=["standard library", "ours"])


def point(module: Any) -> type:
    @module.dataclass(frozen=True, slots=True)
    class Point:
        """Where."""

        unit: ClassVar[str] = "m"
        x: int
        y: int = 2
        names: list[str] = dataclasses.field(default_factory=list, compare=False)
        told: str = dataclasses.field(default="secret", repr=False)
        length: int = dataclasses.field(init=False, compare=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "length", self.x + self.y)

    return Point


def counter(module: Any) -> type:
    @module.dataclass(slots=True)
    class Counter:
        count: int = 0
        seen: set[int] = dataclasses.field(default_factory=set)
        fixed: int = dataclasses.field(default=7, init=False)
        made: list[int] = dataclasses.field(default_factory=list, init=False)

    return Counter


def version(module: Any) -> type:
    @module.dataclass(frozen=True, slots=True, order=True)
    class Version:
        major: int
        minor: int = 0

    return Version


def folded(module: Any) -> type:
    @module.dataclass(frozen=True, slots=True)
    class Folded:
        text: str

        def __eq__(self, other: object) -> bool:
            return isinstance(other, type(self)) and self.text.lower() == other.text.lower()

        def __repr__(self) -> str:
            return "folded"

    return Folded


def task(module: Any) -> type:
    @module.dataclass(slots=True, eq=False)
    class Task:
        name: str = ""

    return Task


def named(module: Any) -> type:
    @module.dataclass(frozen=True)
    class Base:
        x: int

    @module.dataclass(frozen=True)
    class Named(Base):
        name: str = "n"

    return Named


@both(of=point)
def test_a_frozen_class_has_what_was_given_and_its_defaults(made: Any) -> None:
    one = made(1)
    assert (one.x, one.y, one.names, one.told, one.length) == (1, 2, [], "secret", 3)
    assert made(1).names is not one.names
    assert made(x=1, y=5, names=["a"]).names == ["a"]
    assert repr(one).endswith("Point(x=1, y=2, names=[], length=3)")
    assert one == made(1, 2, ["other"])
    assert hash(one) == hash(made(1, 2, ["other"])) == made.__hash__(one)
    assert one != made(1, 3)
    assert one != (1, 2, "secret")
    assert not hasattr(one, "__dict__")


@both(of=point)
def test_a_frozen_class_refuses_every_change(made: Any) -> None:
    one = made(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
        one.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'y'"):
        del one.y


@both(of=point)
def test_the_standard_library_knows_its_fields(made: Any) -> None:
    assert dataclasses.is_dataclass(made)
    assert [field.name for field in dataclasses.fields(made)] == ["x", "y", "names", "told", "length"]
    assert dataclasses.replace(made(1), y=3) == made(1, 3)
    assert dataclasses.asdict(made(1))["length"] == 3
    assert made.__match_args__ == ("x", "y", "names", "told")
    assert made.__doc__ == "Where."


@both(of=point)
def test_a_signature_tells_names_types_and_what_may_be_left_out(made: Any) -> None:
    parameters = inspect.signature(made).parameters
    assert [*parameters] == ["x", "y", "names", "told"]
    assert parameters["x"].default is inspect.Parameter.empty
    assert parameters["y"].default == 2
    assert typing.get_type_hints(made.__init__)["names"] == list[str]


@both(of=point)
def test_what_is_missing_or_too_much_is_an_error_of_types(made: Any) -> None:
    with pytest.raises(TypeError, match=r"__init__\(\) missing 1 required positional argument: 'x'"):
        made()
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        made(1, z=2)


@both(of=counter)
def test_a_class_that_changes_has_no_hash(made: Any) -> None:
    one = made(3)
    one.count += 1
    assert (one.count, one.fixed, one.made) == (4, 7, [])
    assert one == made(4)
    assert made.__hash__ is None
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


@both(of=version)
def test_an_order_is_that_of_the_fields(made: Any) -> None:
    assert sorted([made(2), made(1, 5), made(1)]) == [made(1), made(1, 5), made(2)]
    assert made(1) <= made(1)
    assert made(2) > made(1, 9)
    with pytest.raises(TypeError):
        _ = made(1) < 2


@both(of=folded)
def test_methods_of_the_class_itself_stay(made: Any) -> None:
    assert made("A") == made("a")
    assert repr(made("A")) == "folded"
    assert hash(made("A")) == hash(made("A"))


@both(of=task)
def test_without_eq_each_object_is_its_own(made: Any) -> None:
    one = made("a")
    assert one != made("a")
    assert one in {one}


@both(of=named)
def test_a_subclass_has_the_fields_of_its_base_first(made: Any) -> None:
    assert made(1) == made(1, "n")
    assert made.__base__(1) == made.__base__(1)
    assert made.__base__(1) != made(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made(1).name = "m"


@both(of=point)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_a_frozen_object_survives_pickles_and_copies(
    made: Any, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.__qualname__ = "Pickled"
    monkeypatch.setitem(globals(), "Pickled", made)
    one = made(1, names=["a"])
    again = pickle.loads(pickle.dumps(one, protocol))
    assert (again, again.names, again.length) == (one, ["a"], 3)
    assert copy.copy(one) == copy.deepcopy(one) == one
