"""Connections that tests open by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.by_hand import HandConnecting


@pytest.fixture
def connectings(monkeypatch: pytest.MonkeyPatch) -> list[HandConnecting]:
    """All that are begun in the test, in order."""
    begun: list[HandConnecting] = []

    def begin(*args: Any) -> HandConnecting:
        begun.append(HandConnecting(*args))
        return begun[-1]

    monkeypatch.setattr("sidecar.upstream.cluster.Connecting", begin)
    return begun
