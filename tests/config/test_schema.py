"""The JSON Schema that editors use is that of this code, and knows what the examples say."""

from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from sidecar.config.schema.file import File
from sidecar.config.schema.section import keys_of
from sidecar.config.tell.json_schema import json_schema, schema_text

CONFIG = Path(__file__).parents[2] / "config"


class TextLoader(yaml.SafeLoader):
    """Reads `on` as a word, as editors and the sidecar do; YAML 1.1 takes it for `true`."""


TextLoader.yaml_implicit_resolvers = {
    first: [(tag, shape) for tag, shape in found if tag != "tag:yaml.org,2002:bool"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
EXAMPLES = sorted(CONFIG.glob("*.yaml"))


def test_the_file_in_config_is_what_the_command_prints() -> None:
    assert (CONFIG / "sidecar.schema.json").read_text() == schema_text(), "sidecar schema > config/…"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_first_line_of_each_example_names_the_schema(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=sidecar.schema.json"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_key_of_the_examples_is_in_the_schema_with_a_description(path: Path) -> None:
    schema = json_schema()
    text = path.read_text()
    missing = list(_unknown(yaml.load(text, TextLoader), schema, schema, ""))
    assert missing == []


def test_a_restricted_value_may_be_a_variable() -> None:
    properties = json_schema()["$defs"]["Timeouts"]["properties"]
    shapes = properties["request"]["anyOf"][0]["anyOf"]
    assert {"$ref": "#/$defs/Variable"} in shapes
    assert shapes[0]["type"] == "string"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_value_of_the_examples_may_be_a_variable(path: Path) -> None:
    document = yaml.load(path.read_text(), TextLoader)
    within = with_variables(document) | {"version": document["version"]}
    wrong = [
        error.instance_path for error in jsonschema_rs.Draft202012Validator(json_schema()).iter_errors(within)
    ]
    assert wrong == []


def with_variables(value: Any) -> Any:
    """The same with a variable of the environment in the place of each value."""
    if isinstance(value, dict):
        return {key: with_variables(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_variables(inner) for inner in value]
    return f"${{NAME:-{value}}}"


def test_every_key_of_the_top_level_is_there() -> None:
    assert list(json_schema()["properties"]) == list(keys_of(File))


def _unknown(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str) -> Any:
    """Dotted keys of `value` that no branch of `schema` has, or has without a description."""
    branches = list(_branches(schema, root))
    if isinstance(value, list):
        items = [branch["items"] for branch in branches if "items" in branch]
        for item in value:
            for inner in items:
                yield from _unknown(item, inner, root, at)
    if not isinstance(value, dict):
        return
    properties = {key: found for branch in branches for key, found in branch.get("properties", {}).items()}
    free = [found for branch in branches for found in branch.get("patternProperties", {}).values()]
    free += [
        found["additionalProperties"]
        for found in branches
        if isinstance(found.get("additionalProperties"), dict)
    ]
    for key, inner in value.items():
        if key in properties:
            if "description" not in properties[key]:
                yield f"{at}.{key} has no description"
            yield from _unknown(inner, properties[key], root, f"{at}.{key}")
        elif free:
            yield from _unknown(inner, free[0], root, f"{at}.{key}")
        else:
            yield f"{at}.{key}"


def _branches(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """The schema, and all that its references and alternatives lead to."""
    if "$ref" in schema:
        yield from _branches(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    for branch in schema.get("anyOf", ()):
        yield from _branches(branch, root)
    yield schema
