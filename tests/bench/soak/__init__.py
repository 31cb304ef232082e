"""A long run under mixed traffic: what grows, and how fast."""
