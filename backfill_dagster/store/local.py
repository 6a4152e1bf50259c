"""The object store in a local folder: every change is flushed to the medium, file and folder, before it returns.

The system calls are in `store/disk.py`, their errors' meaning in `store/problems.py`; what the objects hold is no
matter here.
"""

from __future__ import annotations

import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from backfill_dagster.errors import ObjectMissingError, StateError
from backfill_dagster.store.base import Listing
from backfill_dagster.store.disk import Disk
from backfill_dagster.store.folders import DurableFolders, walk_files
from backfill_dagster.store.keys import STAGING, TEMPORARY, check_key, check_prefix
from backfill_dagster.store.problems import disk_problem, is_disk_problem, link_problem

_STALE_TEMPORARY_SECONDS = 24 * 3600
"""A temporary file this much older than a fresh one was left by a killed process: none takes a minute to write."""


class LocalStore:
    """`ObjectStore` in the folder `root`, which the first write creates; reading creates nothing."""

    def __init__(
        self,
        root: Path,
        *,
        disk: Disk | None = None,
        unique: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._root = root
        self._disk = disk or Disk()
        self._unique = unique
        self._folders = DurableFolders(root, self._disk)
        self._temporaries_swept = False

    @property
    def uri(self) -> str:
        """The folder's path."""
        return str(self._root)

    @property
    def identity(self) -> str:
        """The folder."""
        return self.uri

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Temporary file, fsync, link, fsync of the folder; False when the key is taken."""
        target = self._at(key)
        if self._is_file(target):
            return False
        temporary = self._write_temporary(data)
        try:
            return self._link(temporary, target)
        finally:
            self._drop(temporary)

    def put(self, key: str, data: bytes) -> None:
        """Temporary file, fsync, rename, fsync of the folder."""
        target = self._at(key)
        temporary = self._write_temporary(data)
        try:
            self._folders.ensure(target.parent)
            self._disk.rename(temporary, target)
            self._disk.sync_folder(target.parent)
        except OSError as error:
            self._drop(temporary)
            raise disk_problem(error, "write", target) from error

    def get(self, key: str) -> bytes:
        """The file's bytes."""
        path = self._at(key)
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise ObjectMissingError(f"{path} is missing; `backfill verify` says what else is") from error
        except OSError as error:
            raise disk_problem(error, "read", path) from error

    def exists(self, key: str) -> bool:
        """Whether there is a file under the key."""
        return self._is_file(self._at(key))

    def size(self, key: str) -> int | None:
        """Bytes of the file under the key."""
        return self._size_of(self._at(key))

    def list(self, prefix: str) -> Listing:
        """The files whose key starts with `prefix`, by key; `.tmp/` and `staging/` are left out."""
        folder = check_prefix(prefix).rpartition("/")[0]
        if folder.split("/")[0] in (STAGING, TEMPORARY):
            return []
        base = self._root / folder if folder else self._root
        found = walk_files(base, f"{folder}/" if folder else "", hidden=() if folder else (STAGING, TEMPORARY))
        return sorted(info for info in found if info.key.startswith(prefix))

    def folders(self, prefix: str) -> Sequence[str]:
        """The folders in a folder; `.tmp/` and `staging/` are left out."""
        folder = self._root / check_prefix(prefix)
        try:
            names = [entry.name for entry in folder.iterdir() if entry.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise disk_problem(error, "list", folder) from error
        return sorted(f"{prefix}{name}/" for name in names if prefix or name not in (STAGING, TEMPORARY))

    def delete(self, key: str) -> None:
        """Delete the file, flush its folder; a missing one is fine."""
        self._delete(self._at(key))

    @contextmanager
    def stage(self, key: str) -> Iterator[BinaryIO]:
        """A new file at `staging/<key>`; flushed with its folder at the end, removed when an exception passes."""
        path = self._staged_at(key)
        try:
            self._folders.ensure(path.parent)
            file = self._disk.create(path)
        except OSError as error:
            raise disk_problem(error, "stage", path) from error
        try:
            with file:
                yield file
                self._disk.sync_file(file)
            self._disk.sync_folder(path.parent)
        except BaseException as error:
            self._drop(path)
            if isinstance(error, OSError) and is_disk_problem(error):
                raise disk_problem(error, "write", path) from error
            raise

    def publish(self, keys: Iterable[str]) -> None:
        """Rename `staging/<key>` to `<key>` one by one, then flush the folders.

        The folder of a key that is already there is flushed too: whoever renamed it may have died before that.
        """
        touched: set[Path] = set()
        for key in keys:
            source, target = self._staged_at(key), self._at(key)
            try:
                self._folders.ensure(target.parent)
                self._disk.rename(source, target)
                touched |= {source.parent, target.parent}
            except FileNotFoundError as error:
                if not self._is_file(target):
                    raise StateError(
                        f"{target} is neither published nor in {self._root / STAGING}; "
                        "bring it back from a backup of the state folder"
                    ) from error
                touched.add(target.parent)
            except OSError as error:
                raise disk_problem(error, "publish", target) from error
        for folder in sorted(touched):
            self._sync_folder(folder)

    def staged(self) -> Listing:
        """The files under `staging/`, without that folder's name."""
        return sorted(walk_files(self._root / STAGING, "", hidden=()))

    def discard_staged(self, key: str) -> None:
        """Delete `staging/<key>`; a missing one is fine."""
        self._delete(self._staged_at(key))

    def find(self, key: str) -> str:
        """Path of the published file, else of the staged one.

        A file can be published between the two looks, never the other way round: hence the third.
        """
        published, staged = self._at(key), self._staged_at(key)
        for path in (published, staged, published):
            if self._is_file(path):
                return str(path)
        raise ObjectMissingError(f"{published} is neither published nor staged; `backfill verify` says what else is")

    def path(self, key: str) -> str:
        """Path that the key has once it is published."""
        return str(self._at(key))

    def open_input(self, key: str) -> Any:
        """The file, published or staged, opened by pyarrow."""
        return pa.OSFile(self.find(key))

    def read_problem(self, error: Exception, key: str) -> StateError | None:
        """The disk's own errors."""
        if isinstance(error, OSError) and is_disk_problem(error):
            return disk_problem(error, "read", self._at(key))
        return None

    def duckdb_filesystem(self) -> None:
        """DuckDB reads local files by itself."""

    def _at(self, key: str) -> Path:
        return self._root / check_key(key)

    def _staged_at(self, key: str) -> Path:
        return self._root / STAGING / check_key(key)

    def _is_file(self, path: Path) -> bool:
        return self._size_of(path) is not None

    def _size_of(self, path: Path) -> int | None:
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise disk_problem(error, "look at", path) from error
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def _write_temporary(self, data: bytes) -> Path:
        path = self._root / TEMPORARY / self._unique()
        try:
            self._folders.ensure(path.parent)
            with self._disk.create(path) as file:
                file.write(data)
                self._disk.sync_file(file)
            self._sweep_temporaries(path)
        except OSError as error:
            self._drop(path)
            raise disk_problem(error, "write", path) from error
        return path

    def _sweep_temporaries(self, fresh: Path) -> None:
        """Once per process. Ages are told by the file system's own clock, against a file just written."""
        if self._temporaries_swept:
            return
        self._temporaries_swept = True
        oldest = fresh.stat().st_mtime - _STALE_TEMPORARY_SECONDS
        for path in list(fresh.parent.iterdir()):
            try:
                stale = path.stat().st_mtime < oldest
            except FileNotFoundError:  # another process has just finished with it
                continue
            if stale:
                self._drop(path)

    def _link(self, temporary: Path, target: Path) -> bool:
        try:
            self._folders.ensure(target.parent)
        except OSError as error:
            raise disk_problem(error, "create", target.parent) from error
        try:
            self._disk.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            raise link_problem(error, target) from error
        self._sync_folder(target.parent)
        return True

    def _delete(self, path: Path) -> None:
        if self._unlink(path):
            self._sync_folder(path.parent)

    def _unlink(self, path: Path) -> bool:
        try:
            self._disk.unlink(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise disk_problem(error, "delete", path) from error
        return True

    def _drop(self, path: Path) -> None:
        """Tidy up. A refusal here would hide the error that matters; what stays is never read and swept one day."""
        with suppress(OSError):
            self._disk.unlink(path)

    def _sync_folder(self, folder: Path) -> None:
        try:
            self._disk.sync_folder(folder)
        except OSError as error:
            raise disk_problem(error, "flush", folder) from error
