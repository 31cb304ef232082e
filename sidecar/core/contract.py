"""What classes that only say what others do have in common.

`trait` (of `mypy_extensions`) marks those that stand beside another base: a compiled class has one base and any
number of traits. To the interpreter it is nothing.
"""

from __future__ import annotations

from typing import Final

NO_SLOTS: Final[tuple[str, ...]] = ()
"""`__slots__` of a contract whose fields its implementers have. By a name: a type checker takes a literal `()` for
a promise that nobody writes these fields."""
