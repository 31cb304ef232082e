"""Sections as models of pydantic, which makes the JSON Schema of them. What reads a file is `reading.py`.

Imported for the schema alone, because pydantic takes 10 MiB and a third of a second to import.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    create_model,
)
from pydantic_core import CoreSchema, core_schema

from sidecar.config.schema.section import Key, Section, keys_of
from sidecar.config.schema.values import OrShorthand, Read
from sidecar.core.dataclass import dataclass

_MODELS: dict[type[Section], Any] = {}


class _Model(BaseModel):
    """No unknown keys."""

    # Built when the schema is asked for: pydantic would build each for itself and in every one around it.
    model_config = ConfigDict(extra="forbid", defer_build=True)


def json_schema(section: type[Section]) -> dict[str, Any]:
    """As pydantic makes it."""
    schema: dict[str, Any] = _model(section).model_json_schema()
    return schema


def _model(section: type[Section]) -> Any:
    """The model of a section, made once."""
    if section not in _MODELS:
        fields: dict[str, Any] = {name: _field(about) for name, about in keys_of(section).items()}
        _MODELS[section] = create_model(
            section.__name__,
            __base__=_Model,
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
    return _as_shown(about.annotation), field


def _as_shown(annotation: Any) -> Any:
    """A type with the model of each section in its place."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return _model(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, metadata = arguments
        return Annotated[_as_shown(inner), _for_pydantic(metadata)]
    if origin in (Union, UnionType):
        return reduce(or_, map(_as_shown, arguments))
    return origin[tuple(map(_as_shown, arguments))] if origin in (list, dict) else annotation


def _for_pydantic(metadata: object) -> object:
    if isinstance(metadata, Read):
        return _Read(metadata)
    return _OrShorthand(metadata) if isinstance(metadata, OrShorthand) else metadata


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    about: Read

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.any_schema()

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.about.schema)


@dataclass(frozen=True, slots=True, eq=False)
class _OrShorthand:
    about: OrShorthand

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        long = handler(schema)
        return {"anyOf": [self.about.short or long["items"], long]}
