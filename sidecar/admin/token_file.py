"""The secret that opens the admin API where others than this host can reach it."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import stat
from pathlib import Path

from sidecar.admin.answers import Refused

_LOG = logging.getLogger("sidecar.admin")


class TokenFile:
    """A secret in a file, read again whenever the file is another: so it is rotated by writing it anew.

    What is wrong with the file is logged once, until it is something else; the file's name is for the log alone.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._seen: tuple[int, int, int, int] | None = None
        self._token = b""
        self._trouble = ""

    async def check(self, authorization: str) -> None:
        """Raises: Refused, unless `authorization` is `Bearer` and the token."""
        scheme, _, given = authorization.partition(" ")
        token = await self.load()
        if not token:
            raise Refused(503, f"nobody may ask: the token file {self._trouble}")
        is_right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token)
        if scheme.lower() != "bearer" or not is_right:
            detail = "give the token: Authorization: Bearer …"
            raise Refused(401, detail, headers={"WWW-Authenticate": 'Bearer realm="sidecar"'})

    async def load(self) -> bytes:
        """The token as it is now, or nothing, and the log says why."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes:
        try:
            found = os.stat(self._path)
            seen = found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode
            if seen != self._seen:
                self._token = self._path.read_bytes().strip()
                self._seen = seen
                self._tell("" if self._token else "is empty", found.st_mode)
        except OSError as error:
            self._seen, self._token = None, b""
            self._tell(_why(error), 0)
        return self._token

    def _tell(self, trouble: str, mode: int) -> None:
        if trouble and trouble != self._trouble:
            _LOG.error("nobody may ask the admin API: the token file %s %s", self._path, trouble)
        if mode & stat.S_IROTH:
            shown = oct(stat.S_IMODE(mode))[2:]
            _LOG.warning(
                "every user of this host may read the token file %s: its mode is %s", self._path, shown
            )
        self._trouble = trouble


def _why(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"may not be read by uid {os.geteuid()}: give it the right to"
    return f"cannot be read: {error.strerror or error}"
