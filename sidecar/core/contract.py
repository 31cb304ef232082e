"""How classes are written that serve both builds, the plain one and the one compiled by mypyc.

`trait` (of `mypy_extensions`) marks those that stand beside another base: a compiled class has one base and any
number of traits. To the interpreter it is nothing.
"""

from __future__ import annotations

from typing import Final

IS_COMPILED: Final[bool] = not __file__.endswith(".py")
"""Whether this is the compiled build: all of the data path is compiled, or none of it."""

BUILD: Final[str] = "compiled" if IS_COMPILED else "plain"
"""As it is told in `sidecar version`, `/status`, a metric and a resource attribute."""

NO_SLOTS: Final[tuple[str, ...]] = ()
"""`__slots__` of a contract whose fields its implementers have. By a name: a type checker takes a literal `()` for
a promise that nobody writes these fields."""

SLOTTED: Final[dict[str, bool]] = {} if IS_COMPILED else {"slots": True}
"""For `@dataclass(**SLOTTED)`: slots in the plain build. A compiled class keeps its fields in a struct, and
can't be replaced by a copy that has slots, which is what `slots=True` does."""
