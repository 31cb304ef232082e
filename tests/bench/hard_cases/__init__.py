"""Situations in which circuit breakers go wrong, in virtual time: `python -m tests.bench.hard_cases`."""
