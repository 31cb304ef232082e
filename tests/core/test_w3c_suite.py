"""W3C's suite, asked of the reader in the core: each of its tests by name."""

from __future__ import annotations

import pytest

from sidecar.core.tracecontext import RANDOM, IdSource, read
from tests.support.trace_cases import SUITE, TRACE, Lines, TraceCase


def joined(lines: Lines, name: bytes) -> bytes | None:
    """The field's value as a parser hands it on: fields of one name are one value (RFC 9110 5.3)."""
    values = [value.strip(b" \t") for key, value in lines if key.lower() == name]
    return b", ".join(values) if values else None


def test_the_suite_is_whole() -> None:
    assert len(SUITE) == len({case.name for case in SUITE}) == 41


@pytest.mark.parametrize("case", SUITE, ids=str)
def test_the_core_does_what_the_suite_asks(case: TraceCase) -> None:
    ids = IdSource()
    for lines, is_continued, passed_on in zip(case.requests, case.is_continued, case.passed_on, strict=True):
        for _ in range(case.times):
            context = read(joined(lines, b"traceparent"), joined(lines, b"tracestate"), ids)

            assert (context.trace_id == TRACE) is is_continued
            assert (context.parent_id is not None) is is_continued
            assert context.tracestate == passed_on


def test_the_random_flag_goes_on() -> None:
    (case,) = (one for one in SUITE if one.name == "propagates_random_flag")
    assert read(joined(case.requests[0], b"traceparent"), None, IdSource()).flags & RANDOM
