"""What the exit code of each command means, in one table.

Told by `sidecar help exit-codes`, the help of each command, a page and the manual. A test provokes each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

TOPIC: Final = "exit-codes"
OF_ALL: Final = MappingProxyType(
    {
        0: "done",
        1: "the thing that was asked says no, or cannot be had",
        2: "wrong use, or a bad configuration",
        74: "the output cannot be written, as to a full disk",
        130: "Ctrl-C",
        141: "nobody read the output to its end, as in `sidecar schema | head`",
    }
)
"""Whatever the command. 2 is also what an unknown option or a missing argument gives."""
_ASKED: Final = "nobody answers"
_WRONG: Final = "wrong use"
_TABLE: Final = {
    "run": {
        0: "ended as it was told, after the drain",
        1: "an address cannot be had, a part or a worker failed too often, or a second signal came",
        2: "the configuration is bad or not there",
    },
    "init": {0: "written", 1: "the file is there already, or cannot be written", 2: _WRONG},
    "check": {0: "all are good", 1: "with --strict: a warning", 2: "one is bad, or wrong use"},
    "explain": {0: "a route takes the request", 1: "none does", 2: "a bad file, or wrong use"},
    "diff": {0: "told, also where nothing changes", 2: "one is bad, or wrong use"},
    "import": {
        0: "the same requests are served as at the source",
        1: "other requests are served",
        2: "a file that is none, or wrong use",
    },
    "certs": {
        0: "written",
        1: "a file cannot be read or written",
        2: "wrong use, or no package cryptography",
    },
    "schema": {0: "told", 2: _WRONG},
    "status": {
        0: "all is well",
        1: "a breaker is open, by itself or forced; the last reload failed; a certificate has expired or cannot be "
        f"used; or {_ASKED}",
        2: "wrong use, or not the token",
    },
    "tap": {
        0: "after --count or Ctrl-C",
        1: f"{_ASKED}, or the sidecar has ended",
        2: "wrong use, or no such route",
    },
    "tune": {
        0: "there is a policy to try",
        1: "keep what you have",
        2: f"the data do not allow it, {_ASKED}, or wrong use",
    },
    "breaker": {
        0: "done",
        1: _ASKED,
        2: "no such route or upstream, a bad time, not the token, or wrong use",
    },
    "healthcheck": {
        0: "the probe passes",
        1: f"it does not, or {_ASKED}",
        2: "the configuration cannot be read, or wrong use",
    },
    "drain": {0: "told", 1: _ASKED, 2: "the configuration cannot be read, or wrong use"},
    "demo": {
        0: "all claims hold",
        1: "one does not, or it cannot be started",
        2: _WRONG,
        130: "with --once: Ctrl-C before the end",
    },
    "inject": {
        0: "done",
        1: "a pod could not be injected",
        2: "a file that cannot be read or is none, or wrong use",
    },
    "intercept": {0: "done", 1: "the rules cannot be written", 2: _WRONG},
    "webhook": {0: "ended by a signal", 1: "the address or the certificate cannot be used", 2: _WRONG},
    "completion": {0: "told", 2: _WRONG},
    "man": {0: "written", 1: "a page cannot be written", 2: _WRONG},
    "version": {0: "told", 2: _WRONG},
    "help": {0: "told", 2: "there is no such command or topic"},
}
TABLE: Final[Mapping[str, Mapping[int, str]]] = MappingProxyType(_TABLE)
"""By command, those of 0, 1 and 2 that it has, and what else it does itself."""


def told_of(command: str) -> str:
    """For the end of its help."""
    return "exit codes: " + "; ".join(f"{code} {what}" for code, what in TABLE[command].items())


def page() -> Iterator[str]:
    """The lines of the whole table, for a terminal."""
    yield "Exit codes of every command:"
    for code, what in OF_ALL.items():
        yield f"  {code:>3}  {what}"
    for command, codes in TABLE.items():
        yield f"\n{command}"
        for code, what in codes.items():
            yield f"  {code:>3}  {what}"


def markdown() -> Iterator[str]:
    """The same as a table of a page, without the codes that all have in the same way."""
    columns = (0, 1, 2)
    yield f"| command | {' | '.join(map(str, columns))} |"
    yield "| --- | --- | --- | --- |"
    for command, codes in TABLE.items():
        yield f"| `{command}` | {' | '.join(codes.get(code, '–') for code in columns)} |"
