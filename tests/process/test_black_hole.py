"""A connection that loses every packet takes no new call once it has not answered a PING for two seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sidecar.upstream.http2 import DEAD_SECONDS, SUSPECT_SECONDS
from tests.process.black_hole import CALL_SECONDS, GOOD_CALLS
from tests.process.dropping import in_namespace, skip_without_namespaces

pytestmark = pytest.mark.process

LATEST_SECONDS = CALL_SECONDS + SUSPECT_SECONDS + CALL_SECONDS + 5.0
"""With all that a busy machine may be late; without the suspicion it would be the end of the connection."""


async def test_a_connection_into_a_black_hole_takes_no_call_after_two_seconds(tmp_path: Path) -> None:
    await skip_without_namespaces()
    code, output, errors = await in_namespace(sys.executable, "-m", "tests.process.black_hole", tmp_path)
    assert code == 0, errors
    calls: list[tuple[float, str]] = json.loads(output)
    ends = [end for _, end in calls]
    first_good = ends.index("OK")
    assert set(ends[:first_good]) == {"DEADLINE_EXCEEDED"}, calls  # it is silent: nobody says anything
    assert set(ends[first_good:]) == {"OK"}, calls
    # The first time-out asks; what begins two seconds later goes elsewhere, and so does all that follows.
    assert calls[first_good][0] <= LATEST_SECONDS < DEAD_SECONDS, calls
    assert len(ends) - first_good == GOOD_CALLS
