"""`sidecar breaker`: what it asks for, and in whose name."""

from __future__ import annotations

import argparse
import getpass
import os
import socket
from typing import Any

import pytest

from sidecar.cli import breaker
from sidecar.cli.admin_client import Asking


def nobody() -> str:
    raise KeyError("getpwuid(): uid not found: 65532")


@pytest.mark.parametrize(
    ("sudo", "host", "name"),
    [
        (None, "bastion", "ada@bastion"),
        ("root-of-all", "bastion", "root-of-all@bastion"),
        (None, "bästion two", "ada@b?stion?two"),
        (None, "b" * 200, "ada@" + "b" * 124),
    ],
)
def test_the_name_is_user_and_host_as_the_admin_api_takes_it(
    monkeypatch: pytest.MonkeyPatch, sudo: str | None, host: str, name: str
) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    if sudo is not None:
        monkeypatch.setenv("SUDO_USER", sudo)
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert breaker.whoami() == name


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr(os, "getuid", lambda: 65532)
    monkeypatch.setattr(socket, "gethostname", lambda: "pod")
    assert breaker.whoami() == "uid-65532@pod"


@pytest.mark.parametrize(
    ("words", "environ", "path"),
    [
        (["open", "a/b"], {}, "/breakers/a%2Fb/open?by=ada%40pod"),
        (
            ["close", "r", "--for", "ever"],
            {"SIDECAR_BY": "bob@desk"},
            "/breakers/r/close?for=ever&by=bob%40desk",
        ),
        (
            ["open", "r", "--for", "5m", "--by", "eve", "--upstream", "u"],
            {"SIDECAR_BY": "bob@desk"},
            "/breakers/r/open?for=5m&by=eve&upstream=u",
        ),
        (["auto", "r"], {"SIDECAR_BY": ""}, "/breakers/r/auto?by=ada%40pod"),
    ],
)
def test_it_says_for_how_long_and_who(
    monkeypatch: pytest.MonkeyPatch, words: list[str], environ: dict[str, str], path: str
) -> None:
    monkeypatch.delenv("SIDECAR_BY", raising=False)
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(breaker, "whoami", lambda: "ada@pod")
    asked: list[str] = []

    def post(_: Asking, asked_path: str) -> Any:
        asked.append(asked_path)
        return {"breakers": []}

    monkeypatch.setattr(Asking, "post", post)
    parser = argparse.ArgumentParser()
    breaker.add_arguments(parser)
    assert breaker.main(parser.parse_args(words)) == 0
    assert asked == [path]
