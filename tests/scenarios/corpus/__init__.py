"""Malformed, ambiguous and hostile messages as data: what is sent, what must come of it, and why."""
