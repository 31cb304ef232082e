"""Reads what a configuration is made of: one file or a directory of them, and the bodies of fallbacks.

Everything that is read is kept with its content, so that the snapshot can name its files and carry their
digest.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from sidecar.config.problems import Problem, Report

if TYPE_CHECKING:  # a process that serves looks at files, and makes no nodes of them
    from sidecar.config.yaml.nodes import Scalar

MAX_FILE_BYTES = 8 * 1024 * 1024
"""Of one configuration file; a Kubernetes ConfigMap holds 1 MiB."""
MAX_BODY_BYTES = 1024 * 1024
"""Of a fallback's body: it is held in memory for every route that has one."""
_UNREADABLE = b"\0unreadable"
_SHELL_PIPES = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
"""What `sidecar check <(…)` reads from."""
_SUFFIXES = (".yaml", ".yml")


class Files:
    """The files of one load. Owned by that load."""

    __slots__ = ("_contents", "_wanted")

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}
        self._wanted: dict[str, None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._contents)

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every file that was asked for, whether it could be read or not."""
        return tuple(self._wanted)

    def digest(self) -> str:
        """Of all names and contents, in the order they were asked for; of what could not be read, of that."""
        digest = hashlib.sha256()
        for name in self._wanted:
            content = self._contents.get(name, _UNREADABLE)
            for part in (name.encode(errors="surrogateescape"), content):
                digest.update(len(part).to_bytes(8, "big"))
                digest.update(part)  # by itself: joined, a large file would be in memory twice
        return digest.hexdigest()

    def keep(self, name: str, content: bytes) -> None:
        self._wanted[name] = None
        self._contents[name] = content

    def read(self, name: str) -> bytes:
        """Raises: OSError."""
        self._wanted[name] = None
        if name not in self._contents:
            self._contents[name] = _content(name)
        return self._contents[name]

    def read_configuration(self, path: str, report: Report) -> dict[str, bytes]:
        """The file at `path`, or every *.yaml and *.yml of the directory at `path` in the order of their
        names.
        """
        found: dict[str, bytes] = {}
        for name in self._names_at(path, report):
            try:
                found[name] = self.read(name)
            except OSError as error:
                report.add(Problem(name, 1, 1, f"cannot be read: {error.strerror or error}"))
        return found

    def _names_at(self, path: str, report: Report) -> list[str]:
        try:
            names = configuration_files(path)
        except OSError as error:
            report.add(Problem(path, 1, 1, f"cannot be read: {error.strerror or error}"))
            return []
        if not names:
            report.add(Problem(path, 1, 1, "the directory holds no *.yaml or *.yml"))
        return names

    def read_body(self, node: Scalar, report: Report) -> bytes:
        """The content of the file that `node` names, relative to the file that `node` stands in."""
        name = beside(node)
        if not is_beside(name, node.source.name):
            report.add(node.problem(f"{name}: not beside the configuration: put the file into its directory"))
            return b""
        self._wanted[name] = None
        try:
            if not os.path.isfile(name):
                report.add(node.problem(f"{name}: there is no such file"))
                return b""
            if os.path.getsize(name) > MAX_BODY_BYTES:
                report.add(node.problem(f"{name}: a fallback's body has at most {MAX_BODY_BYTES} bytes"))
                return b""
            return self.read(name)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            report.add(node.problem(f"{name}: cannot be read: {reason}"))
            return b""


def _content(name: str) -> bytes:
    """No more than `MAX_FILE_BYTES` and one byte: who sees that many knows that it is too large.

    Raises: OSError, also for what may have no end or never begin.
    """
    with open(name, "rb", opener=_opened_at_once) as file:
        kind = os.fstat(file.fileno()).st_mode
        is_pipe_of_shell = stat.S_ISFIFO(kind) and name.startswith(_SHELL_PIPES)
        if stat.S_ISDIR(kind) or not (stat.S_ISREG(kind) or is_pipe_of_shell):
            raise OSError(errno.EINVAL, "it is no regular file")
        os.set_blocking(file.fileno(), True)
        return file.read(MAX_FILE_BYTES + 1)


def _opened_at_once(name: str, flags: int) -> int:
    """A named pipe would be waited for until somebody writes to it."""
    return os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)


def configuration_files(path: str) -> list[str]:
    """The file at `path`, or every *.yaml and *.yml of the directory at `path` in the order of their names.

    Raises: OSError, for a directory that cannot be listed.
    """
    if not os.path.isdir(path):
        return [path]
    names = [name for name in sorted(os.listdir(path)) if name.endswith(_SUFFIXES)]
    return [os.path.join(path, name) for name in names if not name.startswith(".")]


def is_beside(name: str, configuration: str) -> bool:
    """Whether a file is in the directory of the one that names it, or below, also when links are followed.

    Whoever may write a configuration, such as a ConfigMap, could else have any file that this process can read told
    to its clients: the token of its service account, for example.
    """
    directory = os.path.realpath(os.path.dirname(configuration) or ".")
    try:
        return os.path.commonpath((directory, os.path.realpath(name))) == directory
    except ValueError:  # a NUL in it
        return False


def beside(node: Scalar) -> str:
    """A path that the configuration names, relative to the file it is named in."""
    return os.path.join(os.path.dirname(node.source.name), str(node.value))
