"""Who else has a breaker of the same route and upstream, but under another key: a rolling deploy, or another system
on the same store."""

from __future__ import annotations

from typing import Final

from sidecar.core.fleet.keys import name_of

MAX_NAMES: Final = 1024
MAX_VERSIONS: Final = 8
"""Of one name; further ones are not told apart."""
HEARD_SECONDS: Final = 60.0
"""After that nobody has such a version any more."""


class Versions:
    """Keys that are heard of and are not ours."""

    __slots__ = ("_heard",)

    def __init__(self) -> None:
        self._heard: dict[str, dict[str, float]] = {}

    def hear(self, key: str, now: float) -> None:
        """Something was said of that one."""
        name = name_of(key)
        known = self._heard.get(name)
        if known is None:
            if len(self._heard) >= MAX_NAMES:
                self._forget(now)
                if len(self._heard) >= MAX_NAMES:
                    return
            known = self._heard[name] = {}
        elif key not in known and len(known) >= MAX_VERSIONS:
            known = self._heard[name] = _fresh(known, now)
        if key in known or len(known) < MAX_VERSIONS:
            known[key] = now

    def beside(self, key: str, now: float) -> int:
        """How many versions there are of the breaker with this key, itself included."""
        known = self._heard.get(name_of(key), {})
        return 1 + sum(other != key for other in _fresh(known, now))

    def _forget(self, now: float) -> None:
        self._heard = {name: fresh for name, known in self._heard.items() if (fresh := _fresh(known, now))}


def _fresh(known: dict[str, float], now: float) -> dict[str, float]:
    return {key: at for key, at in known.items() if at > now - HEARD_SECONDS}
