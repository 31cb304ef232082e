"""The value types of the file format: how each is read, and how an editor's JSON Schema shows it.

A type here is a Python type with a reader in front. Readers raise ValueError; `load/check.py` puts the
place to it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from sidecar.config.schema import names, units
from sidecar.config.schema.regex import Regex
from sidecar.config.yaml.nodes import Interpolated, resolve_plain
from sidecar.core.snapshot import (
    Address,
    BreakerMode,
    CancelWithCaller,
    Direction,
    Endpoint,
    Failure,
    Forwarded,
    LogFormat,
    Mode,
    Trust,
    WindowType,
)
from sidecar.core.window import MAX_COUNT_SIZE

_MAX_NEIGHBOURS = 1000
_MAX_WORD_CHARACTERS = 200


class Section(BaseModel):
    """A mapping of the file: no unknown keys, no silent conversions, no change after birth."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def setting(description: str, *, default: object = None, examples: list[object] | None = None) -> Any:
    """An optional key. `default` is the built-in one as the file would say it, for people and editors.

    The number itself lives in `core/snapshot.py`; the field's own default is None, "not given".
    """
    return Field(
        default=None,
        description=description,
        examples=examples,
        json_schema_extra=None if default is None else {"default": default},  # type: ignore[dict-item]
    )


def required(description: str, *, examples: list[object] | None = None) -> Any:
    """A key that must be given."""
    return Field(description=description, examples=examples)


def nearest(word: str, words: Iterable[str]) -> str:
    """`: did you mean 'x'?`, or nothing when no word is near. Nor for words that are too many to compare, or long."""
    words = list(islice(words, _MAX_NEIGHBOURS + 1))
    if len(words) > _MAX_NEIGHBOURS or len(word) > _MAX_WORD_CHARACTERS:
        return ""
    found = difflib.get_close_matches(word, words, n=1)
    return f": did you mean {found[0]!r}?" if found else ""


def plain(value: object) -> object:
    """A value from the environment, read as if it stood unquoted in the file."""
    return resolve_plain(value) if isinstance(value, Interpolated) else value


def text(value: object) -> str:
    """Text; a number or boolean is refused with the quotes it needs."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif value is None or isinstance(value, dict | list):
        raise ValueError(f"expected text, got {units.shown(value)}")
    raise ValueError(f'expected text, got {value}; put it in quotes: "{value}"')


def _quoted(value: object) -> str:
    return repr(str(value)) if isinstance(value, str) else units.shown(value)


def _non_empty(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _version(value: object) -> int:
    value = plain(value)
    if isinstance(value, bool) or value != 1 or not isinstance(value, int):
        raise ValueError(f"version {units.shown(value)} is not known: write version: 1")
    return value


def _of_text(reader: Callable[[str], object]) -> Callable[[object], object]:
    return lambda value: reader(text(value))


def _flag(value: object) -> bool:
    value = plain(value)
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, got {_quoted(value)}")
    return value


def _whole(lowest: int, highest: int | None = None) -> Callable[[object], int]:
    bounds = f"at least {lowest}" if highest is None else f"from {lowest} to {highest}"

    def read(value: object) -> int:
        value = plain(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"expected a whole number, got {_quoted(value)}{_zero_hint(value)}")
        if value < lowest or (highest is not None and value > highest):
            raise ValueError(f"{value} is out of range: {bounds}")
        return value

    return read


def _zero_hint(value: object) -> str:
    """YAML 1.1 read `010` as eight and YAML 1.2 as ten."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?0[0-9]+", value):
        return f" (a leading zero is ambiguous: write {value.lstrip('+-0') or '0'})"
    return ""


def _duration(value: object) -> float:
    return units.parse_duration(plain(value))


def _positive_duration(value: object) -> float:
    seconds = _duration(value)
    if seconds <= 0:
        raise ValueError("must be longer than 0s")
    return seconds


def _limit(value: object) -> float:
    """A duration, or `off` for no limit at all. `0s` means the same, as in Gateway API (GEP-1742)."""
    value = plain(value)
    if value == "off":
        return math.inf
    if not any(character.isdigit() for character in units.shown(value)):
        raise ValueError(f"{_quoted(value)} is not a duration: write one such as 2s, or off")
    return units.parse_duration(value) or math.inf


def _share(value: object) -> float:
    return units.parse_share(plain(value))


def _positive_share(value: object) -> float:
    share = _share(value)
    if share <= 0:
        raise ValueError("must be over 0%")
    return share


def _positive_size(value: object) -> int:
    size = units.parse_size(plain(value))
    if size <= 0:
        raise ValueError("must be over 0B")
    return size


def one_of(choices: dict[str, Any]) -> Callable[[object], Any]:
    """Read one of a few words."""

    def read(value: object) -> Any:
        if isinstance(value, str) and value in choices:
            return choices[value]
        wanted = ", ".join(choices)
        shown = units.shown(value)
        raise ValueError(f"expected one of {wanted}; got {_quoted(value)}{nearest(shown, choices)}")

    return read


def _member_of(enumeration: type[Enum]) -> Callable[[object], Any]:
    return one_of({str(member.value): member for member in enumeration})


def _failure(value: object) -> Failure | int:
    value = plain(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if not 100 <= value <= 599:
            raise ValueError(f"{value} is not a status from 100 to 599")
        return value
    words = {member.value: member for member in Failure}
    if isinstance(value, str) and value in words:
        return words[value]
    shown = units.shown(value)
    wanted = f"{', '.join(words)} or a status such as 429"
    raise ValueError(f"expected one of {wanted}; got {_quoted(value)}{nearest(shown, words)}")


def _window_size(value: object) -> float | int:
    value = plain(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return _whole(1, MAX_COUNT_SIZE)(value)
    return _positive_duration(value)


def _min_budget(value: object) -> float | str:
    if value in ("p50", "p95"):
        return str(value)
    try:
        return _positive_duration(value)
    except ValueError as error:
        raise ValueError(f"{error}; or p50 or p95") from None


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{value!r} is not a URL such as http://otel-collector:4317")
    return value


def _trace_url(value: str) -> str:
    if "{trace_id}" not in _url(value):
        raise ValueError("the URL must hold {trace_id} where the trace's id belongs")
    return value


def _upstream(value: str) -> str:
    """A name, or a URL kept as it is; both are looked up later, where all names are known."""
    if "://" in value:
        units.parse_upstream_url(value)
        return value
    return names.name(value)


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Annotation: read the value with `reader` first; show it in the JSON Schema as `schema`."""

    reader: Callable[[object], object]
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self.reader, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return dict(self.schema)


def _typed(reader: Callable[[object], object], **schema: Any) -> Read:
    return Read(reader, schema)


def _enum(enumeration: type[Enum]) -> Read:
    return Read(_member_of(enumeration), {"type": "string", "enum": [str(m.value) for m in enumeration]})


@dataclass(frozen=True, slots=True, eq=False)
class OrShorthand:
    """Annotation: `reader` turns a short form into the long one; the JSON Schema shows both."""

    reader: Callable[[object], object]
    short: dict[str, Any] | None = None
    """The short form's schema; None for "one item instead of a list"."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self.reader, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        long = handler(schema)
        return {"anyOf": [self.short or long["items"], long]}


_STRING = {"type": "string"}
_DURATION_SCHEMA = {"type": "string", "pattern": units.DURATION_PATTERN, "examples": ["250ms", "2s", "1m30s"]}
_SHARE_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": units.SHARE_PATTERN},
        {"type": "number", "minimum": 0, "maximum": 1},
    ],
    "examples": ["50%", 0.5],
}
_NAME_SCHEMA = {"type": "string", "pattern": names.NAME_PATTERN}

Text: TypeAlias = Annotated[str, _typed(text, **_STRING)]
NonEmptyText: TypeAlias = Annotated[str, _typed(_of_text(_non_empty), type="string", minLength=1)]
Flag: TypeAlias = Annotated[bool, _typed(_flag, type="boolean")]
Duration: TypeAlias = Annotated[float, _typed(_positive_duration, **_DURATION_SCHEMA)]
DurationOrZero: TypeAlias = Annotated[float, _typed(_duration, **_DURATION_SCHEMA)]
DurationOrOff: TypeAlias = Annotated[
    float, _typed(_limit, anyOf=[{"type": "string", "enum": ["off"]}, _DURATION_SCHEMA])
]
Share: TypeAlias = Annotated[float, _typed(_share, **_SHARE_SCHEMA)]
PositiveShare: TypeAlias = Annotated[float, _typed(_positive_share, **_SHARE_SCHEMA)]
Size: TypeAlias = Annotated[
    int, _typed(_positive_size, type="string", pattern=units.SIZE_PATTERN, examples=["64KiB", "1MiB"])
]
Count: TypeAlias = Annotated[int, _typed(_whole(1), type="integer", minimum=1)]
CountOrZero: TypeAlias = Annotated[int, _typed(_whole(0), type="integer", minimum=0)]
Weight: TypeAlias = Annotated[int, _typed(_whole(0, 1_000_000), type="integer", minimum=0, maximum=1_000_000)]
Status: TypeAlias = Annotated[int, _typed(_whole(200, 599), type="integer", minimum=200, maximum=599)]
Name: TypeAlias = Annotated[str, _typed(_of_text(names.name), **_NAME_SCHEMA)]
UpstreamName: TypeAlias = Annotated[str, _typed(_of_text(_upstream), type="string", examples=["payments"])]
ListenAddress: TypeAlias = Annotated[
    Address, _typed(units.parse_address, type="string", examples=["127.0.0.1:15001", "unix:/run/s.sock"])
]
EndpointAddress: TypeAlias = Annotated[
    Endpoint, _typed(units.parse_endpoint, type="string", examples=["payments:80", "unix:/run/app.sock"])
]
Url: TypeAlias = Annotated[str, _typed(_of_text(_url), type="string", format="uri")]
TraceUrl: TypeAlias = Annotated[str, _typed(_of_text(_trace_url), **_STRING)]
HeaderName: TypeAlias = Annotated[str, _typed(_of_text(names.header_name), **_STRING)]
SettableHeader: TypeAlias = Annotated[str, _typed(_of_text(names.settable_header_name), **_STRING)]
SettableRequestHeader: TypeAlias = Annotated[
    str, _typed(_of_text(names.settable_request_header_name), **_STRING)
]
HeaderValue: TypeAlias = Annotated[str, _typed(_of_text(names.header_value), **_STRING)]
Method: TypeAlias = Annotated[str, _typed(_of_text(names.method), type="string", examples=["GET", "POST"])]
HostPattern: TypeAlias = Annotated[
    str, _typed(_of_text(names.host_pattern), type="string", examples=["payments", "*.payments.svc"])
]
RewriteHost: TypeAlias = Annotated[str, _typed(_of_text(names.rewrite_host), **_STRING)]
Path: TypeAlias = Annotated[str, _typed(_of_text(names.path), type="string", pattern="^/")]
PathPrefix: TypeAlias = Annotated[str, _typed(_of_text(names.path_prefix), type="string", pattern="^/")]
RegexText: TypeAlias = Annotated[Regex, _typed(_of_text(Regex), type="string", format="regex")]
WindowSize: TypeAlias = Annotated[
    float | int,
    _typed(
        _window_size, anyOf=[_DURATION_SCHEMA, {"type": "integer", "minimum": 1, "maximum": MAX_COUNT_SIZE}]
    ),
]
MinBudget: TypeAlias = Annotated[
    float | str, _typed(_min_budget, anyOf=[{"type": "string", "enum": ["p50", "p95"]}, _DURATION_SCHEMA])
]
FailureItem: TypeAlias = Annotated[
    Failure | int,
    _typed(
        _failure,
        anyOf=[
            {"type": "string", "enum": [member.value for member in Failure]},
            {"type": "integer", "minimum": 100, "maximum": 599},
        ],
    ),
]
Version: TypeAlias = Annotated[int, _typed(_version, type="integer", const=1)]
Protocol: TypeAlias = Annotated[
    str,
    _typed(
        one_of({"grpc": "grpc", "http/protobuf": "http/protobuf"}),
        type="string",
        enum=["grpc", "http/protobuf"],
    ),
]
Compression: TypeAlias = Annotated[
    str, _typed(one_of({"gzip": "gzip", "none": "none"}), type="string", enum=["gzip", "none"])
]
PolicyMode: TypeAlias = Annotated[Mode, _enum(Mode)]
BreakerModeName: TypeAlias = Annotated[BreakerMode, _enum(BreakerMode)]
WindowTypeName: TypeAlias = Annotated[WindowType, _enum(WindowType)]
CancelMode: TypeAlias = Annotated[CancelWithCaller, _enum(CancelWithCaller)]
LogFormatName: TypeAlias = Annotated[LogFormat, _enum(LogFormat)]
TrustName: TypeAlias = Annotated[Trust, _enum(Trust)]
DirectionName: TypeAlias = Annotated[Direction, _enum(Direction)]
ForwardedName: TypeAlias = Annotated[Forwarded, _enum(Forwarded)]
