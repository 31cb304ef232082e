"""Connections that tests open by hand."""

from tests.support.by_hand import connectings

__all__ = ["connectings"]
