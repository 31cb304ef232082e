"""The file format as a JSON Schema, for editors: completes keys, shows what they mean, marks what is wrong.

Made from the models that check the file, so that the two cannot differ. It is a little more lenient than
`sidecar check`: a value may be `${NAME}`, and rules between keys are not in it.
"""

from __future__ import annotations

import json
from typing import Any

from sidecar.config.schema import models
from sidecar.config.schema.file import File

_VARIABLE = {"$ref": "#/$defs/Variable"}
_RESTRICTED = ("integer", "number", "boolean")


def json_schema() -> dict[str, Any]:
    """The schema, as plain data."""
    schema = models.json_schema(File)
    definitions = {name: _clean(value) for name, value in schema.pop("$defs").items()}
    definitions["Variable"] = {
        "type": "string",
        "pattern": r"\$\{",
        "description": "Read from the environment: ${NAME} or ${NAME:-default}.",
    }
    cleaned: dict[str, Any] = _clean(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sidecar configuration",
        **{key: value for key, value in cleaned.items() if key != "title"},
        "patternProperties": {"^x-.": {"description": "A key of your own, to keep anchors under."}},
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """The schema as it lies in `config/sidecar.schema.json`."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _clean(schema: Any) -> Any:
    """Without pydantic's titles and null defaults; a restricted value may also be a variable."""
    if isinstance(schema, list):
        return [_clean(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    cleaned = {
        key: {name: _clean(value) for name, value in content.items()}
        if key == "properties"
        else _clean(content)
        for key, content in schema.items()
        if not (key == "title" and isinstance(content, str)) and not (key == "default" and content is None)
    }
    if not _is_restricted(cleaned):
        return cleaned
    told = {key: cleaned.pop(key) for key in ("description", "default", "examples") if key in cleaned}
    return {**told, "anyOf": [cleaned, _VARIABLE]}


def _is_restricted(schema: dict[str, Any]) -> bool:
    """True for a scalar that the text `${NAME}` would not fit."""
    if "const" in schema:
        return False
    is_word = schema.get("type") == "string" and ("pattern" in schema or "enum" in schema)
    return is_word or schema.get("type") in _RESTRICTED
