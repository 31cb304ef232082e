"""Real processes take their time on a busy machine: the limit of each test is against hanging, not for speed."""

from __future__ import annotations

from pathlib import Path

import pytest

HANGING_SECONDS = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(HANGING_SECONDS))
