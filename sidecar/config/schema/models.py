"""Sections as models of pydantic, which read a file's data and make the JSON Schema.

Apart from the declarations, because pydantic takes 10 MiB and a third of a second to import, and a process that
serves does without.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    create_model,
)
from pydantic_core import CoreSchema, core_schema

from sidecar.config.schema.section import Key, Section, keys_of
from sidecar.config.schema.values import OrShorthand, Read, Rule
from sidecar.core.dataclass import dataclass

S = TypeVar("S", bound=Section)

_MODELS: dict[type[Section], Any] = {}


class _Model(BaseModel):
    """No unknown keys, no silent conversions, no change after birth."""

    # Built when the first of its kind is read: most sections are in no file, and pydantic would build each of them
    # for itself and in every section around it.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)

    def __init_subclass__(cls) -> None:
        """In place of that of `Section`: a model declares nothing, it is made of declarations."""


def read(section: type[S], data: object) -> S:
    """The section that `data` gives.

    Raises:
        pydantic.ValidationError: `data` is none.
    """
    found: S = _model(section).model_validate(data)
    return found


def json_schema(section: type[Section]) -> dict[str, Any]:
    """As pydantic makes it."""
    schema: dict[str, Any] = _model(section).model_json_schema()
    return schema


def _model(section: type[Section]) -> Any:
    """The model of a section, made once: a class below it, so that what was read has its methods."""
    if section not in _MODELS:
        fields: dict[str, Any] = {name: _field(about) for name, about in keys_of(section).items()}
        _MODELS[section] = create_model(
            section.__name__,
            __base__=(_Model, section),
            __module__=section.__module__,
            __doc__=section.__doc__,
            **fields,
        )
    return _MODELS[section]


def _field(about: Key) -> tuple[Any, Any]:
    default: Any = ... if about.is_required else None
    shown: Any = None if about.default is None else {"default": about.default}
    field = Field(
        default=default, description=about.description, examples=about.examples, json_schema_extra=shown
    )
    return _as_read(about.annotation), field


def _as_read(annotation: Any) -> Any:
    """A type with the model of each section in its place."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return _model(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *metadata = arguments
        return Annotated[(_as_read(inner), *map(_for_pydantic, metadata))]
    if origin in (Union, UnionType):
        return reduce(or_, map(_as_read, arguments))
    return origin[tuple(map(_as_read, arguments))] if origin in (list, dict) else annotation


def _for_pydantic(metadata: object) -> object:
    if isinstance(metadata, Read):
        return _Read(metadata)
    if isinstance(metadata, OrShorthand):
        return _OrShorthand(metadata)
    assert isinstance(metadata, Rule), "there are no other annotations"
    return AfterValidator(metadata.check)


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    about: Read

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.about.reader, handler(source))

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.about.schema)


@dataclass(frozen=True, slots=True, eq=False)
class _OrShorthand:
    about: OrShorthand

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.about.reader, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        long = handler(schema)
        return {"anyOf": [self.about.short or long["items"], long]}
