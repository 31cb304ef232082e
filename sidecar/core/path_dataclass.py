"""`dataclass` for classes that one of the builds compiles: interpreted, they have their methods made late, too.

A compiled class can be given none later, and has them compiled from the standard library's `dataclass`, for which
mypyc takes this one. See `dataclass.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.contract import IS_COMPILED

if TYPE_CHECKING or IS_COMPILED:
    from dataclasses import dataclass as dataclass
else:
    from sidecar.core.dataclass import dataclass as dataclass
