"""Scenes of a demo, and how they are played, whatever they are played on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from aiohttp import ClientError

from sidecar.demo.stage import Journal

S = TypeVar("S")


@dataclass(frozen=True)
class Scene(Generic[S]):
    title: str
    promise: str
    """What is to be seen."""
    play: Callable[[S], Awaitable[None]]


async def play_all(
    scenes: Sequence[Scene[S]], stage: S, journal: Journal, rest: Callable[[], Awaitable[None]]
) -> None:
    """One after the other, each followed by a rest for those who watch."""
    for number, scene in enumerate(scenes, start=1):
        journal.open(f"{number}/{len(scenes)} {scene.title}", scene.promise)
        try:
            await scene.play(stage)
        except (ClientError, OSError, LookupError, ValueError) as error:
            journal.claim(f"the scene broke off: {type(error).__name__}: {error}", False)
        await rest()
