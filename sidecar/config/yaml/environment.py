"""`${NAME}` and `${NAME:-default}` in the text of one scalar; `$${` stands for a literal `${`.

Works on a scalar that the YAML parser has already delimited, so a value can hold any character without
becoming structure. A default is used when the variable is unset or empty, as in a shell; it is taken as
written. A name with a dot, such as `${client.address}`, is a variable of each request: it is handed on, marked as
`core/actions/template.py` says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from sidecar.core.actions.template import MARK

_VARIABLE = re.compile(
    r"\$(?:(?P<escape>\$\{)|\{(?P<asked>[A-Za-z_][A-Za-z0-9_]*(?:\.[^{}\s\0]+)+)\}"
    r"|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<tail>:-[^}]*)?\}|\{)"
)
_OPENED = re.compile(r"\$(?:(?P<escape>\$\{)|\{)")
_MALFORMED = "malformed ${…}: write ${NAME} or ${NAME:-default}, or $${ for the characters ${"
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def has_variable(text: str) -> bool:
    return "${" in text


def reads_environment(text: str) -> bool:
    """Whether `text` has more in it than variables of requests."""
    return any(not match["asked"] for match in _VARIABLE.finditer(text))


def interpolate(text: str, environ: Mapping[str, str], fail: Callable[[str, str], None]) -> str:
    """Replace every variable in `text`; `fail(written, message)` is called for each that cannot be."""

    def no_variable(match: re.Match[str]) -> str:
        if match["escape"]:
            return "${"
        fail(match[0], _MALFORMED)
        return ""

    def replacement(match: re.Match[str]) -> str:
        name, tail = match["name"], match["tail"]
        if match["asked"]:
            return f"{MARK}{match['asked']}{MARK}"
        if name is None:
            return no_variable(match)
        value = environ.get(name)
        if tail is not None and not value:
            return str(tail[2:])
        if value is None:
            fail(match[0], f"environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        elif _SURROGATE.search(value):
            fail(match[0], f"environment variable {name} is not valid UTF-8")
        return value or ""

    # Behind the last brace nothing is closed; to look for one there, for each that is opened, would take for ever.
    end = text.rfind("}") + 1
    return _VARIABLE.sub(replacement, text[:end]) + _OPENED.sub(no_variable, text[end:])
