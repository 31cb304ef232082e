"""A command as a page of the manual (man(7)), made from its parser. Pure.

argparse's own texts differ between versions of Python and are broken for a terminal; a page is the same everywhere,
so it is made from the actions.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final

from sidecar.cli.commands import COMMANDS
from sidecar.cli.exit_codes import OF_ALL, TABLE

ENVIRONMENT: Final = {
    "SIDECAR_CONFIG": "the configuration where a command is given none; else sidecar.yaml",
    "SIDECAR_ADMIN": "the admin address of a running sidecar; else http://127.0.0.1:15000",
    "SIDECAR_ADMIN_TOKEN_FILE": "the file with its token",
    "SIDECAR_BY": "in whose name `sidecar breaker` overrides; else user@host",
    "SIDECAR_PAGER": "what long output goes through in a terminal; else PAGER, else less, else more; empty for none",
    "NO_COLOR": "not empty: no colours",
    "CLICOLOR_FORCE": "not empty and not 0: colours into a file or a pipe too",
}
_DESCRIPTION: Final = (
    "A reverse proxy that stands beside one service and takes its calls, in and out. Every route has a circuit "
    "breaker, every request a deadline that travels with it, every exchange its trace context. One YAML file says "
    "what goes where."
)
_ESCAPES: Final = str.maketrans(
    {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}
)


def pages(version: str, parsers: dict[str, argparse.ArgumentParser]) -> Iterator[tuple[str, str]]:
    """Name of the file and text, of the program and of each command."""
    yield "sidecar.1", _text(_program(version))
    for name, parser in parsers.items():
        yield f"sidecar-{name}.1", _text(_command(name, version, parser))


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _program(version: str) -> Iterator[str]:
    yield from _head("sidecar", "a reverse proxy beside one service", version)
    yield from (
        ".B sidecar",
        ".RI [ --no-pager ]".replace("-", "\\-"),
        ".I COMMAND",
        ".RI [ ARGUMENT \\|.\\|.\\|. ]",
    )
    yield from (".SH DESCRIPTION", _plain(_DESCRIPTION), ".SH COMMANDS")
    for name, what in COMMANDS.items():
        yield from (".TP", f".BR sidecar\\-{_plain(name)} (1)", _plain(_sentence(what)))
    yield from (".SH OPTIONS", ".TP", '.BR \\-h ", " \\-\\-help', "Show all commands.")
    yield from (".TP", ".B \\-\\-version", "Show the version.")
    yield from (".TP", ".B \\-\\-no\\-pager", "Print long output at once.")
    yield from _exit_status(OF_ALL.items())
    yield ".SH ENVIRONMENT"
    for name, what in ENVIRONMENT.items():
        yield from (".TP", f".B {name}", _plain(_sentence(what)))
    yield from (".SH FILES", ".TP", ".I sidecar.yaml", "The configuration, in the current directory.")
    yield from (
        ".SH SEE ALSO",
        ".BR sidecar\\-run (1),",
        ".BR sidecar\\-check (1),",
        ".BR sidecar\\-demo (1)",
    )


def _command(name: str, version: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from _head(f"sidecar-{name}", COMMANDS[name], version)
    positional, options, *others = parser._action_groups
    yield f".B sidecar {_plain(name)}"
    yield ".RI [ OPTION \\|.\\|.\\|. ]"
    for action in _shown(positional):
        yield _synopsis(action)
    yield from (".SH DESCRIPTION", _plain(_sentence(parser.description or COMMANDS[name])))
    for title, group in (("ARGUMENTS", positional), ("OPTIONS", options)):
        if actions := list(_shown(group)):
            yield f".SH {title}"
            for action in actions:
                yield from _action(parser, action)
    for group in others:
        yield from (
            f".SS {_plain(_sentence(group.title or '')[:-1])}",
            _plain(_sentence(group.description or "")),
        )
        for action in _shown(group):
            yield from _action(parser, action)
    if parser.epilog:
        yield ".SH NOTES"
        yield from _notes(parser.epilog)
    yield from _exit_status(TABLE[name].items())
    yield from (".SH SEE ALSO", ".BR sidecar (1)")


def _head(name: str, what: str, version: str) -> Iterator[str]:
    yield f'.TH "{_plain(name.upper())}" "1" "" "sidecar {_plain(version)}" "sidecar"'
    yield from (".nh", ".ad l")  # an option or a path that is broken at a hyphen cannot be copied
    yield from (".SH NAME", f"{_plain(name)} \\- {_plain(what)}", ".SH SYNOPSIS")


def _shown(group: argparse._ArgumentGroup) -> Iterator[argparse.Action]:
    return (action for action in group._group_actions if action.help != argparse.SUPPRESS)


def _synopsis(action: argparse.Action) -> str:
    value = f"\\fI{_value(action)}\\fR"
    if action.nargs in ("*", "+"):
        value += " \\|.\\|.\\|."
    return f"[{value}]" if action.nargs in ("?", "*") else value


def _action(parser: argparse.ArgumentParser, action: argparse.Action) -> Iterator[str]:
    yield ".TP"
    value = "" if action.nargs == 0 else f"\\fI{_value(action)}\\fR"
    flags = ", ".join(f"\\fB{_plain(flag)}\\fR" for flag in action.option_strings)
    yield " ".join(filter(None, (flags, value)))
    purpose = parser._get_formatter()._expand_help(action)
    yield _plain(_sentence(" ".join(purpose.split())))


def _value(action: argparse.Action) -> str:
    """What stands for an argument: its name, or one of its choices."""
    if action.metavar is not None:
        return _plain(str(action.metavar))
    if action.choices is not None:
        return "|".join(_plain(str(one.value if isinstance(one, Enum) else one)) for one in action.choices)
    return _plain(action.dest.upper().replace("_", "-"))


def _exit_status(codes: Iterable[tuple[int, str]]) -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, what in codes:
        yield from (".TP", f".B {code}", _plain(_sentence(what)))


def _notes(text: str) -> Iterator[str]:
    """Paragraphs are filled; one with columns stays as it is."""
    for index, paragraph in enumerate(text.split("\n\n")):
        if index:
            yield ".PP"
        if "  " in paragraph:
            yield from (".nf", *map(_plain, paragraph.splitlines()), ".fi")
        else:
            yield _plain(" ".join(paragraph.split()))


def _sentence(text: str) -> str:
    """With a full stop, and a capital where a word begins it, and not an address."""
    first = text.partition(" ")[0]
    return (text if "/" in first else text[:1].upper() + text[1:]).rstrip(".") + "."


def _plain(text: str) -> str:
    """So that roff takes each character for itself."""
    told = re.sub(r",(?=\S)", r",\\:", text.translate(_ESCAPES))  # a long list may be broken behind a comma
    return f"\\&{told}" if told.startswith(".") else told
