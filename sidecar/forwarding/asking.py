"""What a breaker that is not closed wants to know of a request before it lets it probe."""

from __future__ import annotations

from abc import ABC, abstractmethod

from mypy_extensions import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class Asking(ABC):
    """What a breaker that is not closed wants to know of a request."""

    __slots__ = ()

    @abstractmethod
    def could_count(self, now: float) -> bool:
        """Whether its timeout could say something of the upstream."""

    @abstractmethod
    def is_body_complete(self) -> bool:
        """Whether its client has nothing more to send."""

    @abstractmethod
    def is_body_whole(self) -> bool:
        """Whether its body has come, or as much of it as is kept, or it does not come before an answer."""
