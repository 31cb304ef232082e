"""The page of the configuration is that of this code: every key, each with its type, default and meaning."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.config.load import load_text
from sidecar.config.tell.json_schema import json_schema
from sidecar.config.tell.reference import anchor, reference_text
from sidecar.core.snapshot import Snapshot

CONFIG = Path(__file__).parents[2] / "config"
PAGE = CONFIG / "REFERENCE.md"
_LINK = re.compile(r"\]\(#([^)]*)\)")


def rows() -> dict[str, list[list[str]]]:
    """By the path of each section: the cells of its rows."""
    found: dict[str, list[list[str]]] = {}
    for section in reference_text().split("\n## ")[1:]:
        heading, _, rest = section.partition("\n")
        lines = [line for line in rest.splitlines() if line.startswith("| `")]
        path = "" if heading == "Top level" else heading.strip("`")
        found[path] = [re.split(r"(?<!\\) \| ", line.strip("|").strip()) for line in lines]
    return found


def test_the_page_in_config_is_what_the_command_prints() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(reference_text())
    assert PAGE.read_text() == reference_text(), "UPDATE_GOLDEN=1 pytest tests/config"


def test_every_definition_of_the_schema_is_told_once() -> None:
    told = sorted(tuple(cells[0].strip("`") for cells in section) for section in rows().values())
    schema = json_schema()
    mappings = [schema, *(one for one in schema["$defs"].values() if "properties" in one)]
    assert told == sorted(tuple(one["properties"]) for one in mappings)


def test_every_row_has_a_type_and_a_meaning() -> None:
    bare = [
        (path, cells) for path, section in rows().items() for cells in section if not cells[1] or not cells[3]
    ]
    assert bare == []


def test_every_link_leads_to_a_section_of_the_page() -> None:
    headings = {anchor(heading) for heading in re.findall(r"^## (.*)$", reference_text(), re.MULTILINE)}
    assert set(_LINK.findall(reference_text())) <= headings


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("", ["`version`", "`1`", "**required**"]),
        ("", ["`drain_timeout`", "duration", "`25s`"]),
        ("listeners.NAME.limits", ["`head`", "size", "`64KiB`"]),
        ("listeners.NAME.limits", ["`headers`", "whole number, 1 or more", "`100`"]),
        (
            "upstreams.NAME",
            [
                "`endpoints`",
                "list of: text, such as `payments:80` or [mapping](#upstreamsnameendpoints)",
                "**required**",
            ],
        ),
        (
            "routes[]",
            ["`weights`", "by name: whole number, 0 to 1000000 or [mapping](#routesweightsname)", ""],
        ),
        ("routes[].match.path", ["`regex`", "regular expression", "unset"]),
        ("routes[].circuit_breaker", ["`failure_rate_threshold`", "share", "`50%`"]),
        (
            "routes[].circuit_breaker",
            ["`mode`", "`enforce`, `metrics_only`, `disabled`, `forced_open`", "`enforce`"],
        ),
        ("routes[].admission", ["`min_budget`", "`p50`, `p95` or duration", "`p50`"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_says_it_in_the_words_of_the_file(path: str, row: list[str]) -> None:
    assert row in [cells[:3] for cells in rows()[path]]


def test_what_the_page_gives_as_defaults_is_what_a_file_without_them_gets() -> None:
    """A file that writes every default of the page out is the same configuration as the smallest one."""
    small: dict[str, Any] = {
        "version": 1,
        "upstreams": {"u": {"endpoints": ["127.0.0.1:1"]}},
        "routes": [{"name": "r", "upstream": "u"}],
    }
    assert _loaded(_with_defaults(small)) == _loaded(small)


def _loaded(file: dict[str, Any]) -> Snapshot:
    """What it says, but for which text said it."""
    return replace(load_text(yaml.safe_dump(file)).snapshot, digest="")


def _with_defaults(small: dict[str, Any]) -> dict[str, Any]:
    schema = json_schema()
    whole: dict[str, Any] = {**small, **_defaults(schema, schema)}
    upstream = _defaults(schema["$defs"]["UpstreamSection"], schema)
    for unset in ("health_check", "failover"):  # as a whole, too
        upstream.pop(unset)
    whole["upstreams"]["u"] |= upstream
    route = whole["routes"][0] | _defaults(schema["$defs"]["Route"], schema)
    route["circuit_breaker"].pop("candidate", None)
    route["circuit_breaker"]["half_open"].pop("check")  # unset as a whole, too
    for key in (
        "fallback",
        "cors",
        "hedge",
        "mirror",
        "redirect",
        "respond",
    ):  # unset as a whole, though their parts have defaults
        route.pop(key)
    whole["routes"] = [route]
    listener = _defaults(schema["$defs"]["ListenerSection"], schema)
    listener.pop("tls")  # unset as a whole, too
    whole["listeners"] = {"inbound": listener, "outbound": listener}
    whole["telemetry"].pop("otlp", None)
    whole.pop("share")
    return whole


def _defaults(definition: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Every key of a mapping that has a default, and the mappings below it."""
    found: dict[str, Any] = {}
    for key, value in definition["properties"].items():
        if "default" in value:
            found[key] = value["default"]
            continue
        for branch in value.get("anyOf", ()):
            name = branch.get("$ref", "").rpartition("/")[2]
            if key not in ("defaults", "candidate") and "properties" in root["$defs"].get(name, {}):
                inner = _defaults(root["$defs"][name], root)
                if inner:
                    found[key] = inner
    return found
