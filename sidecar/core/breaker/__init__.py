"""The circuit breaker: one state machine for each route and upstream, and a permit for each attempt.

`front` is what the process knows, `machine` the state and what changes it, `permit` and `door` what the data
path holds. Each other module answers one question: `window`, `rows` and `evidence` what was seen, `triggers`
when that is enough, `counting` and `durations` how long a time-out must have been, `probes` and `waits` how it
comes back, `override` where an operator wants it, `numbers` and `words` what is shown."""

from sidecar.core.breaker.front import Breaker
from sidecar.core.override import Override

__all__ = ["Breaker", "Override"]
