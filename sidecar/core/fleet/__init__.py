"""Breakers of many processes that act as one.

`fleet` is what a process has of it, `shared` the rules for one breaker. The others answer one question each:
`messages` and `encoding` what is said, `decided` what is decided, `merging`, `rows` and `verdicts` what all have
seen and when that is enough, `borrowing` and `lending` who probes, `orders` what an operator wants of all, `keys` and
`versions` who speaks of the same breaker, `relay` what stands between the workers of a pod."""

from sidecar.core.fleet.fleet import Fleet, ToKeep, ToSend
from sidecar.core.fleet.member import Reach

__all__ = ["Fleet", "Reach", "ToKeep", "ToSend"]
