"""What is fed: one function for each reader, by name. It returns if all is well, and raises whatever is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

Feed = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    name: str
    feed: Feed
    seeds: Callable[[], Iterable[bytes]]
    """Inputs to begin with, beside the kept corpus."""
    words: tuple[bytes, ...] = ()
    """Pieces that are worth putting in."""
    max_bytes: int = 2048
    share: float = 1.0
    """How much of the inputs it gets, against the others: more where more is at stake, less where each takes long."""


def same(what: str, expected: object, found: object) -> None:
    """Raises: AssertionError, if the two differ."""
    if expected != found:
        raise AssertionError(f"{what}:\n  expected {expected!r}\n  found    {found!r}")


def all_targets() -> dict[str, Target]:
    """Every target, in the order in which they run."""
    from tests.bench.fuzz import (
        bodies,
        clients,
        documents,
        fields,
        heads,
        http2,
        paths,
        proxies,
        servers,
        upstreams,
    )

    found = [
        *heads.TARGETS, *bodies.TARGETS, *paths.TARGETS, *fields.TARGETS, *documents.TARGETS,
        *clients.TARGETS, *http2.TARGETS, *upstreams.TARGETS, *proxies.TARGETS, *servers.TARGETS,
    ]  # fmt: skip
    return {target.name: target for target in found}
