"""What a problem may not tell: the secrets in the line that it shows, and in its words.

The rule is that of the dumps (see `schema/hidden_values`): what stands under a name that secrets have, every OTLP
header, users, passwords and queries of URLs, and what a variable in a header field, condition or fallback has as its
default. Hidden as well are values under keys that `telemetry` or the top level does not know, for nobody can say what
they are, and comments. Names of variables, quotes and spaces stay, and each hidden character has a `*` in its place,
for the mark under the line to point right.

A file that is no YAML has no keys to go by: there the words of the line, and of the lines that it is indented under,
decide, and rather too much is hidden than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from enum import Enum
from functools import cache
from typing import Final

from sidecar.config.problems import Problem
from sidecar.config.schema.names import is_extension
from sidecar.config.schema.readers import nearest
from sidecar.config.yaml.nodes import MappingNode, Node, Scalar, Sequence, without_value
from sidecar.core.secrets import HIDDEN, SECRET_NAME, may_be_secret

KNOWN: Mapping[tuple[str, ...], frozenset[str]] = {
    (): frozenset(
        {
            "version",
            "workers",
            "listeners",
            "admin",
            "probes",
            "telemetry",
            "drain_timeout",
            "drain",
            "upstreams",
        }
        | {"limits", "share", "defaults", "routes"}
    ),
    ("telemetry",): frozenset(
        {"service_name", "otlp", "traces", "metrics", "access_log", "logs", "propagators"}
    ),
    ("telemetry", "otlp"): frozenset({"endpoint", "protocol", "headers", "compression"}),
}
"""The keys of the format where others are taken for secrets."""

_Path = tuple[str, ...]
_Spans = list[tuple[int, int]]

_NAMED_BY_USER = frozenset({"upstreams", "listeners", "weights"})
"""Hold names that say nothing: an upstream may be called `auth`."""
_NO_SECRETS = ("token_file", "password_file")
"""Name files alone."""
_FREE = frozenset({"headers", "query", "set", "add", "failure_header", "body"})
"""Hold any text: a variable there is more likely a secret than a setting."""
_CONDITIONS = frozenset({"exact", "regex", "present"})
_LINES_ABOVE = 1000
"""How far up a line that is no YAML looks for what it is indented under."""

_VARIABLE = r"(\$+\{[A-Za-z0-9_]*(?::?-|\})?)"
_KEPT = re.compile(rf"{_VARIABLE}|[^\s'\"]")
# Anchors, aliases and dashes are the signs of YAML, as brackets are.
_KEPT_OF_NO_YAML = re.compile(rf"{_VARIABLE}|((?<![^\s\[,{{])[&*][\w-]+|---|-(?=\s))|[^\s'\"{{}}\[\],:#]")
_COMMENT = re.compile(r"(?:^|(?<=\s))#")
_DEFAULT = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]{0,256}:-([^}]*)")
# A hostile file may have one line of 8 MiB, so each of these goes over it once, whatever it holds.
_VALUE = re.compile(r"[:=]\s*(?=\S)")
_BETWEEN = re.compile(r"[{,]")
_BLOCK = re.compile(r"[|>][-+0-9]*\s*(?:#.*)?")
_NAMED = re.compile(rf"(?:{SECRET_NAME})[\w.-]{{0,64}}['\"]?\s*[:=]\s*", re.IGNORECASE)
_HEADERS = re.compile(r"\bheaders?['\"]?\s*:\s*", re.IGNORECASE)
_KEY = re.compile(r"(?<![^\s'\"{\[,])([^\s'\"{}\[\],:]{1,128})['\"]?\s*:(?=\s|$)")
_SCHEME = re.compile(r"\b(?:bearer|basic)\s+(\S.*)", re.IGNORECASE)
_URL = re.compile(r"://(?:(.*)@)?[^?]*(?:\?(.+))?")
_URL_IN_WORDS = re.compile(r"://(?:([^\s'\"]*)@)?[^'\"?]*(?:\?([^'\"]+))?")
_USER = re.compile(r"(?<![^\s'\"\[{,])([^/?#@\s'\",:\[{]{1,256}:[^/?#@\s'\"]{0,256})@")

_MOST_SHOWN: Final = 2000
"""Characters of a message, which a log has on one line. Where no value of the file makes it long, it has some
hundreds."""


def without_secrets(
    problems: Iterable[Problem], files: Mapping[str, tuple[tuple[str, ...], MappingNode | None]]
) -> list[Problem]:
    """The problems as they may be shown. `files` are the lines of each and, if it is YAML, its top level."""
    masks = {name: _Mask(lines, top) for name, (lines, top) in files.items()}
    return [
        masks[problem.file].applied(problem) if problem.file in masks else problem for problem in problems
    ]


class _Mask:
    """What is hidden in one file; a line is worked out once, however many problems it has."""

    def __init__(self, lines: tuple[str, ...], top: MappingNode | None) -> None:
        self._lines = lines
        self._nodes = None if top is None else _Marks(top)
        self._shown: dict[int, str] = {}

    def applied(self, problem: Problem) -> Problem:
        message = _covered(problem.message, [*_url_spans(problem.message, _URL_IN_WORDS)], _KEPT)
        for value in self._nodes.values.get((problem.line, problem.column), ()) if self._nodes else ():
            message = without_value(message, value, HIDDEN)
        message = _in_part(message)  # of the whole, no piece of what is hidden would be known
        if problem.text and problem.line not in self._shown:
            self._shown[problem.line] = self._line(problem.line, problem.text)
        return replace(problem, message=message, text=self._shown.get(problem.line, ""))

    def _line(self, number: int, text: str) -> str:
        if self._nodes is None:
            return _covered(text, [*_spans_of_no_yaml(text, self._above(number))], _KEPT_OF_NO_YAML)
        end = self._nodes.ends.get(number, 0)
        comment = text.find("#", end)
        spans = [*self._nodes.spans.get(number, ())]
        if comment >= 0:
            spans.append((comment + 1, len(text)))
        return _covered(text, spans, _KEPT)

    def _above(self, number: int) -> Iterator[str]:
        """The lines that this one goes on with or is indented under, nearest first."""
        line = self._lines[number - 1]
        depth, has_key = _depth(line), _KEY.search(line) is not None
        for line in reversed(self._lines[max(0, number - 1 - _LINES_ABOVE) : number - 1]):
            if line.strip() and (not has_key or _depth(line) < depth):
                depth, has_key = _depth(line), has_key or _KEY.search(line) is not None
                yield line


def _depth(line: str) -> float:
    """The indentation; an item of a list may stand right under its key."""
    text = line.lstrip(" \t")
    return len(line) - len(text) + (0.5 if text.startswith("- ") else 0)


class _How(Enum):
    """What a node is, by where it stands."""

    SETTING = "setting"
    KEY = "key"
    FREE = "free"
    """It may hold any text."""
    VALUES = "values"
    """The values of a mapping are secrets, its keys are not."""
    SECRET = "secret"


def _is_hidden_key(key: Node, how: _How) -> bool:
    """Under a secret's name the key may itself be the secret: `authorization: {Bearer abc}`. A key of the format is
    none, nor is one that is misspelt."""
    text = key.text if isinstance(key, Scalar) else ""
    if how is not _How.SECRET or text in _CONDITIONS:
        return False
    return not nearest(text, _CONDITIONS) and text not in _settings()


class _Marks:
    """Where the secrets of a document stand, by line (from 1) and columns (from 0, the end exclusive)."""

    def __init__(self, top: MappingNode) -> None:
        self._lines = top.source.lines
        self.spans: dict[int, _Spans] = {}
        self.ends: dict[int, int] = {}
        """Where the last scalar of a line ends: a comment begins behind it."""
        self.values: dict[tuple[int, int], list[str]] = {}
        """What is hidden of the scalar at a line and column (from 1), for messages that repeat it."""
        self._seen: set[tuple[int, _How]] = set()
        """Scalars that were looked at, by `id`, and as what: an alias stands for one in many places."""
        self._walk(top, (), _How.SETTING)

    def _walk(self, node: Node, path: _Path, how: _How) -> None:
        if isinstance(node, Scalar):
            if (id(node), how) not in self._seen:
                self._seen.add((id(node), how))
                self._scalar(node, how)
        elif isinstance(node, Sequence):
            for item in node.items:
                self._walk(item, path, how)
        else:
            for key, value in node.pairs():
                is_hidden = _is_hidden_key(key, how)
                self._walk(key, path, _How.SECRET if is_hidden else _How.KEY)
                name = key.text if isinstance(key, Scalar) else ""
                self._walk(value, (*path, name), _how(name, value, path, how))

    def _scalar(self, node: Scalar, how: _How) -> None:
        is_split_url = "://" in node.text and node.end[0] > node.line
        is_secret = how in (_How.SECRET, _How.VALUES) or is_split_url
        look_at = _LOOK_AT.get(how, _url_spans)
        if is_secret:
            self.values[(node.line, node.column)] = [node.text, str(node.value)]
        elif found := [node.text[start:stop] for start, stop in look_at(node.text)]:
            self.values[(node.line, node.column)] = found
        for line, start, stop in self._parts(node):
            self.ends[line] = max(stop, self.ends.get(line, 0))
            spans = self.spans.setdefault(line, [])
            if is_secret:
                spans.append((start, stop))
            else:
                inner = look_at(self._lines[line - 1][start:stop])
                spans.extend((start + one, start + two) for one, two in inner)

    def _parts(self, node: Scalar) -> Iterator[tuple[int, int, int]]:
        """The scalar's place, line by line."""
        last, stop = node.end
        for line in range(node.line, min(last, len(self._lines)) + 1):
            text = self._lines[line - 1]
            start = node.column - 1 if line == node.line else 0
            end = stop - 1 if line == last else len(text)
            if end > start and not (line == node.line < last and _BLOCK.fullmatch(text, start)):
                yield line, start, end


def _how(key: str, value: Node, path: _Path, how: _How) -> _How:
    """What stands under `key`, which stands under `path`."""
    if how in (_How.SECRET, _How.VALUES):
        return _How.SECRET
    if (path and path[-1] in _NAMED_BY_USER) or key in _NO_SECRETS:
        return _How.SETTING
    if may_be_secret(key):
        return _How.SECRET
    if path == ("telemetry", "otlp") and key == "headers":
        return _How.VALUES
    if path in KNOWN and key not in KNOWN[path] and not is_extension(key):
        is_word = isinstance(value, Scalar) and not isinstance(value.value, str)
        return how if is_word else _How.VALUES
    return _How.FREE if key in _FREE else how


def _spans_of_no_yaml(text: str, above: Iterable[str]) -> Iterator[tuple[int, int]]:
    """What stands behind a word that is no key of the format, or behind none; all values below a name of secrets."""
    comment = _COMMENT.search(text)
    end = comment.start() if comment else len(text)
    lines = [*above]
    if any(_NAMED.search(line) for line in lines):
        yield 0, len(text)
        return
    is_below = any(_HEADERS.search(line) for line in lines)
    start, is_shown, seen = 0, False, 0
    for key in _KEY.finditer(text, 0, end):
        is_value = seen > 0 and not is_shown and _BETWEEN.search(text, seen, key.start()) is None
        seen = key.end()
        if is_value:
            continue
        if not is_shown:
            yield start, key.start()
        start, is_shown = key.end(), not is_below and key[1] in _settings()
        if is_below:  # whatever else looks like a key is a part of the value
            break
    if not is_shown:
        yield start, end
    if comment:
        yield comment.end(), len(text)
    yield from _text_spans(text)


def _key_spans(text: str) -> Iterator[tuple[int, int]]:
    """Of a key, what stands behind a colon that had no space behind it."""
    value = _VALUE.search(text)
    if value:
        yield value.end(), len(text)
    yield from _text_spans(text)


@cache
def _settings() -> frozenset[str]:
    """The keys of the format whose values are settings."""
    from sidecar.config.tell.json_schema import json_schema  # 0.1 s, and only for what is no YAML

    schema = json_schema()
    sections = (schema, *schema["$defs"].values())
    keys = {key for section in sections for key in section.get("properties", ())}
    return frozenset(keys - _FREE - _CONDITIONS)


def _free_spans(text: str) -> Iterator[tuple[int, int]]:
    """As `_text_spans`, and the defaults of variables."""
    yield from _text_spans(text)
    yield from (found.span(1) for found in _DEFAULT.finditer(text))


def _text_spans(text: str) -> Iterator[tuple[int, int]]:
    """What looks like a secret in words that nothing else is known of."""
    for found in _NAMED.finditer(text):
        if not found[0].startswith(_NO_SECRETS):
            yield found.end(), len(text)
            break
    for found in _SCHEME.finditer(text):
        yield found.span(1)
    yield from _url_spans(text)


def _url_spans(text: str, url: re.Pattern[str] = _URL) -> Iterator[tuple[int, int]]:
    """User and password, and the query."""
    for found in (*url.finditer(text), *_USER.finditer(text)):
        for group in range(1, found.re.groups + 1):
            if found[group]:
                yield found.span(group)


def _in_part(message: str) -> str:
    """Without the middle of a very long one, which is a value of the file: why it is wrong stands at the end."""
    if len(message) <= _MOST_SHOWN:
        return message
    return f"{message[: _MOST_SHOWN // 2]}… ({len(message):,} characters) …{message[-_MOST_SHOWN // 2 :]}"


def _covered(text: str, spans: _Spans, kept: re.Pattern[str]) -> str:
    """`text` with a `*` for each character in `spans` but for those that say nothing."""
    if not spans:
        return text
    parts: list[str] = []
    done = 0
    for start, stop in sorted(spans):
        if stop > done:
            start = max(start, done)
            parts += (
                text[done:start],
                kept.sub(lambda found: found[0] if found.lastindex else "*", text[start:stop]),
            )
            done = stop
    return "".join((*parts, text[done:]))


_LOOK_AT = {_How.FREE: _free_spans, _How.KEY: _key_spans}
"""Where a scalar that is no secret as a whole may have one in it."""
