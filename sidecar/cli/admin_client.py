"""How commands talk to the admin API of a running sidecar, and to its probes."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sidecar.core.snapshot import Address

DEFAULT_URL = "http://127.0.0.1:15000"
TIMEOUT_SECONDS = 5.0
SILENT_SECONDS = 40.0
"""Of an answer without an end, which has a comment every 15 s."""
_SHOWN_CHARACTERS = 200


class AskFailed(Exception):
    """There is no answer, or it says no. `status` is 0 where none came."""

    def __init__(self, message: str, status: int = 0, *, is_wrong_use: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self._is_wrong_use = is_wrong_use

    @property
    def exit_code(self) -> int:
        """2 for what was asked wrongly (an unknown route, a bad duration, not the token), else 1."""
        return 2 if self._is_wrong_use or self.status in (400, 401, 404) else 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to ask, and with which token."""
    parser.add_argument(
        "--admin",
        metavar="URL",
        default=os.environ.get("SIDECAR_ADMIN", DEFAULT_URL),
        help="of a running sidecar: http://host:port or unix:/path; default: $SIDECAR_ADMIN, else "
        + DEFAULT_URL,
    )
    add_token_file(parser)


def add_token_file(parser: argparse.ArgumentParser) -> None:
    """With which token."""
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        default=os.environ.get("SIDECAR_ADMIN_TOKEN_FILE"),
        help="the file that `admin.token_file` names; default: $SIDECAR_ADMIN_TOKEN_FILE",
    )


def url_of(address: Address) -> str:
    """How a client on this host reaches a server that listens at `address`."""
    if address.path is not None:
        return f"unix:{address.path}"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    return f"http://{Address(host, address.port)}"


class Asking:
    """One server of a sidecar. Proxies that the environment names are not used: one of them may be this sidecar."""

    def __init__(
        self, url: str, token_file: str | None = None, *, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        """Raises: AskFailed, unless `url` is http://… or unix:/…"""
        self.url = url
        self._parts = _parts_of(url)
        self._token_file = token_file
        self._timeout_seconds = timeout_seconds

    def get(self, path: str) -> Any:
        """The JSON at `path`. Raises: AskFailed."""
        return self._ask("GET", path)

    def post(self, path: str) -> Any:
        """Change something. Raises: AskFailed."""
        return self._ask("POST", path)

    def probe(self, path: str) -> None:
        """Ask whether a probe passes. Raises: AskFailed, with what it says."""
        response, text = self._exchange("GET", path)
        if response.status != 200:
            said = text.decode(errors="replace").strip() or response.reason
            raise AskFailed(
                f"{self.url}{path}: {response.status} {said[:_SHOWN_CHARACTERS]}", response.status
            )

    def lines(self, path: str) -> Iterator[str]:
        """The lines of an answer that has no end, as they come, until the sidecar ends it.

        Raises: AskFailed, also where nothing comes for `SILENT_SECONDS`.
        """
        connection = self._connection(SILENT_SECONDS)
        try:
            response = self._begun(connection, "GET", path)
            if response.status != 200:
                self._judged(path, response, response.read())
                raise AskFailed(f"{self.url}{path}: {response.status}", response.status)
            while line := response.readline():
                yield line.decode("utf-8", "replace").rstrip("\r\n")
        except (OSError, http.client.HTTPException) as error:
            raise AskFailed(f"{self.url}: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def _ask(self, method: str, path: str) -> Any:
        response, text = self._exchange(method, path)
        return self._judged(path, response, text)

    def _judged(self, path: str, response: http.client.HTTPResponse, text: bytes) -> Any:
        """The JSON of an answer. Raises: AskFailed, with what it says."""
        try:
            data = json.loads(text)
        except ValueError:
            raise AskFailed(f"{self.url}{path}: {response.status}, and no JSON") from None
        if response.status >= 400:
            raise AskFailed(str(data.get("detail", response.reason)), response.status)
        return data

    def _exchange(self, method: str, path: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self._connection(self._timeout_seconds)
        try:
            response = self._begun(connection, method, path)
            return response, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise AskFailed(f"{self.url}: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def _begun(
        self, connection: http.client.HTTPConnection, method: str, path: str
    ) -> http.client.HTTPResponse:
        headers = self._headers()
        try:
            connection.request(method, path, headers=headers)
            return connection.getresponse()
        except (ConnectionRefusedError, FileNotFoundError) as error:
            told = f"{self.url}: no sidecar listens there ({error.strerror}); is the address right?"
            raise AskFailed(told) from error

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        parts = self._parts
        if parts.scheme == "unix":
            return _UnixConnection(parts.path, seconds)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)

    def _headers(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            token = Path(self._token_file).read_bytes().strip()
        except (
            OSError,
            ValueError,
        ) as error:  # a NUL in its name, where the file is none that a sidecar takes
            reason = (isinstance(error, OSError) and error.strerror) or error
            told = f"the token file {self._token_file} cannot be read: {reason}"
            raise AskFailed(told, is_wrong_use=True) from error
        if len(token.splitlines()) > 1:
            raise AskFailed(f"the token file {self._token_file} has more than one line", is_wrong_use=True)
        return {"Authorization": f"Bearer {token.decode('latin-1')}"}


def _parts_of(url: str) -> urllib.parse.SplitResult:
    """Raises: AskFailed."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_one = parts.scheme in ("http", "unix") and bool(parts.hostname or parts.path) and parts.port != 0
    except ValueError:  # what only looks like a port is refused when it is asked for
        is_one = False
    if not is_one:
        told = f"{url!r} is not an admin address such as {DEFAULT_URL} or unix:/run/sidecar.sock"
        raise AskFailed(told, is_wrong_use=True)
    return parts


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path
        self._seconds = seconds

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._seconds)
        self.sock.connect(self._path)
