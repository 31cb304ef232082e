"""The file format as a page for people: every key with its type, default and meaning, made from the JSON Schema.

It says what `json_schema.py` says and adds nothing, so a key that is not on the page is not in the format. A mapping
that stands in several places is told once, at the first of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from sidecar.config.schema import names, units
from sidecar.config.tell.json_schema import json_schema

_HEAD = """\
# Reference of the configuration

<!-- Made by `sidecar schema --markdown`; UPDATE_GOLDEN=1 pytest tests/config writes it anew. -->

Every key of the file. An example of each stands in [reference.yaml](reference.yaml), how to change a running one in
[README.md](README.md), and `sidecar explain` says which value holds for a request and where it comes from.

A *duration* needs a unit (`250ms`, `2s`, `1m30s`), and so does a *size* (`64KiB`, `1MiB`); a *share* is `50%` or
`0.5`. Any value may be `${NAME}` or `${NAME:-default}`, read from the environment. An unknown key is an error.
"""
_TOLD_LAST = "defaults"
"""Holds the policies of a route, which are told where routes are."""
_PATTERNS = {
    units.DURATION_PATTERN: "duration",
    units.SIZE_PATTERN: "size",
    units.SHARE_PATTERN: "share",
    names.NAME_PATTERN: "name",
}
_FORMATS = {"uri": "URL", "regex": "regular expression"}
_SCALARS = {"string": "text", "boolean": "`true` or `false`", "number": "number", "object": "`{}`"}

Schema: TypeAlias = dict[str, Any]


def reference_text() -> str:
    """The page as it lies in `config/REFERENCE.md`."""
    return _Page(json_schema()).text()


class _Page:
    def __init__(self, root: Schema) -> None:
        self._definitions: dict[str, Schema] = root["$defs"]
        self._root = root
        self._places: dict[str, str] = {}
        """Of each definition, the path at which it is told."""

    def text(self) -> str:
        sections = [("", self._root), *self._below("", self._root)]
        return "\n".join(
            [_HEAD, *(line for path, schema in sections for line in self._section(path, schema))]
        )

    def _below(self, path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
        """The mappings that `schema` holds and that are not told yet, depth first."""
        keys = sorted(schema["properties"], key=lambda key: key == _TOLD_LAST)
        for key in keys:
            for name, suffix in self._mappings(schema["properties"][key]):
                if name in self._places:
                    continue
                place = f"{path}.{key}{suffix}" if path else f"{key}{suffix}"
                self._places[name] = place
                yield place, self._definitions[name]
                yield from self._below(place, self._definitions[name])

    def _mappings(self, schema: Schema, suffix: str = "") -> Iterator[tuple[str, str]]:
        """Names of the mappings that a value of `schema` may be or hold, and how a path goes on to them."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if "properties" in self._definitions[name]:
                yield name, suffix
        for branch in schema.get("anyOf", ()):
            yield from self._mappings(branch, suffix)
        for inner, step in _inner(schema):
            yield from self._mappings(inner, suffix + step)

    def _section(self, path: str, schema: Schema) -> Iterator[str]:
        yield f"## `{path}`\n" if path else "## Top level\n"
        if path and "description" in schema:
            yield f"{schema['description']}\n".replace("\n", " ").rstrip() + "\n"
        yield "| key | type | default | meaning |"
        yield "| --- | --- | --- | --- |"
        required = schema.get("required", ())
        for key, value in schema["properties"].items():
            cells = (f"`{key}`", self._type(value), self._default(value, is_required=key in required))
            yield "| " + " | ".join(map(_cell, (*cells, _meaning(value)))) + " |"
        yield ""

    def _type(self, schema: Schema) -> str:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            place = self._places.get(name)
            return "" if place is None else f"[mapping](#{anchor(place)})"
        if "anyOf" in schema:
            kinds = (self._type(branch) for branch in schema["anyOf"])
            return " or ".join(dict.fromkeys(kind for kind in kinds if kind))
        if "const" in schema:
            return f"`{schema['const']}`"
        if "enum" in schema:
            return ", ".join(f"`{word}`" for word in schema["enum"])
        for inner, step in _inner(schema):
            kind = self._type(inner)
            return f"list of: {kind}" if step == "[]" else f"by name: {kind}"
        return _scalar(schema)

    def _default(self, schema: Schema, *, is_required: bool) -> str:
        if is_required:
            return "**required**"
        if "default" not in schema:
            return "" if any(self._mappings(schema)) else "unset"
        default = schema["default"]
        return _code(", ".join(map(str, default)) if isinstance(default, list) else default)


def anchor(heading: str) -> str:
    """The fragment by which a heading is linked to, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _inner(schema: Schema) -> Iterator[tuple[Schema, str]]:
    """What a list or a free mapping holds."""
    if "items" in schema:
        yield schema["items"], "[]"
    for inner in schema.get("patternProperties", {}).values():
        yield inner, ".NAME"
    if isinstance(schema.get("additionalProperties"), dict):
        yield schema["additionalProperties"], ".NAME"


def _scalar(schema: Schema) -> str:
    kind = schema.get("type")
    if kind == "null":
        return ""
    if kind == "integer":
        lowest, highest = schema.get("minimum"), schema.get("maximum")
        if highest is not None:
            return f"whole number, {lowest} to {highest}"
        return "whole number" if lowest is None else f"whole number, {lowest} or more"
    if kind == "number" and schema["maximum"] > 1:
        return f"number, {schema['minimum']} to {schema['maximum']}"
    if kind == "number":
        return _PATTERNS[units.SHARE_PATTERN]
    if known := _PATTERNS.get(schema.get("pattern", "")) or _FORMATS.get(schema.get("format", "")):
        return known
    such_as = f", such as {_code(schema['examples'][0])}" if "examples" in schema else ""
    return _SCALARS[schema["type"]] + such_as


def _meaning(schema: Schema) -> str:
    text = str(schema.get("description", ""))
    examples = schema.get("examples", ())
    if "default" in schema or not examples:
        return text
    return f"{text} Example: {', '.join(map(_code, examples))}."


def _code(value: object) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
