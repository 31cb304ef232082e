"""The admin API and its OpenAPI file say the same: every operation, every status, every member of every answer.

Each answer that any test gets by `Operator` is held to the file; here are those that only this asks for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from sidecar.admin.changes import LEVELS
from sidecar.config.schema.telemetry import MAX_BUCKETS
from sidecar.core.breaker import Override
from sidecar.core.numbers import BUDGET_SOURCES
from sidecar.core.snapshot import BreakerMode
from sidecar.core.transition import State, TransitionReason
from sidecar.runtime.actor import PartState
from tests.scenarios.operator import operator
from tests.scenarios.stage import OK, app_routes, get, saying, stage
from tests.support.contract import DOCUMENT, check, check_answer, is_page, operations
from tests.support.proxy import running

FAILURE = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
SCHEMAS = DOCUMENT["components"]["schemas"]


def test_the_file_is_good_openapi() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


async def test_the_file_names_what_is_served_and_nothing_else() -> None:
    async with running(app_routes(9)) as worker:
        served = {(method, path) for method, path in worker.control.admin.operations if not is_page(path)}
    heads = {(method, path) for method, path in served if method == "HEAD"}
    assert served - heads == operations()
    assert {path for _, path in heads} == {path for method, path in operations() if method == "GET"} - {
        "/events",
        "/tap",
    }


async def test_the_file_is_served_as_it_is() -> None:
    async with running(app_routes(9)) as worker:
        assert await operator(worker).get("/openapi.json") == DOCUMENT


def enums() -> Iterator[tuple[list[str], list[str]]]:
    """What the file lists, and what the code has."""
    yield SCHEMAS["State"]["enum"], [one.value for one in State]
    yield SCHEMAS["Level"]["enum"], list(LEVELS)
    yield SCHEMAS["Override"]["properties"]["action"]["enum"], [one.value for one in Override]
    yield SCHEMAS["Transition"]["properties"]["reason"]["enum"], [one.value for one in TransitionReason]
    yield SCHEMAS["Policy"]["properties"]["mode"]["enum"], [one.value for one in BreakerMode]
    yield SCHEMAS["BreakerState"]["properties"]["mode"]["enum"], [one.value for one in BreakerMode]
    yield SCHEMAS["Part"]["properties"]["state"]["enum"], [one.value for one in PartState]
    budgets = SCHEMAS["Route"]["properties"]["budgets"]["properties"]["by_source"]
    yield list(budgets["properties"]), list(BUDGET_SOURCES)
    yield (
        list(SCHEMAS["Status"]["properties"]["breakers"]["properties"]["by_state"]["properties"]),
        [one.value for one in State],
    )


def test_every_list_of_words_is_the_codes_own() -> None:
    for listed, known in enums():
        assert sorted(listed) == sorted(known)
    buckets = SCHEMAS["Route"]["properties"]["duration_counts"]
    assert (buckets["minItems"], buckets["maxItems"]) == (2, MAX_BUCKETS + 1)
    answer = DOCUMENT["paths"]["/routes"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    bounds = answer["properties"]["duration_bounds"]
    assert (bounds["minItems"], bounds["maxItems"]) == (1, MAX_BUCKETS)


@pytest.mark.parametrize("name", [name for name, schema in SCHEMAS.items() if "examples" in schema])
def test_every_example_is_one(name: str) -> None:
    for example in SCHEMAS[name]["examples"]:
        check(name, example)


def shapes(schema: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every object with named members, by its place."""
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type", "object") in ("object", ["object", "null"]):
            yield where, schema
        for key, value in schema.items():
            if key not in ("examples", "example"):
                yield from shapes(value, f"{where}/{key}")
    elif isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from shapes(value, f"{where}/{number}")


def test_no_shape_lets_an_unknown_member_pass() -> None:
    """But for those that others are made of, which say so for themselves."""
    parts = {"schemas/ConfigNumbers", "schemas/BreakerState", "schemas/ReloadSummary"}
    found = dict(shapes(SCHEMAS, "schemas")) | dict(shapes(DOCUMENT["paths"], "paths"))
    is_open = {
        where
        for where, schema in found.items()
        if schema.get("additionalProperties", True) is True and schema.get("unevaluatedProperties", True)
    }
    assert is_open == parts


def test_the_judge_sees_a_member_too_many_one_too_few_and_a_wrong_type() -> None:
    good = {"level": "info", "levels": ["info"]}
    check_answer("GET", "/loglevel", 200, "application/json; charset=utf-8", json.dumps(good).encode())
    for bad in (
        {**good, "more": 1},
        {"level": "info"},
        {**good, "level": "loud"},
        {**good, "levels": "info"},
    ):
        with pytest.raises(jsonschema_rs.ValidationError):
            check_answer("GET", "/loglevel", 200, "application/json", json.dumps(bad).encode())
    for status, kind in ((418, "application/json"), (200, "text/html")):
        with pytest.raises(AssertionError):
            check_answer("GET", "/loglevel", status, kind, b"{}")


# Answers in states that other tests do not ask about


async def test_every_answer_of_a_breaker_that_has_lived_is_as_the_file_says() -> None:
    policies = (
        "circuit_breaker: {candidate: {failure_rate_threshold: 30%}, slow_call_duration: 1s, open_for: 1s}"
    )
    route = f"fallback: {{status: 200}}, {policies}"
    async with stage(saying(OK, *[FAILURE] * 6, OK), route=route) as to:
        hand = operator(to.worker)
        await to.ask_all(get() * 9, [b"GET"] * 9)
        for path in ("/breakers", "/breakers/app", "/routes", "/status"):
            await hand.get(path)
        for action in ("open?for=1h", "close", "auto", "open?upstream=app", "auto"):
            await hand.post(f"/breakers/app/{action}")
            (found,) = (await hand.get("/breakers/app"))["breakers"]
        assert found["candidate"]["history"]
        assert found["history"]
