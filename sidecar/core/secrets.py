"""Which configured values are told to nobody: not in a dump, not in a log, not in an explanation.

Two signs: a name that secrets have, and, for what may be any text, that the environment gave it.
"""

from __future__ import annotations

import re

SECRET_NAME = "auth|cookie|token|secret|passw|key|credential|session|signature|jwt"
"""A regular expression for what the name of a secret has in it, in any case."""
_NAME = re.compile(SECRET_NAME, re.IGNORECASE)
_URL = re.compile(r"(?<=://)[^/?#@\s'\"]*@|\?[^#\s'\"]*")
HIDDEN = "(hidden)"


def may_be_secret(name: str) -> bool:
    """True for the name of a header field or query parameter that is likely to carry one."""
    return _NAME.search(name) is not None


def without_secrets(url: str) -> str:
    """A URL without its user, password and query."""
    return _URL.sub(lambda found: f"?{HIDDEN}" if found[0].startswith("?") else f"{HIDDEN}@", url)
