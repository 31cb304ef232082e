"""Comparison of the sidecar with its peers: `python -m tests.bench.compare`."""
