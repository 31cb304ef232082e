"""A test's own process that lacks open files."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def open_files(most: int) -> Iterator[None]:
    """A limit of so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def every_file_taken(at_least: int = 0) -> Iterator[list[int]]:
    """It cannot open a single one more. Gives those that are taken, so many or more, for who lets go of some."""
    taken: list[int] = []
    with open_files(max(map(int, os.listdir("/proc/self/fd"))) + 1 + at_least):
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            yield taken
        finally:
            for file in taken:
                os.close(file)
