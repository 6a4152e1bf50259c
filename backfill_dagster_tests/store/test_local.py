"""The local store: contract, order of its system calls, refusals of the disk, leftovers of killed processes."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from backfill_dagster.errors import ObjectMissingError, StateError
from backfill_dagster.store import LocalStore
from backfill_dagster_tests.store.contract import StoreContract
from backfill_dagster_tests.store.disks import RecordingDisk


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "deep" / "state")


class TestLocalStore(StoreContract):
    """The contract on a folder."""


def test_put_if_absent_flushes_before_and_after_its_one_moment(tmp_path: Path) -> None:
    disk = RecordingDisk(tmp_path / "s")
    store = LocalStore(tmp_path / "s", disk=disk, unique=lambda: "u")
    assert store.put_if_absent("log/1", b"x")
    assert disk.calls == [
        ("make_folder", "."),
        ("sync_folder", ".."),
        ("make_folder", ".tmp"),
        ("sync_folder", "."),
        ("create", ".tmp/u"),
        ("sync_file", ".tmp/u"),
        ("make_folder", "log"),
        ("sync_folder", "."),
        ("link", "log/1"),
        ("sync_folder", "log"),
        ("unlink", ".tmp/u"),
    ]
    disk.calls.clear()
    assert store.put_if_absent("log/1", b"y") is False
    assert disk.calls == []
    assert store.put_if_absent("log/2", b"y")
    assert disk.calls == [
        ("create", ".tmp/u"),
        ("sync_file", ".tmp/u"),
        ("link", "log/2"),
        ("sync_folder", "log"),
        ("unlink", ".tmp/u"),
    ]


def test_staging_and_publishing_flush_file_and_folders(tmp_path: Path) -> None:
    disk = RecordingDisk(tmp_path)
    store = LocalStore(tmp_path, disk=disk)
    with store.stage("r/1") as file:
        file.write(b"x")
    store.publish(["r/1"])
    assert [call for call in disk.calls if call[0] != "make_folder"][-5:] == [
        ("sync_folder", "staging/r"),
        ("sync_folder", "."),
        ("rename", "r/1"),
        ("sync_folder", "r"),
        ("sync_folder", "staging/r"),
    ]
    disk.calls.clear()
    store.publish(["r/1"])
    assert disk.calls == [("rename", "r/1"), ("sync_folder", "r")]
    disk.calls.clear()
    store.delete("r/1")
    assert disk.calls == [("unlink", "r/1"), ("sync_folder", "r")]


def test_a_link_lost_by_a_hair_is_a_loss(tmp_path: Path) -> None:
    class Overtaken(RecordingDisk):
        def link(self, source: Path, target: Path) -> None:
            target.write_bytes(b"theirs")
            super().link(source, target)

    store = LocalStore(tmp_path, disk=Overtaken(tmp_path))
    assert store.put_if_absent("a", b"ours") is False
    assert store.get("a") == b"theirs"
    assert list((tmp_path / ".tmp").iterdir()) == []


REFUSALS = [
    ("create", errno.ENOSPC, "No space left on device; free space on that disk"),
    ("sync_file", errno.EDQUOT, "free space in your quota"),
    ("make_folder", errno.EACCES, "Permission denied; make it readable and writable"),
    ("make_folder", errno.EROFS, "Read-only file system; mount it writable"),
    ("sync_folder", errno.EIO, "the disk reports a fault"),
    ("link", errno.ENOSPC, "free space on that disk"),
    ("link", errno.EPERM, "this file system makes no hard links"),
    ("link", errno.EOPNOTSUPP, "this file system makes no hard links"),
    ("sync_file", errno.EBADF, "see what the system log says"),
]


@pytest.mark.parametrize(("operation", "number", "text"), REFUSALS)
def test_a_refusal_of_put_if_absent_is_one_line_and_leaves_nothing(
    tmp_path: Path, operation: str, number: int, text: str
) -> None:
    store = LocalStore(tmp_path, disk=RecordingDisk(tmp_path, {operation: number}))
    with pytest.raises(StateError, match=text) as caught:
        store.put_if_absent("log/1", b"x")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("operation", ["create", "sync_file", "rename", "sync_folder"])
def test_a_refusal_of_put(tmp_path: Path, operation: str) -> None:
    store = LocalStore(tmp_path, disk=RecordingDisk(tmp_path, {operation: errno.ENOSPC}))
    with pytest.raises(StateError, match="No space left on device; free space"):
        store.put("reports/1", b"x")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_put_after_the_rename_may_have_taken_effect(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"1")
    broken = LocalStore(tmp_path, disk=RecordingDisk(tmp_path, {"rename": errno.EIO}, late=True))
    with pytest.raises(StateError, match="can't write"):
        broken.put("a", b"2")
    assert store.get("a") == b"2"


@pytest.mark.parametrize(
    ("operation", "number", "doing"),
    [("create", errno.ENOSPC, "stage"), ("sync_file", errno.ENOSPC, "write"), ("sync_folder", errno.EIO, "stage")],
)
def test_a_refusal_of_stage(tmp_path: Path, operation: str, number: int, doing: str) -> None:
    store = LocalStore(tmp_path, disk=RecordingDisk(tmp_path, {operation: number}))
    with pytest.raises(StateError, match=f"can't {doing} "), store.stage("r/1") as file:
        file.write(b"x")
    assert store.staged() == []


def test_a_full_disk_inside_stage_is_said_and_other_errors_pass(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(StateError, match="No space left"), store.stage("r/1"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ConnectionResetError), store.stage("r/1"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
    assert store.staged() == []


@pytest.mark.parametrize(("operation", "doing"), [("rename", "publish"), ("sync_folder", "flush")])
def test_a_refusal_of_publish_keeps_the_bytes(tmp_path: Path, operation: str, doing: str) -> None:
    good = LocalStore(tmp_path)
    good.put("r/0", b"")
    with good.stage("r/1") as file:
        file.write(b"x")
    disk = RecordingDisk(tmp_path)
    store = LocalStore(tmp_path, disk=disk)
    store.put("r/0", b"")
    disk.refuse = {operation: errno.EIO}
    with pytest.raises(StateError, match=f"can't {doing} "):
        store.publish(["r/1"])
    assert Path(good.find("r/1")).read_bytes() == b"x"


def test_a_refusal_of_delete(tmp_path: Path) -> None:
    LocalStore(tmp_path).put("r/1", b"")
    store = LocalStore(tmp_path, disk=RecordingDisk(tmp_path, {"unlink": errno.EACCES}))
    with pytest.raises(StateError, match=r"can't delete .*r/1: Permission denied; make it"):
        store.delete("r/1")


def test_a_file_where_the_root_should_be(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_bytes(b"")
    store = LocalStore(root)
    with pytest.raises(StateError, match="something lies there already"):
        store.put("a", b"")
    with pytest.raises(StateError, match="a file lies where a folder is needed"):
        store.get("a")
    with pytest.raises(StateError, match="a file lies where a folder is needed"):
        store.exists("a")
    with pytest.raises(StateError, match="a file lies where a folder is needed"):
        store.list("")


def test_a_file_where_a_folder_of_keys_should_be(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("logs", b"")
    with pytest.raises(StateError, match="a file lies where a folder is needed"):
        store.put_if_absent("logs/1", b"")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    disk = RecordingDisk(tmp_path)
    store = LocalStore(tmp_path, disk=disk)
    store.put("a", b"")
    disk.refuse = {"make_folder": errno.EROFS}
    with pytest.raises(StateError, match=re.escape(f"can't create {tmp_path / 'log'}: Read-only file system")):
        store.put_if_absent("log/1", b"")


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="its name is too long"):
        LocalStore(tmp_path).put_if_absent("a" * 300, b"")


def test_a_folder_where_a_file_should_be(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b", b"")
    with pytest.raises(StateError, match="a folder lies where a file is needed"):
        store.get("a")


def test_reading_creates_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "state")
    assert store.list("") == []
    assert store.staged() == []
    assert store.exists("a") is False
    store.delete("a")
    with pytest.raises(ObjectMissingError):
        store.find("a")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_processes_are_swept_after_a_day(tmp_path: Path) -> None:
    folder = tmp_path / ".tmp"
    folder.mkdir()
    for name, age_hours in (("old", 25), ("young", 23)):
        (folder / name).write_bytes(b"")
        now = (folder / name).stat().st_mtime
        os.utime(folder / name, (now, now - age_hours * 3600))
    store = LocalStore(tmp_path)
    store.put("a", b"")
    assert [path.name for path in folder.iterdir()] == ["young"]
    assert [info.key for info in store.list("")] == ["a"]


def test_a_temporary_file_that_vanishes_during_the_sweep(tmp_path: Path) -> None:
    (tmp_path / ".tmp").mkdir()
    (tmp_path / ".tmp" / "gone").symlink_to(tmp_path / "nowhere")
    store = LocalStore(tmp_path)
    store.put("a", b"1")
    assert store.get("a") == b"1"


def test_a_dangling_link_and_a_pipe_are_not_listed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"1")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert [info.key for info in store.list("")] == ["a"]


def test_find_sees_a_part_that_is_published_between_two_looks(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with store.stage("r/1") as file:
        file.write(b"x")
    looks: list[Path] = []

    class Publishing(LocalStore):
        def _is_file(self, path: Path) -> bool:
            looks.append(path)
            if len(looks) == 2:
                store.publish(["r/1"])
            return super()._is_file(path)

    assert Publishing(tmp_path).find("r/1") == str(tmp_path / "r/1")


def test_a_root_deep_below_what_is_there(tmp_path: Path) -> None:
    disk = RecordingDisk(tmp_path)
    store = LocalStore(tmp_path / "a" / "b" / "c", disk=disk)
    store.put("x", b"1")
    assert disk.calls[:6] == [
        ("make_folder", "a"),
        ("sync_folder", "."),
        ("make_folder", "a/b"),
        ("sync_folder", "a"),
        ("make_folder", "a/b/c"),
        ("sync_folder", "a/b"),
    ]


@pytest.mark.parametrize("prefix", ["staging/", ".tmp/", "staging/r/"])
def test_the_stores_own_folders_are_not_listed(tmp_path: Path, prefix: str) -> None:
    store = LocalStore(tmp_path)
    with store.stage("r/1") as file:
        file.write(b"x")
    assert store.list(prefix) == []


def test_uri_is_the_folder(tmp_path: Path) -> None:
    assert LocalStore(tmp_path).uri == str(tmp_path)
