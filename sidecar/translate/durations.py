"""Durations as others write them → as the sidecar's file does."""

from __future__ import annotations

import re

from sidecar.config.schema.units import format_duration, parse_duration
from sidecar.translate.source import Item, SourceError

_GO = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:h|m|s|ms|us|µs|ns))+|0")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|us|µs|ns|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_ISO = re.compile(r"PT(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+(?:\.[0-9]+)?)S)?", re.IGNORECASE)


def seconds(item: Item) -> float:
    """Of a duration as Go and Gateway API write it (GEP-2257), or as protobuf's JSON does (`1.5s`).

    Raises:
        SourceError: it is none.
    """
    text = item.text()
    if not _GO.fullmatch(text):
        raise SourceError(f"{item.place}: {item.path}: {text!r} is not a duration")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def duration(item: Item) -> str:
    """The same in our words; zero is `off`. Raises: SourceError."""
    return written(seconds(item))


def written(value: float) -> str:
    """Seconds in our words, to the millisecond; zero is `off`."""
    return format_duration(max(round(value, 3), 0.001)) if value > 0 else "off"


def spring_seconds(item: Item, unit: float = 1e-3) -> float:
    """Of a duration as Spring writes it: `500ms`, `10s`, `PT10S`, or a bare number of milliseconds.

    Raises:
        SourceError: it is none.
    """
    text = item.text().strip()
    if re.fullmatch(r"[0-9]+", text):
        return float(text) * unit
    iso = _ISO.fullmatch(text)
    if iso is not None and any(iso.groups()):
        hours, minutes, rest = (float(part or 0) for part in iso.groups())
        return hours * 3600 + minutes * 60 + rest
    try:
        return parse_duration(text.replace(" ", ""))
    except ValueError as error:
        raise SourceError(f"{item.place}: {item.path}: {error}") from None
