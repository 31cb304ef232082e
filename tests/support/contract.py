"""The OpenAPI file of the admin API, as a judge of answers: no member more, none less, none of another type."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from typing import Any

import jsonschema_rs

DOCUMENT: dict[str, Any] = json.loads((resources.files("sidecar.admin") / "openapi.json").read_bytes())
PROBLEM = "application/problem+json"
EVENTS = {"transition": "Transition", "reload": "ReloadEvent", "lost": "Lost", "request": "TappedRequest"}
"""The schema of each kind of event's data."""
_PAGE = re.compile(r"/|/dashboard/.*")
"""What is there for a browser: no part of the API."""


def operations() -> set[tuple[str, str]]:
    """Method and path of everything in the file."""
    return {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}


def is_page(path: str) -> bool:
    return _PAGE.fullmatch(path) is not None


def check_answer(method: str, path: str, status: int, kind: str, body: bytes) -> None:
    """Hold one answer to the file. What the file does not name may only be refused.

    Raises:
        AssertionError: the operation has no such status or type.
        jsonschema_rs.ValidationError: the body is not as its schema says.
    """
    if is_page(path):
        return
    media = kind.partition(";")[0].strip()
    operation = _operation("GET" if method == "HEAD" else method, path.partition("?")[0])
    if operation is None:
        assert status >= 400, f"{method} {path} is not in the file"
        schema: Any = {"$ref": "#/components/schemas/Problem"}
        assert media == PROBLEM
    else:
        answers = operation["responses"]
        assert str(status) in answers, f"{method} {path} may not be answered with {status}: {body[:300]!r}"
        content = _resolved(answers[str(status)])["content"]
        assert media in content, f"{method} {path}: {media} is not among {list(content)}"
        schema = content[media]["schema"]
    if method != "HEAD" and media.endswith("json"):
        _validator(json.dumps(schema)).validate(json.loads(body))


def check_event(kind: str, data: Any) -> None:
    """Hold an event's data to the file."""
    check(EVENTS[kind], data)


def check(name: str, value: Any) -> None:
    """Hold a value to one of the file's named schemas."""
    _validator(json.dumps({"$ref": f"#/components/schemas/{name}"})).validate(value)


def _operation(method: str, path: str) -> Any:
    for template, item in DOCUMENT["paths"].items():
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
        if method.lower() in item and re.fullmatch(pattern, path):
            return item[method.lower()]
    return None


def _resolved(answer: Any) -> Any:
    if "$ref" in answer:
        return DOCUMENT["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return answer


@cache
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    whole = {**json.loads(schema), "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
