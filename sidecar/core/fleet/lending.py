"""Who of all processes holds the permits of a half-open breaker. One lender serves all that should have `max_calls`
together: the control process of a pod, or a store that keeps the same account by its own clock.

A permit that nobody gives back is free again when its time is over. Whoever holds it counts its time from when he
asked, so he has let it go by then."""

from __future__ import annotations

from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.core.fleet.messages import PermitAnswer, PermitAsk, PermitReturn

MAX_BREAKERS: Final = 4096
"""Breakers with a permit out, at most; beyond that nobody is granted one for another breaker."""
MAX_SECONDS: Final = 3600.0
"""Of a permit, whatever was asked for."""


@dataclass(frozen=True, slots=True)
class _Loan:
    number: int
    until: float
    number_of_ask: int


class Lender:
    """The account. Times are monotonic seconds of whoever owns it."""

    __slots__ = ("_out", "refused")

    def __init__(self) -> None:
        self._out: dict[str, dict[str, _Loan]] = {}
        """Of each breaker, by process."""
        self.refused = 0
        """Asks that got nothing."""

    def ask(self, ask: PermitAsk, now: float) -> PermitAnswer:
        """Grant what is free of what is asked for; what the process holds already counts in, and is renewed. An ask
        that comes after a later one of the same process changes nothing."""
        held = self._holders(ask.breaker, now)
        before = held.pop(ask.process, None)
        if before is not None and before.number_of_ask > ask.number_of_ask:
            return PermitAnswer(ask.breaker, ask.process, 0, ask.number_of_ask)
        number = max(0, min(ask.number, ask.most - sum(loan.number for loan in held.values())))
        if not held and before is None and self._is_full(now):
            number = 0
        if number:
            until = now + min(ask.seconds, MAX_SECONDS)
            held[ask.process] = _Loan(number, until, ask.number_of_ask)
            self._out[ask.breaker] = held
        else:
            self.refused += 1
            self._drop(ask.breaker, ask.process)
        return PermitAnswer(ask.breaker, ask.process, number, ask.number_of_ask)

    def give_back(self, returned: PermitReturn) -> None:
        """What it held is free, unless it has asked again since. Of a process that holds nothing this changes
        nothing."""
        loan = self._out.get(returned.breaker, {}).get(returned.process)
        if loan is not None and loan.number_of_ask <= returned.number_of_ask:
            self._drop(returned.breaker, returned.process)

    def gone(self, process: str) -> None:
        """That process has ended: all that it held is free."""
        for breaker in [one for one, held in self._out.items() if process in held]:
            self._drop(breaker, process)

    def out(self, breaker: str, now: float) -> int:
        """How many permits are held at present."""
        return sum(loan.number for loan in self._holders(breaker, now).values())

    def _holders(self, breaker: str, now: float) -> dict[str, _Loan]:
        held = self._out.get(breaker, {})
        return {process: loan for process, loan in held.items() if loan.until > now}

    def _drop(self, breaker: str, process: str) -> None:
        held = self._out.get(breaker)
        if held is not None:
            held.pop(process, None)
            if not held:
                del self._out[breaker]

    def _is_full(self, now: float) -> bool:
        if len(self._out) >= MAX_BREAKERS:
            self._out = {breaker: held for breaker in self._out if (held := self._holders(breaker, now))}
        return len(self._out) >= MAX_BREAKERS
