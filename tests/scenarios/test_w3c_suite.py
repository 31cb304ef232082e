"""W3C's suite, asked of a sidecar: what the app behind it sees, each test by name."""

from __future__ import annotations

import re

import pytest

from tests.scenarios.stage import OK, get, saying, stage
from tests.support.trace_cases import SUITE, TRACE, TraceCase

_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


@pytest.mark.parametrize("case", SUITE, ids=str)
async def test_the_app_sees_what_the_suite_asks(case: TraceCase) -> None:
    async with stage(saying(OK)) as to:
        for lines in case.requests:
            request = get(b"/", *(name + b": " + value for name, value in lines))
            for answer in await to.ask_all(request * case.times, [b"GET"] * case.times):
                assert answer.status == 200

        parents = set()
        for number, request in enumerate(to.requests):
            sent = number // case.times
            match = _TRACEPARENT.fullmatch(request.value(b"traceparent") or b"")
            assert match is not None
            assert (match[1] == TRACE) is case.is_continued[sent]
            ours, _, others = (request.value(b"tracestate") or b"").partition(b",")
            assert ours == b"sidecar=" + match[2]
            assert others == case.passed_on[sent]
            parents.add(match[2])
        assert len(parents) == len(to.requests) == len(case.requests) * case.times


async def test_the_random_flag_reaches_the_app() -> None:
    (case,) = (one for one in SUITE if one.name == "propagates_random_flag")
    async with stage(saying(OK)) as to:
        await to.ask(get(b"/", *(name + b": " + value for name, value in case.requests[0])))
        assert (to.requests[0].value(b"traceparent") or b"").endswith(b"-02")
