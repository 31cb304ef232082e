"""How much of one read goes to the codec at once, and what its events cost of a turn of the loop, on either side."""

from __future__ import annotations

from typing import Final

SLICE_BYTES: Final = 32 * 1024
"""Given to the codec at once; between two of them it is asked whether this turn of the loop has time left."""
DATA_UNITS: Final = 10
"""What a frame of a body costs of a turn (`transport/turns.py`)."""
OTHER_UNITS: Final = 4
"""What any other event costs, but for a head."""


def cut(data: bytes) -> tuple[bytes, bytes]:
    """The next slice, and the rest."""
    return (data, b"") if len(data) <= SLICE_BYTES else (data[:SLICE_BYTES], data[SLICE_BYTES:])
