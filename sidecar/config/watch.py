"""Has the configuration changed? Looks at the content of its files, by whatever way they are replaced.

A look is a `stat` of each file, which follows symlinks (so Kubernetes' swap of `..data` shows as another inode),
and a reading of all of them when a `stat` differs or the last reading is `READ_SECONDS` old: an edit that leaves
size and times as they were, or a file system that keeps none, is seen by then too. Kernel events would be earlier
by a quarter of a second, and are lost on the network and FUSE file systems where people keep configuration.

`Watch` does blocking I/O, so it is called in a thread. `Settling` is pure: it takes `now` in monotonic seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from sidecar.config.files import Files, configuration_files
from sidecar.core.own_lack import is_own_lack

POLL_SECONDS = 0.25
"""Between two looks."""
READ_SECONDS = 1.0
"""The content is read at least this often, whatever `stat` says."""
SETTLE_SECONDS = 0.1
"""A change is tried once it has stood for so long: a writer may be in the middle of it."""
MOST_PATIENCE_SECONDS = 60.0
"""Between two tries of a change on which there is no verdict."""
PATIENCE_SECONDS = 1.0
"""A changed file that makes no sense, or is missing, is a mistake only when it still does after so long."""

_Stat = tuple[int, int, int, int] | None


class Watch:
    """The files of one configuration. Blocking; one call at a time."""

    __slots__ = ("_digest", "_included", "_path", "_read_at", "_stats")

    def __init__(self, path: str, files: Iterable[str] = ()) -> None:
        """`path` is the file or directory that is loaded, `files` what its last load read or looked for."""
        self._path = path
        self._digest = ""
        self._read_at = float("-inf")
        self._stats: dict[str, _Stat] = {}
        self.include(files)

    def include(self, files: Iterable[str]) -> None:
        """Watch these files too, instead of those included before."""
        self._included = tuple(files)

    def another(self) -> Watch:
        """One of the same files, for another thread, which knows what this one knows: so both read again at the same
        time, and what one sees the other sees, too."""
        another = Watch(self._path, self._included)
        another._digest, another._stats, another._read_at = self._digest, self._stats, self._read_at
        return another

    def look(self, now: float) -> str | None:
        """A digest of all that is there: another one means that a file's content, or its being there, changed.

        Equal to `Snapshot.digest` while everything is as that snapshot's load found it. None where this process
        lacks what it takes to look, such as a free file descriptor: then nothing is known, and nothing has changed.
        """
        try:
            names = self._names()
            stats = {name: _stat(name) for name in names}
            if stats != self._stats or now - self._read_at >= READ_SECONDS:
                self._digest = _digest(names)
                self._stats, self._read_at = stats, now
        except _CannotLook:
            return None
        return self._digest

    def _names(self) -> list[str]:
        try:
            own = configuration_files(self._path)
        except OSError as error:
            _tell_apart(error)
            own = [self._path]
        return list(dict.fromkeys((*own, *(name for name in self._included if not self._was_own(name)))))

    def _was_own(self, name: str) -> bool:
        """True for a file of the directory itself: it counts while it is listed."""
        return (
            os.path.isdir(self._path)
            and os.path.dirname(name) == self._path.rstrip("/")
            and (name.endswith((".yaml", ".yml")))
        )


class Settling:
    """When a change is ready to be tried. Give it every look, and the outcome of every try."""

    __slots__ = ("_changed_at", "_crashes", "_handled", "_refused", "_seen", "_tried")

    def __init__(self, digest: str) -> None:
        """`digest` is that of the configuration in use."""
        self._handled = {digest}
        self._seen = digest
        self._changed_at = float("-inf")
        self._tried: str | None = None
        self._refused: str | None = None
        self._crashes = 0
        """Of the process that loads, over the present change."""

    @property
    def is_pending(self) -> bool:
        """True when something differs from what was taken or refused last: look again soon."""
        return self._seen not in self._handled

    @property
    def seen(self) -> str:
        """What the last look showed."""
        return self._seen

    def saw(self, digest: str, now: float) -> bool:
        """Take in one look; True when there is something to try: once it stands still, and once more after
        `PATIENCE_SECONDS` if it made no sense before.
        """
        if digest != self._seen:
            self._seen, self._changed_at = digest, now
            self._crashes = 0
        if not self.is_pending or now - self._changed_at < SETTLE_SECONDS:
            return False
        return self._seen != self._tried or not self.is_patient(now)

    def is_patient(self, now: float) -> bool:
        """True while a change that makes no sense may still be a half-written one."""
        return now - self._changed_at < PATIENCE_SECONDS

    def tried(self) -> None:
        """It made no sense, and may be half-written."""
        self._tried = self._seen

    def postponed(self, now: float) -> None:
        """There is no verdict, for want of something of our own: it is tried again after `PATIENCE_SECONDS`."""
        self._changed_at, self._tried = now, self._seen

    def crashed(self, now: float) -> None:
        """There is no verdict, since the process that loads was killed or hung: it is tried again, less and less
        often. It may have been killed for what others did, so the change is not taken for a mistake."""
        self.postponed(now)
        seconds = min(PATIENCE_SECONDS * 2.0**self._crashes, MOST_PATIENCE_SECONDS)
        self._changed_at += seconds - PATIENCE_SECONDS
        self._crashes += 1

    def taken(self, digest: str) -> None:
        """What has this digest is in use now, whoever asked for it."""
        is_again = digest in self._handled
        self._handled = {digest, self._seen} if is_again else {digest}
        self._tried = self._refused = None
        self._crashes = 0

    def refused(self, digest: str) -> None:
        """What has this digest is a mistake, and the configuration stays as it is. Empty when nobody knows."""
        # A file that a load leaves unread (it is too large) makes a look's digest another than the load's: then
        # what was seen counts too, or it would be refused for ever.
        self._handled = {digest, self._seen} if digest in (self._refused, "") else {digest}
        self._refused = digest
        self._tried = None


def own_mount(path: str, mountinfo: str) -> str | None:
    """The file at `path` when it is a mount of its own (Kubernetes' `subPath`, Docker's `-v FILE:FILE`).

    Such a mount stays with the inode that it was made of, so it never shows a replaced file. `mountinfo` is the
    text of /proc/self/mountinfo (proc(5): the fifth field is the mount point, with octal escapes).
    """
    file = os.path.abspath(path)
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 4 and _unescaped(fields[4]) == file:
            return file
    return None


def warning_of_own_mount(path: str) -> str | None:
    """What to tell whoever has mounted the file itself; None if it is not so, or cannot be known."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as text:
            file = own_mount(path, text.read()) if os.path.isfile(path) else None
    except OSError:
        return None
    if file is None:
        return None
    return (
        f"{file} is a mount of its own (subPath, or a single mounted file) and will never show an update:"
        " mount its directory instead"
    )


def _unescaped(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def _stat(name: str) -> _Stat:
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _digest(names: Iterable[str]) -> str:
    files = Files()
    for name in names:
        try:
            files.read(name)
        except OSError as error:
            _tell_apart(error)
    return files.digest()


class _CannotLook(Exception):
    """For want of something of our own."""


def _tell_apart(error: OSError) -> None:
    """A file that is not there or may not be read is a finding. Raises: _CannotLook, for our own lack."""
    if is_own_lack(error):
        raise _CannotLook from error
