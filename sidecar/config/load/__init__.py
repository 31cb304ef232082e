"""Configuration files → a snapshot, or every problem in them. The public face of this package."""

from sidecar.config.load.assembly import MAX_PROBLEMS, Loaded, load_file, load_text
from sidecar.config.problems import ConfigError

__all__ = ["MAX_PROBLEMS", "ConfigError", "Loaded", "load_file", "load_text"]
