"""Runs the programs that write rules to the kernel, and says what is wrong where they fail."""

from __future__ import annotations

import shutil
import subprocess
from typing import Final

RUN_SECONDS: Final = 30.0


class RulesFailed(Exception):
    """They could not be written; the text says why and what to do."""


def is_installed(program: str) -> bool:
    return shutil.which(program) is not None


def run(command: list[str], given: str = "") -> None:
    """Have a program do it, with `given` to read.

    Raises:
        RulesFailed: it is not here, has not ended in time, or failed.
    """
    done = tried(command, given)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise RulesFailed(f"{' '.join(command)}: {said[0]}; {_remedy(done.stderr)}")


def tried(command: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
    """The same where failing is an answer. Raises: RulesFailed, where the program is not here or does not end."""
    if not is_installed(command[0]):
        raise RulesFailed(f"{command[0]} is not installed here: use the image `sidecar-init`, which has it")
    try:
        return subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise RulesFailed(f"{command[0]} has not ended within {RUN_SECONDS:.0f} s") from None


def _remedy(said: str) -> str:
    if "ermission denied" in said or "ot permitted" in said or "you must be root" in said:
        return "it needs root with the capabilities NET_ADMIN and NET_RAW"
    return "the kernel may lack a module (nf_nat, xt_REDIRECT, xt_owner): `http_proxy` works without"
