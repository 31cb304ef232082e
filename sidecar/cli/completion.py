"""`sidecar completion bash|zsh|fish`: a script that completes commands, options and their values.

It is made from the parsers themselves, so that it can't fall behind them, and holds words alone: a shell that has
read it starts no process at a Tab.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from enum import Enum

from sidecar.cli import exit_codes
from sidecar.cli.commands import COMMANDS, parser_of
from sidecar.core.dataclass import dataclass

HOW = """\
bash:  sidecar completion bash > ~/.local/share/bash-completion/completions/sidecar
zsh:   sidecar completion zsh > "${fpath[1]}/_sidecar"
fish:  sidecar completion fish > ~/.config/fish/completions/sidecar.fish"""


@dataclass(frozen=True, slots=True)
class _Option:
    """One option of a command, or its positional argument."""

    flags: tuple[str, ...]
    """Without one it is positional."""
    purpose: str
    takes_value: bool
    choices: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """For which shell."""
    parser.add_argument("shell", choices=sorted(_SCRIPTS), help="whose script")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = HOW


def main(options: argparse.Namespace) -> int:
    """Print the script."""
    sys.stdout.write(_SCRIPTS[options.shell](_commands()))
    return 0


def _commands() -> dict[str, list[_Option]]:
    _, parsers = parser_of(*COMMANDS)
    found = {name: _options(parser) for name, parser in parsers.items()}
    found["help"] = [_Option((), "", takes_value=True, choices=(*COMMANDS, exit_codes.TOPIC))]
    return found


def _options(parser: argparse.ArgumentParser) -> list[_Option]:
    """What its help shows. argparse has no public way to ask for it."""
    text = parser._get_formatter()._expand_help
    return [
        _Option(
            tuple(action.option_strings),
            " ".join(text(action).split()) if action.help else "",
            action.nargs != 0,
            tuple(str(one.value if isinstance(one, Enum) else one) for one in action.choices or ()),
        )
        for action in parser._actions
        if action.help != argparse.SUPPRESS
    ]


def _flags(options: Iterable[_Option]) -> list[str]:
    return [flag for option in options for flag in option.flags]


def _words(options: Iterable[_Option]) -> list[str]:
    """What may stand where no option's value does."""
    return [word for option in options if not option.flags for word in option.choices]


def _case(pattern: str, body: str) -> str:
    return f"    {pattern}) {body} ;;"


def _bash(commands: dict[str, list[_Option]]) -> str:
    values, words = [], []
    for name, options in commands.items():
        for option in options:
            if option.flags and option.takes_value:
                pattern = "|".join(f"{name}:{flag}" for flag in option.flags)
                values.append(_case(pattern, f"words={shlex.quote(' '.join(option.choices))}; value=1"))
        words.append(_case(name, _bash_words(_words(options), _flags(options))))
    return "\n".join(
        [
            "_sidecar() {",
            '  local word command="" words="" flags="" value="" current="${COMP_WORDS[COMP_CWORD]}"',
            '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            "    [[ $word == -* ]] || { command=$word; break; }",
            "  done",
            '  case "$command:${COMP_WORDS[COMP_CWORD-1]}" in',
            *values,
            "  esac",
            '  [[ -n $value ]] || case "$command" in',
            _case("''", _bash_words([*COMMANDS], ["--help", "--version", "--no-pager"])),
            *words,
            "  esac",
            "  [[ -n $value || $current != -* ]] || words=$flags",
            '  COMPREPLY=($(compgen -W "$words" -- "$current"))',
            "}",
            "complete -o default -F _sidecar sidecar",  # files, where no word fits
            "",
        ]
    )


def _bash_words(words: Sequence[str], flags: Sequence[str]) -> str:
    return f"words={shlex.quote(' '.join(words))} flags={shlex.quote(' '.join(flags))}"


def _zsh(commands: dict[str, list[_Option]]) -> str:
    lines = ["#compdef sidecar", "", "_sidecar() {", "  local -a commands", "  commands=("]
    lines += [f"    {shlex.quote(_zsh_text(name) + ':' + purpose)}" for name, purpose in COMMANDS.items()]
    lines += [
        "  )",
        "  if (( CURRENT == 2 )); then",
        "    _describe command commands",
        "    return",
        "  fi",
        '  local command="$words[2]"',
        "  shift words; (( CURRENT-- ))",
        '  case "$command" in',
    ]
    for name, options in commands.items():
        specs = [shlex.quote(spec) for option in options for spec in _zsh_specs(option)]
        lines.append(_case(name, " ".join(["_arguments", *specs, "'*:file:_files'"])))
    return "\n".join([*lines, "  esac", "}", "", '_sidecar "$@"', ""])


def _zsh_specs(option: _Option) -> list[str]:
    value = ":value:" + (f"({' '.join(option.choices)})" if option.choices else "_files")
    if not option.flags:
        return [f"1{value}"] if option.choices else []
    return [
        f"*{flag}[{_zsh_text(option.purpose)}]{value if option.takes_value else ''}" for flag in option.flags
    ]


def _zsh_text(text: str) -> str:
    """Without what has a meaning in a specification."""
    for special in "\\[]:":
        text = text.replace(special, "\\" + special)
    return text


def _fish(commands: dict[str, list[_Option]]) -> str:
    lines = [
        f"complete -c sidecar -n __fish_use_subcommand -f -a {name} -d {shlex.quote(purpose)}"
        for name, purpose in COMMANDS.items()
    ]
    for name, options in commands.items():
        seen = f"complete -c sidecar -n '__fish_seen_subcommand_from {name}'"
        for option in options:
            lines.append(" ".join([seen, *_fish_words(option)]))
    return "\n".join([*lines, ""])


def _fish_words(option: _Option) -> list[str]:
    words = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags]
    if option.choices:
        words.append(("-x " if option.flags else "-f ") + f"-a {shlex.quote(' '.join(option.choices))}")
    elif option.flags and option.takes_value:
        words.append("-r")
    return [*words, f"-d {shlex.quote(option.purpose)}"] if option.purpose else words


_SCRIPTS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
