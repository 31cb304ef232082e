"""Which policy of a breaker would have done better, by what was seen (SPEC 16)."""
