"""The types of values in the file: how each is read, shown in the JSON Schema of editors, and written back.

A type here is a Python type with a reader in front. What the annotations mean is in `reading.py`, and to
editors in `models.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, TypeAlias

from sidecar.config.schema import names, readers, redis_url, sources, units
from sidecar.config.schema.form import PLAIN, URL, WORD, Form
from sidecar.config.schema.regex import Regex
from sidecar.core.dataclass import dataclass
from sidecar.core.grpc_status import PREFIX, GrpcStatus
from sidecar.core.snapshot import (
    MAX_COUNT_SIZE,
    MOST_WEIGHT,
    MOST_WORKERS,
    Address,
    Ambiguous,
    BackAfter,
    Balancing,
    BreakerMode,
    CancelWithCaller,
    ClientCertificate,
    ClientSpans,
    Dealt,
    Direction,
    Endpoint,
    Failure,
    Forwarded,
    HttpVersion,
    LogFormat,
    Mode,
    Propagator,
    RetryOn,
    Scope,
    TlsVersion,
    Trust,
    Unmatched,
    WhenOpen,
    WindowType,
)


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Annotation: read the value with `reader` first; show it in the JSON Schema as `schema`."""

    reader: Callable[[object], object]
    schema: dict[str, Any]
    form: Form = PLAIN


def _typed(reader: Callable[[object], object], form: Form = PLAIN, **schema: Any) -> Read:
    return Read(reader, schema, form)


def _enum(enumeration: type[Enum]) -> Read:
    schema = {"type": "string", "enum": [str(member.value) for member in enumeration]}
    return Read(readers.member_of(enumeration), schema, WORD)


@dataclass(frozen=True, slots=True, eq=False)
class OrShorthand:
    """Annotation: `reader` turns a short form into the long one; the JSON Schema shows both."""

    reader: Callable[[object], object]
    short: dict[str, Any] | None = None
    """The short form's schema; None for "one item instead of a list"."""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """Annotation: once the value was read, `check` looks at all of it."""

    check: Callable[[Any], Any]
    """Gives the value, or raises ValueError."""


AUTO = readers.AUTO
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
_DURATION = Form(write=units.format_duration)
_SHARE = Form(write=units.format_share)
_TEXT = Form(write=str)
TUPLE = Form(tuple, list)
"""A list whose order the user chose."""


def _size_text(size: float) -> object:
    """Calls are a whole number, seconds are none."""
    return size if isinstance(size, int) else units.format_duration(size)


def _number(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def _period_text(seconds: float) -> str:
    return units.format_duration(seconds) if seconds else "off"


def _budget_text(budget: float | str) -> str:
    return budget if isinstance(budget, str) else units.format_duration(budget)


Text: TypeAlias = Annotated[str, _typed(readers.text, **_STRING)]
NonEmptyText: TypeAlias = Annotated[
    str, _typed(readers.of_text(readers.non_empty), type="string", minLength=1)
]
FileName: TypeAlias = Annotated[str, _typed(readers.of_text(names.file_name), type="string", minLength=1)]
Flag: TypeAlias = Annotated[bool, _typed(readers.flag, type="boolean")]
Duration: TypeAlias = Annotated[float, _typed(readers.positive_duration, _DURATION, **_DURATION_SCHEMA)]
DurationOrZero: TypeAlias = Annotated[float, _typed(readers.duration, _DURATION, **_DURATION_SCHEMA)]
DurationOrOff: TypeAlias = Annotated[
    float, _typed(readers.limit, _DURATION, anyOf=[{"type": "string", "enum": ["off"]}, _DURATION_SCHEMA])
]
DurationOrAuto: TypeAlias = Annotated[
    float | str,
    _typed(readers.duration_or_auto, anyOf=[{"type": "string", "enum": [AUTO]}, _DURATION_SCHEMA]),
]
PeriodOrOff: TypeAlias = Annotated[
    float,
    _typed(
        readers.period,
        Form(write=_period_text),
        anyOf=[{"type": "string", "enum": ["off"]}, _DURATION_SCHEMA],
    ),
]
Share: TypeAlias = Annotated[float, _typed(readers.share, _SHARE, **_SHARE_SCHEMA)]
Ratio: TypeAlias = Annotated[
    float, _typed(readers.share, Form(tell=lambda share, _: units.format_share(share)), **_SHARE_SCHEMA)
]
"""A share whose built-in value is shown as a number."""
PositiveShare: TypeAlias = Annotated[float, _typed(readers.positive_share, _SHARE, **_SHARE_SCHEMA)]
Size: TypeAlias = Annotated[
    int,
    _typed(
        readers.positive_size,
        Form(write=units.format_size),
        type="string",
        pattern=units.SIZE_PATTERN,
        examples=["64KiB", "1MiB"],
    ),
]
Count: TypeAlias = Annotated[int, _typed(readers.whole(1), type="integer", minimum=1)]
CountOrZero: TypeAlias = Annotated[int, _typed(readers.whole(0), type="integer", minimum=0)]
Workers: TypeAlias = Annotated[
    int | str,
    _typed(
        readers.workers,
        anyOf=[
            {"type": "string", "enum": [AUTO]},
            {"type": "integer", "minimum": 1, "maximum": MOST_WORKERS},
        ],
    ),
]
Weight: TypeAlias = Annotated[
    int, _typed(readers.whole(0, 1_000_000), type="integer", minimum=0, maximum=1_000_000)
]
Factor: TypeAlias = Annotated[
    float, _typed(readers.factor, Form(write=_number), type="number", minimum=1, maximum=100)
]
FactorOrOff: TypeAlias = Annotated[
    float,
    _typed(
        readers.factor_or_off,
        Form(
            lambda factor: factor or None,
            lambda factor: "off" if factor is None else _number(factor),
            unset="off",
        ),
        anyOf=[{"type": "string", "enum": ["off"]}, {"type": "number", "minimum": 1, "maximum": 100}],
    ),
]
"""The snapshot holds None for `off`."""
EmptyMapping: TypeAlias = Annotated[
    bool,
    _typed(readers.empty_mapping, Form(write=lambda _: {}), type="object", additionalProperties=False),
]
"""`{}`: the key alone says all; the snapshot holds True."""
BackAfterText: TypeAlias = Annotated[
    BackAfter,
    _typed(
        units.parse_back_after,
        Form(write=units.format_back_after),
        type="string",
        examples=["70% for 30s"],
    ),
]
EjectionModeName: TypeAlias = Annotated[
    bool,
    _typed(
        readers.one_of({"enforce": True, "off": False}),
        Form(write=lambda is_on: "enforce" if is_on else "off"),
        type="string",
        enum=["enforce", "off"],
    ),
]
RetryItem: TypeAlias = Annotated[
    RetryOn | int,
    _typed(
        readers.retry_on,
        anyOf=[
            {"type": "string", "enum": [member.value for member in RetryOn]},
            {"type": "integer", "minimum": 400, "maximum": 599},
        ],
    ),
]
FewTries: TypeAlias = Annotated[int, _typed(readers.whole(0, 10), type="integer", minimum=0, maximum=10)]
BalancingName: TypeAlias = Annotated[Balancing, _enum(Balancing)]
Status: TypeAlias = Annotated[int, _typed(readers.whole(200, 599), type="integer", minimum=200, maximum=599)]
Name: TypeAlias = Annotated[str, _typed(readers.of_text(names.name), **_NAME_SCHEMA)]
UpstreamName: TypeAlias = Annotated[
    str, _typed(readers.of_text(readers.upstream), type="string", examples=["payments"])
]
ListenAddress: TypeAlias = Annotated[
    Address,
    _typed(units.parse_address, _TEXT, type="string", examples=["127.0.0.1:15001", "unix:/run/s.sock"]),
]
EndpointAddress: TypeAlias = Annotated[
    Endpoint,
    _typed(sources.parse_entry, _TEXT, type="string", examples=["payments:80", "unix:/run/app.sock"]),
]
EndpointWeight: TypeAlias = Annotated[
    int, _typed(readers.whole(0, MOST_WEIGHT), type="integer", minimum=0, maximum=MOST_WEIGHT)
]
EndpointPriority: TypeAlias = EndpointWeight
ZoneName: TypeAlias = Annotated[
    str, _typed(readers.of_text(names.zone), type="string", pattern=names.ZONE_PATTERN)
]
ZonePreference: TypeAlias = Annotated[
    bool,
    _typed(
        readers.one_of({"prefer": True, "any": False}),
        Form(write=lambda is_preferred: "prefer" if is_preferred else "any"),
        type="string",
        enum=["prefer", "any"],
    ),
]
MetricsPrefix: TypeAlias = Annotated[
    str,
    _typed(
        readers.of_text(names.metrics_prefix),
        type="string",
        pattern=names.METRICS_PREFIX_PATTERN,
        maxLength=names.MAX_METRICS_PREFIX,
    ),
]
CookieName: TypeAlias = Annotated[str, _typed(readers.of_text(names.cookie_name), **_STRING)]
ServerName: TypeAlias = Annotated[
    str, _typed(readers.of_text(units.parse_host), type="string", examples=["payments.internal"])
]
AlpnName: TypeAlias = Annotated[
    str, _typed(readers.of_text(names.alpn), type="string", examples=["h2", "http/1.1"])
]
ClientCertificateName: TypeAlias = Annotated[ClientCertificate, _enum(ClientCertificate)]
TlsVersionName: TypeAlias = Annotated[
    TlsVersion,
    _typed(
        readers.tls_version, WORD, anyOf=[{"type": "string", "enum": ["1.2", "1.3"]}, {"enum": [1.2, 1.3]}]
    ),
]
Url: TypeAlias = Annotated[str, _typed(readers.of_text(readers.url), URL, type="string", format="uri")]
TraceUrl: TypeAlias = Annotated[str, _typed(readers.of_text(readers.trace_url), URL, **_STRING)]
HeaderName: TypeAlias = Annotated[str, _typed(readers.of_text(names.header_name), **_STRING)]
SettableHeader: TypeAlias = Annotated[str, _typed(readers.of_text(names.settable_header_name), **_STRING)]
SettableRequestHeader: TypeAlias = Annotated[
    str, _typed(readers.of_text(names.settable_request_header_name), **_STRING)
]
HeaderValue: TypeAlias = Annotated[str, _typed(readers.of_text(names.header_value), **_STRING)]
HeaderTemplate: TypeAlias = Annotated[str, _typed(readers.header_template, **_STRING)]
"""A value in which variables of requests may stand."""
Port: TypeAlias = Annotated[int, _typed(readers.port, type="integer", minimum=1, maximum=65535)]
RedirectStatus: TypeAlias = Annotated[
    int, _typed(readers.redirect_status, type="integer", enum=list(readers.REDIRECTS))
]
SchemeName: TypeAlias = Annotated[str, _typed(readers.scheme, type="string", enum=["http", "https"])]
NetworkText: TypeAlias = Annotated[
    str, _typed(readers.of_text(names.network), type="string", examples=["10.0.0.0/8", "2001:db8::/32"])
]
OriginText: TypeAlias = Annotated[
    str, _typed(readers.of_text(names.origin), type="string", examples=["https://shop.example"])
]
RedirectHost: TypeAlias = Annotated[str, _typed(readers.of_text(names.redirect_host), **_STRING)]
Method: TypeAlias = Annotated[
    str, _typed(readers.of_text(names.method), type="string", examples=["GET", "POST"])
]
GrpcService: TypeAlias = Annotated[
    str, _typed(readers.of_text(names.grpc_service), type="string", examples=["pkg.Payments"])
]
GrpcMethod: TypeAlias = Annotated[
    str, _typed(readers.of_text(names.grpc_method), type="string", examples=["Charge"])
]
HostPattern: TypeAlias = Annotated[
    str, _typed(readers.of_text(names.host_pattern), type="string", examples=["payments", "*.payments.svc"])
]
ClientName: TypeAlias = Annotated[
    str, _typed(readers.of_text(names.client), type="string", examples=["spiffe://cluster.local/ns/shop"])
]
RewriteHost: TypeAlias = Annotated[str, _typed(readers.of_text(names.rewrite_host), **_STRING)]
Path: TypeAlias = Annotated[str, _typed(readers.of_text(names.path), type="string", pattern="^/")]
PathPrefix: TypeAlias = Annotated[
    str, _typed(readers.of_text(names.path_prefix), type="string", pattern="^/")
]
RegexText: TypeAlias = Annotated[Regex, _typed(readers.of_text(Regex), type="string", format="regex")]
WindowSize: TypeAlias = Annotated[
    float | int,
    _typed(
        readers.window_size,
        Form(write=_size_text),
        anyOf=[_DURATION_SCHEMA, {"type": "integer", "minimum": 1, "maximum": MAX_COUNT_SIZE}],
    ),
]
MinBudget: TypeAlias = Annotated[
    float | str,
    _typed(
        readers.min_budget,
        Form(write=_budget_text),
        anyOf=[{"type": "string", "enum": ["p50", "p95"]}, _DURATION_SCHEMA],
    ),
]
HedgeAfter: TypeAlias = Annotated[
    float | str,
    _typed(
        readers.hedge_after,
        Form(write=_budget_text),
        anyOf=[{"type": "string", "enum": ["p95"]}, _DURATION_SCHEMA],
    ),
]
Hedges: TypeAlias = Annotated[int, _typed(readers.whole(1, 3), type="integer", minimum=1, maximum=3)]
FailureItem: TypeAlias = Annotated[
    Failure | GrpcStatus | int,
    _typed(
        readers.failure,
        anyOf=[
            {
                "type": "string",
                "enum": [member.value for member in Failure]
                + [PREFIX + status.name for status in GrpcStatus if status],
            },
            {"type": "integer", "minimum": 100, "maximum": 599},
        ],
    ),
]
ScopeName: TypeAlias = Annotated[Scope, _enum(Scope)]
RedisUrl: TypeAlias = Annotated[
    str,
    _typed(
        readers.of_text(redis_url.checked),
        URL,
        type="string",
        examples=["redis://redis:6379", "rediss://redis:6380/1"],
    ),
]
RedisWord: TypeAlias = Annotated[
    str, _typed(readers.of_text(redis_url.word), type="string", pattern=redis_url.WORD_PATTERN)
]
"""Part of a key in Redis."""
Version: TypeAlias = Annotated[int, _typed(readers.version, type="integer", const=1)]
Protocol: TypeAlias = Annotated[
    str,
    _typed(
        readers.one_of({"grpc": "grpc", "http/protobuf": "http/protobuf"}),
        type="string",
        enum=["grpc", "http/protobuf"],
    ),
]
Compression: TypeAlias = Annotated[
    str,
    _typed(
        readers.one_of({"gzip": "gzip", "none": "none"}),
        Form(lambda word: None if word == "none" else word),
        type="string",
        enum=["gzip", "none"],
    ),
]
PolicyMode: TypeAlias = Annotated[Mode, _enum(Mode)]
_ADAPTIVE = {"on": Mode.ENFORCE, "observe": Mode.OBSERVE, "off": Mode.OFF}
AdaptiveName: TypeAlias = Annotated[
    Mode,
    _typed(
        readers.one_of(_ADAPTIVE),
        Form(write={mode: name for name, mode in _ADAPTIVE.items()}.__getitem__),
        type="string",
        enum=[*_ADAPTIVE],
    ),
]
BreakerModeName: TypeAlias = Annotated[BreakerMode, _enum(BreakerMode)]
WindowTypeName: TypeAlias = Annotated[WindowType, _enum(WindowType)]
CancelMode: TypeAlias = Annotated[CancelWithCaller, _enum(CancelWithCaller)]
LogFormatName: TypeAlias = Annotated[LogFormat, _enum(LogFormat)]
ClientSpansName: TypeAlias = Annotated[ClientSpans, _enum(ClientSpans)]
PropagatorName: TypeAlias = Annotated[Propagator, _enum(Propagator)]
WhenOpenName: TypeAlias = Annotated[WhenOpen, _enum(WhenOpen)]
TrustName: TypeAlias = Annotated[Trust, _enum(Trust)]
HttpVersionName: TypeAlias = Annotated[HttpVersion, _enum(HttpVersion)]
UpstreamHttpName: TypeAlias = Annotated[
    HttpVersion,
    _typed(
        readers.one_of({"http1": HttpVersion.HTTP1, "http2": HttpVersion.HTTP2, "auto": HttpVersion.AUTO}),
        WORD,
        type="string",
        enum=["http1", "http2", "auto"],
    ),
]
DirectionName: TypeAlias = Annotated[Direction, _enum(Direction)]
AmbiguousName: TypeAlias = Annotated[Ambiguous, _enum(Ambiguous)]
DealtName: TypeAlias = Annotated[Dealt, _enum(Dealt)]
UnmatchedName: TypeAlias = Annotated[Unmatched, _enum(Unmatched)]

ForwardedName: TypeAlias = Annotated[Forwarded, _enum(Forwarded)]
