"""Every way a file changes is seen, once it stands still; and a mount that never changes is told."""

import os
import tracemalloc
from pathlib import Path

import pytest

from sidecar.config.files import MAX_FILE_BYTES
from sidecar.config.load import ConfigError, load_file
from sidecar.config.watch import (
    PATIENCE_SECONDS,
    READ_SECONDS,
    SETTLE_SECONDS,
    Settling,
    Watch,
    own_mount,
)

MINIMAL = """\
version: 1
upstreams: {app: {endpoints: ["127.0.0.1:8080"]}}
routes: [{name: app, upstream: app}]
"""
OTHER = MINIMAL.replace("8080", "8081")  # of the same length


def loaded(path: Path) -> tuple[Watch, str]:
    snapshot = load_file(path, {}).snapshot
    return Watch(str(path), snapshot.files), snapshot.digest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sidecar.yaml"
    path.write_text(MINIMAL)
    return path


def test_what_was_loaded_is_what_is_seen(file: Path) -> None:
    watch, digest = loaded(file)
    assert watch.look(0.0) == digest


def test_an_edit_in_place_is_seen(file: Path) -> None:
    watch, digest = loaded(file)
    watch.look(0.0)
    file.write_text(OTHER + "# longer\n")
    assert watch.look(0.1) != digest


def test_an_edit_that_stat_does_not_show_is_seen_by_the_next_reading(file: Path) -> None:
    watch, digest = loaded(file)
    times = os.stat(file)
    watch.look(0.0)
    file.write_text(OTHER)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert watch.look(READ_SECONDS - 0.01) == digest
    assert watch.look(READ_SECONDS) != digest


def test_a_touched_file_is_no_change(file: Path) -> None:
    watch, digest = loaded(file)
    os.utime(file)
    assert watch.look(0.0) == digest


def test_a_rename_over_it_is_seen(file: Path) -> None:
    watch, digest = loaded(file)
    watch.look(0.0)
    new = file.with_name("new")
    new.write_text(OTHER)
    new.replace(file)
    assert watch.look(0.1) != digest


def test_a_file_that_is_deleted_and_comes_back_is_seen_both_times(file: Path) -> None:
    watch, digest = loaded(file)
    file.unlink()
    gone = watch.look(0.0)
    assert gone != digest
    file.write_text(MINIMAL)
    assert watch.look(0.1) == digest


def test_the_swap_of_a_config_map_is_seen(tmp_path: Path) -> None:
    for name, text in (("..1", MINIMAL), ("..2", OTHER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sidecar.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "sidecar.yaml").symlink_to("..data/sidecar.yaml")
    watch, digest = loaded(tmp_path / "sidecar.yaml")
    watch.look(0.0)
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert watch.look(0.1) != digest


def test_an_included_file_is_watched(file: Path) -> None:
    body = file.with_name("body.json")
    body.write_text("{}")
    file.write_text(MINIMAL.replace("upstream: app}", "upstream: app, fallback: {body_file: body.json}}"))
    watch, digest = loaded(file)
    assert watch.look(0.0) == digest
    body.write_text("[]")
    assert watch.look(READ_SECONDS) != digest


def test_a_file_that_a_refused_configuration_asked_for_is_watched(file: Path) -> None:
    file.write_text(MINIMAL.replace("upstream: app}", "upstream: app, fallback: {body_file: body.json}}"))
    with pytest.raises(ConfigError) as caught:
        load_file(file, {})
    watch = Watch(str(file), caught.value.files)
    assert watch.look(0.0) == caught.value.digest
    file.with_name("body.json").write_text("{}")
    assert watch.look(0.1) != caught.value.digest


def test_a_file_that_is_new_in_a_directory_is_seen(file: Path) -> None:
    watch, digest = loaded(file.parent)
    assert watch.look(0.0) == digest
    file.with_name("b.yaml").write_text("version: 1\n")
    added = watch.look(0.1)
    assert added != digest
    file.with_name("b.yaml").unlink()
    assert watch.look(0.2) == digest


# Settling


def test_a_change_is_tried_once_it_stands_still() -> None:
    settling = Settling("a")
    assert not settling.saw("a", 0.0)
    assert not settling.saw("b", 1.0)
    assert settling.is_pending
    assert not settling.saw("c", 1.0 + SETTLE_SECONDS + 0.01)
    assert settling.saw("c", 1.0 + 2 * SETTLE_SECONDS + 0.02)
    settling.taken("c")
    assert not settling.is_pending
    assert not settling.saw("c", 5.0)


def test_a_half_written_file_is_tried_again_only_after_a_change_or_when_patience_ends() -> None:
    settling = Settling("a")
    settling.saw("half", 0.0)
    assert settling.saw("half", SETTLE_SECONDS)
    assert settling.is_patient(SETTLE_SECONDS)
    settling.tried()
    assert not settling.saw("half", 0.5)
    assert not settling.saw("whole", 0.6)
    assert settling.saw("whole", 0.7 + SETTLE_SECONDS)


def test_a_mistake_is_told_once() -> None:
    settling = Settling("a")
    settling.saw("bad", 0.0)
    settling.saw("bad", SETTLE_SECONDS)
    settling.tried()
    assert settling.saw("bad", PATIENCE_SECONDS)
    assert not settling.is_patient(PATIENCE_SECONDS)
    settling.refused("bad")
    assert not settling.saw("bad", 10.0)
    assert not settling.saw("a", 11.0)
    assert settling.saw("a", 11.0 + SETTLE_SECONDS + 0.01), "taking a mistake back is a change too"


def test_a_mistake_whose_digest_cannot_be_seen_again_is_refused_twice_and_no_more() -> None:
    settling = Settling("a")
    for now in (0.0, PATIENCE_SECONDS):
        settling.saw("seen", now)
    settling.refused("loaded")
    assert settling.saw("seen", PATIENCE_SECONDS + 0.1)
    settling.refused("loaded")
    assert not settling.saw("seen", PATIENCE_SECONDS + 0.2)


def test_what_another_way_has_loaded_is_not_loaded_again() -> None:
    settling = Settling("a")
    settling.saw("b", 0.0)
    settling.taken("b")
    assert not settling.saw("b", 1.0)


# Mounts


def test_a_file_that_is_a_mount_is_recognised() -> None:
    mounts = (
        "36 35 98:0 /mnt1 / rw,noatime master:1 - ext3 /dev/root rw\n"
        "40 36 0:30 /volumes/a\\040b /etc/side\\040car/sidecar.yaml ro - ext4 /dev/sda ro\n"
    )
    assert own_mount("/etc/side car/sidecar.yaml", mounts) == "/etc/side car/sidecar.yaml"
    assert own_mount("/etc/side car/other.yaml", mounts) is None
    assert own_mount("/etc/side car", mounts) is None


def test_a_look_holds_a_file_in_memory_once(tmp_path: Path) -> None:
    """50 MB in the place of the configuration took the process from 68 to 102 MiB, of 128 that it may have."""
    file = tmp_path / "sidecar.yaml"
    file.write_bytes(b"#" * (MAX_FILE_BYTES + 1000))
    watch = Watch(str(file))
    tracemalloc.start()
    try:
        watch.look(0.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * MAX_FILE_BYTES


def test_another_one_sees_what_the_first_one_sees(tmp_path: Path) -> None:
    """An edit that no `stat` shows: one that had seen it, and the other not, would look over and over again."""
    file = tmp_path / "sidecar.yaml"
    file.write_text("one")
    times = file.stat()
    watch = Watch(str(file))
    before = watch.look(100.0)
    file.write_text("two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    another = watch.another()
    assert another.look(100.5) == before
    after = another.look(100.0 + READ_SECONDS)
    assert after != before
    assert watch.look(100.0 + READ_SECONDS) == after
