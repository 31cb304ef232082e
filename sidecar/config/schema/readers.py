"""From what the YAML says to a value, or a ValueError that names the value and the remedy.

`load/check.py` puts the place to the message.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum
from heapq import nlargest
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from sidecar.config.schema import names, units
from sidecar.config.yaml.nodes import Interpolated, resolve_plain
from sidecar.core.actions.policy import SCHEMES
from sidecar.core.actions.template import has_variable
from sidecar.core.grpc_status import PREFIX as GRPC_PREFIX
from sidecar.core.grpc_status import GrpcStatus
from sidecar.core.snapshot import MAX_COUNT_SIZE, MOST_WORKERS, Failure, RetryOn, TlsVersion

AUTO = "auto"
_MAX_NEIGHBOURS = 1000
_MAX_COMPARED = 20
_MAX_WORD_CHARACTERS = 64
"""`difflib` compares two words in up to the square of their length."""
_RETRIED = {member.value: member for member in RetryOn}
_FAILURES: dict[str, Failure | int] = {
    **{member.value: member for member in Failure},
    **{GRPC_PREFIX + status.name: status for status in GrpcStatus if status},
}
_HOST_AND_PORT = re.compile(r"[A-Za-z0-9_.-]+:[0-9]{1,5}|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


def nearest(word: str, words: Iterable[str], least: float = 0.6) -> str:
    """`: did you mean 'x'?`, or nothing when no word is near. Nor for words that are too many to compare, or long.

    Args:
        least: how alike two words must be, from 0 to 1, as `difflib` counts.
    """
    words = list(islice(words, _MAX_NEIGHBOURS + 1))
    if len(words) > _MAX_NEIGHBOURS or len(word) > _MAX_WORD_CHARACTERS:
        return ""
    found = difflib.get_close_matches(word, _with_most_in_common(word, words), n=1, cutoff=least)
    return f": did you mean {found[0]!r}?" if found else ""


def _with_most_in_common(word: str, words: list[str]) -> list[str]:
    """Those of `words` that have the most characters of `word`, in whatever order, for their own length."""
    words = [other for other in words if len(other) <= _MAX_WORD_CHARACTERS]
    if len(words) <= _MAX_COMPARED:
        return words
    counts = Counter(word).items()

    def in_common(other: str) -> float:
        return sum(min(count, other.count(one)) for one, count in counts) / (len(word) + len(other) or 1)

    return nlargest(_MAX_COMPARED, words, key=in_common)


class NotAmong(ValueError):
    """A word that is none of those that may stand there. Which of them is meant is found where it is told."""

    def __init__(self, message: str, word: str, words: Iterable[str]) -> None:
        super().__init__(message)
        self.word = word
        self.words = words


def plain(value: object) -> object:
    """A value from the environment, read as if it stood unquoted in the file."""
    return resolve_plain(value) if isinstance(value, Interpolated) else value


def text(value: object) -> str:
    """Text; a number or boolean is refused with the quotes it needs."""
    if isinstance(value, str):
        if has_variable(value):
            raise ValueError(
                "a variable of requests may stand in the values of `request_headers`, `response_headers`, "
                "`respond.headers` and `fallback.headers` alone; write $${ for the characters ${"
            )
        return str(value)
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif value is None or isinstance(value, dict | list):
        raise ValueError(f"expected text, got {units.shown(value)}")
    raise ValueError(f'expected text, got {value}; put it in quotes: "{value}"')


def _quoted(value: object) -> str:
    return repr(str(value)) if isinstance(value, str) else units.shown(value)


def _got(value: object, *kinds: type) -> str:
    """A value that is refused; where it is one of `kinds` in quotes, which make a text of it, that too."""
    if not _is_in_quotes(value, *kinds):
        return _quoted(value)
    return f"the text {_quoted(value)}: write {value}, without quotes"


def _is_in_quotes(value: object, *kinds: type) -> bool:
    return isinstance(value, str) and value != "" and type(resolve_plain(value)) in kinds


def non_empty(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def version(value: object) -> int:
    value = plain(value)
    if value == "1":
        raise ValueError('version "1" is a text: write version: 1, without quotes')
    if isinstance(value, bool) or value != 1 or not isinstance(value, int):
        raise ValueError(f"version {units.shown(value)} is not known: write version: 1")
    return value


def of_text(reader: Callable[[str], object]) -> Callable[[object], object]:
    return lambda value: reader(text(value))


def flag(value: object) -> bool:
    value = plain(value)
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, got {_got(value, bool)}")
    return value


def empty_mapping(value: object) -> bool:
    if value != {}:
        raise ValueError(f"expected {{}}, got {_quoted(value)}: it has no keys")
    return True


def whole(lowest: int, highest: int | None = None) -> Callable[[object], int]:
    bounds = f"at least {lowest}" if highest is None else f"from {lowest} to {highest}"

    def read(value: object) -> int:
        value = plain(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"expected a whole number, got {_got(value, int)}{_zero_hint(value)}")
        if value < lowest or (highest is not None and value > highest):
            raise ValueError(f"{value} is out of range: {bounds}")
        return value

    return read


def workers(value: object) -> int | str:
    """How many processes serve, or `auto`: one for each core."""
    value = plain(value)
    if value == AUTO:
        return AUTO
    if isinstance(value, str):
        raise ValueError(f"expected a whole number or {AUTO}, got {_got(value, int)}")
    return whole(1, MOST_WORKERS)(value)


def _zero_hint(value: object) -> str:
    """YAML 1.1 read `010` as eight and YAML 1.2 as ten."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?0[0-9]+", value):
        return f" (a leading zero is ambiguous: write {value.lstrip('+-0') or '0'})"
    return ""


def duration(value: object) -> float:
    return units.parse_duration(plain(value))


def positive_duration(value: object) -> float:
    seconds = duration(value)
    if seconds <= 0:
        raise ValueError("must be longer than 0s")
    return seconds


def limit(value: object) -> float:
    """A duration, or `off` for no limit at all. `0s` means the same, as in Gateway API (GEP-1742)."""
    value = plain(value)
    if value == "off":
        return math.inf
    if not any(character.isdigit() for character in units.shown(value)):
        raise ValueError(f"{_quoted(value)} is not a duration: write one such as 2s, or off")
    return units.parse_duration(value) or math.inf


def duration_or_auto(value: object) -> float | str:
    value = plain(value)
    if value == AUTO:
        return AUTO
    if not any(character.isdigit() for character in units.shown(value)):
        raise ValueError(f"{_quoted(value)} is not a duration: write one such as 1s, or {AUTO}")
    return positive_duration(value)


def period(value: object) -> float:
    """How long something lasts, or `off` for not at all."""
    seconds = limit(value)
    return 0.0 if seconds == math.inf else seconds


def share(value: object) -> float:
    return units.parse_share(plain(value))


def positive_share(value: object) -> float:
    found = share(value)
    if found <= 0:
        raise ValueError("must be over 0%")
    return found


def positive_size(value: object) -> int:
    size = units.parse_size(plain(value))
    if size <= 0:
        raise ValueError("must be over 0B")
    return size


def factor(value: object) -> float:
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number such as 2 or 1.5, got {_got(value, int, float)}")
    if not 1 <= value <= 100:
        raise ValueError(f"{value:g} is out of range: from 1 to 100")
    return float(value)


def retry_on(value: object) -> RetryOn | int:
    """One item of `retry.on`."""
    value = plain(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if not 400 <= value <= 599:
            raise ValueError(f"{value} is out of range: a status from 400 to 599")
        return value
    if isinstance(value, str) and value in _RETRIED:
        return _RETRIED[value]
    raise _neither_word_nor_status(value, [*_RETRIED, "or a status such as 503"], _RETRIED)


def factor_or_off(value: object) -> float:
    """A factor, or `off`, which is 0."""
    return 0.0 if plain(value) == "off" else factor(value)


def one_of(choices: dict[str, Any]) -> Callable[[object], Any]:
    """Read one of a few words."""

    def read(value: object) -> Any:
        if isinstance(value, str) and value in choices:
            return choices[value]
        wanted = ", ".join(choices)
        raise NotAmong(f"expected one of {wanted}; got {_quoted(value)}", units.shown(value), choices)

    return read


def member_of(enumeration: type[Enum]) -> Callable[[object], Any]:
    return one_of({str(member.value): member for member in enumeration})


def failure(value: object) -> Failure | int:
    value = plain(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if not 100 <= value <= 599:
            raise ValueError(f"{value} is not a status from 100 to 599")
        return value
    if isinstance(value, str) and value in _FAILURES:
        return _FAILURES[value]
    words = [member.value for member in Failure]
    raise _neither_word_nor_status(
        value, [*words, "a status such as 429", "or one such as grpc:UNAVAILABLE"], _FAILURES
    )


def _neither_word_nor_status(value: object, wanted: list[str], words: Iterable[str]) -> ValueError:
    message = f"expected one of {', '.join(wanted)}; got {_got(value, int)}"
    if _is_in_quotes(value, int):
        return ValueError(message)
    return NotAmong(message, units.shown(value), words)


def window_size(value: object) -> float | int:
    value = plain(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return whole(1, MAX_COUNT_SIZE)(value)
    try:
        return positive_duration(value)
    except ValueError as error:
        if _is_in_quotes(value, int):
            raise ValueError(f"{error}; for so many calls {value}, without quotes") from None
        raise


def min_budget(value: object) -> float | str:
    if value in ("p50", "p95"):
        return str(value)
    try:
        return positive_duration(value)
    except ValueError as error:
        raise ValueError(f"{error}; or p50 or p95") from None


def hedge_after(value: object) -> float | str:
    if value == "p95":
        return "p95"
    try:
        return positive_duration(value)
    except ValueError as error:
        raise ValueError(f"{error}; or p95") from None


def url(value: str) -> str:
    if not value.isprintable() or " " in value:  # some of which the standard library would drop
        raise ValueError(f"{value!r} is not a URL: it holds a space or a control character")
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018  (looked at when it is asked for)
    except ValueError as error:
        raise ValueError(f"{value!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{value!r} is not a URL such as http://otel-collector:4317")
    return value


def trace_url(value: str) -> str:
    if "{trace_id}" not in url(value):
        raise ValueError("the URL must hold {trace_id} where the trace's id belongs")
    return value


def upstream(value: str) -> str:
    """A name, or a URL kept as it is; both are looked up later, where all names are known."""
    if "://" in value:
        units.parse_upstream_url(value)
        return value
    if _HOST_AND_PORT.fullmatch(value):
        raise ValueError(
            f"{value!r} is neither the name of an upstream nor a URL: write a name under `upstreams`, or http://{value}"
        )
    return names.name(value)


def tls_version(value: object) -> TlsVersion:
    """`1.2` or `1.3`, which YAML reads as a number where it has no quotes."""
    value = plain(value)
    for version in TlsVersion:
        if value == version.value or value == float(version.value):
            return version
    raise ValueError(f"{_quoted(value)} is not a version of TLS that is spoken here: write 1.2 or 1.3")


def header_template(value: object) -> str:
    """The value of a header field, in which variables of requests may stand."""
    if not isinstance(value, str) or not has_variable(value):
        return names.header_value(text(value))
    return names.header_template(str(value))


def port(value: object) -> int:
    found: int = whole(1, 65535)(value)
    return found


def redirect_status(value: object) -> int:
    value = plain(value)
    if value not in REDIRECTS or not isinstance(value, int):
        raise ValueError(f"expected one of {', '.join(map(str, REDIRECTS))}; got {_quoted(value)}")
    return value


REDIRECTS = (301, 302, 303, 307, 308)
"""Statuses that send a client elsewhere (RFC 9110 15.4)."""


def scheme(value: object) -> str:
    found: str = one_of({word: word for word in SCHEMES})(value)
    return found
