"""Bad endpoints among good ones, in virtual time: what clients get, and what a breaker does meanwhile."""
