"""The four ways a configuration file changes, as editors, `cp`, deployment tools and Kubernetes do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

_NUMBERS = count()


def config_map(directory: Path, text: str) -> Path:
    """Lay out `directory` as the kubelet does for a ConfigMap; the file's path."""
    directory.mkdir()
    swap(directory / "sidecar.yaml", text)
    (directory / "sidecar.yaml").symlink_to("..data/sidecar.yaml")
    return directory / "sidecar.yaml"


def swap(file: Path, text: str) -> None:
    """Write a new directory and turn the symlink `..data` to it, in one rename (atomic_writer.go)."""
    number = next(_NUMBERS)
    new = file.with_name(f"..{number}")
    new.mkdir()
    (new / "sidecar.yaml").write_text(text)
    link = file.with_name("..data_tmp")
    link.symlink_to(new.name)
    data = file.with_name("..data")
    old = data.resolve() if data.is_symlink() else None
    link.replace(data)
    if old is not None:
        (old / "sidecar.yaml").unlink()
        old.rmdir()


def rename_over(file: Path, text: str) -> None:
    """Write beside it and rename, as editors and deployment tools do."""
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    new.replace(file)


def in_place(file: Path, text: str) -> None:
    """Truncate, then write in two pieces, as `cp` and `cat >` do."""
    with file.open("w") as writer:
        writer.write(text[: len(text) // 2])
        writer.flush()
        writer.write(text[len(text) // 2 :])


def delete_and_create(file: Path, text: str) -> None:
    file.unlink()
    file.write_text(text)


PLAIN_WAYS: Sequence[Callable[[Path, str], None]] = (rename_over, in_place, delete_and_create)
"""Of a plain file; `swap` needs the layout of `config_map`."""


def change(file: Path, number: int, text: str) -> None:
    """Change `file`, which `config_map` has laid out, by the `number`-th of the four ways."""
    way = (swap, *PLAIN_WAYS)[number % 4]
    if way is not swap and file.is_symlink():
        rename_over(file, file.read_text())  # the other ways are those of a plain file
    way(file, text)
    if way is swap and not file.is_symlink():
        link = file.with_name("..link")
        link.symlink_to("..data/sidecar.yaml")
        link.replace(file)
