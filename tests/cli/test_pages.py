"""Each command of ours that a page shows can be given: the command is there, with these options and arguments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sidecar.cli.commands import COMMANDS, parser_of
from tests.test_docs import PAGES, ROOT

_FENCE = re.compile(r"^[ ]*```(?:sh|console|bash)\n(.*?)^[ ]*```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`(?:\S*/)?sidecar ([^`\n]+)`")
_ENDS = {"|", "||", "&&", ";", "&", ">", ">>", "2>", "<", ")"}
"""What ends the words of a command."""
_FLAG = re.compile(r"(?<![\w-])(--[a-z][a-z-]*|-[a-zA-Z]\b)")


@cache
def flags_of(command: str) -> frozenset[str]:
    _, parsers = parser_of(command)
    return frozenset(parsers[command]._option_string_actions) | {"--no-pager"}


def shown(text: str) -> Iterator[list[str]]:
    """The words of each command in a fence, from its name on."""
    for block in _FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            try:
                words = list(lexer)
            except ValueError:  # a quotation goes on in the next line: of other programs' texts
                continue
            for index, word in enumerate(words[:-1]):
                is_ours = word == "sidecar" or word.endswith("/bin/sidecar")
                if is_ours and words[index + 1] in COMMANDS:
                    given = words[index + 1 :]
                    end = next((at for at, one in enumerate(given) if one in _ENDS), len(given))
                    yield given[:end]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_in_a_fence_is_one_that_there_is(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = []
    for words in shown(page.read_text()):
        whole, _ = parser_of(words[0])
        try:
            whole.parse_args(words)
        except SystemExit as ended:
            if ended.code:
                wrong.append((words, capsys.readouterr().err.splitlines()[-1]))
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_an_option_in_a_sentence_is_one_that_there_is(page: Path) -> None:
    wrong = []
    for told in _SPAN.findall(page.read_text()):
        command = told.split()[0]
        if command in COMMANDS:
            wrong += [(told, flag) for flag in _FLAG.findall(told) if flag not in flags_of(command)]
    assert wrong == []


def test_what_there_is_not_would_be_found() -> None:
    page = (
        "```sh\nA=b sudo .venv/bin/sidecar run --fast \\\n  x.yaml | cat && sidecar check a.yaml > b\n```\n"
    )
    assert list(shown(page)) == [["run", "--fast", "x.yaml"], ["check", "a.yaml"]]
    assert "--fast" not in flags_of("run")


def test_the_pages_show_most_commands() -> None:
    used = {words[0] for page in PAGES for words in shown(page.read_text())}
    assert {"run", "check", "explain", "diff", "status", "breaker", "inject", "healthcheck"} <= used
