"""The contract of an object store: named byte strings with put-if-absent, and staging for files that are not live yet.

A key is a relative path with `/` (`log/example.com~0000/00000001.json`). What the objects mean doesn't belong here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, TypeAlias

from backfill_dagster.errors import StateError


@dataclass(frozen=True, slots=True, order=True)
class ObjectInfo:
    """One object in a listing. Attributes: its key, its size in bytes."""

    key: str
    size: int


Listing: TypeAlias = list[ObjectInfo]
"""Objects by key. (Within a store `list` is the method's name.)"""


class ObjectStore(Protocol):
    """Objects under one root. Whatever returned without an error survives a power cut.

    Every method raises `StateError` (one line: what, where, remedy) when the store refuses, and ValueError on a key
    that is not a plain relative path. A call that raised may still have taken effect: whoever has to know reads again.
    """

    @property
    def uri(self) -> str:
        """The root as people write it: a folder's path, or `s3://bucket/prefix`."""
        ...

    @property
    def identity(self) -> str:
        """What tells this root from every other one: its `uri`, and the service where that can be another one."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create an object that nobody may ever replace; of many callers exactly one gets True.

        Returns:
            False when the key is taken. The caller who can't trust replies reads it and compares a nonce.
        """
        ...

    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object as a whole: reports and caches only, never log or plan."""
        ...

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises ObjectMissingError when there is none."""
        ...

    def exists(self, key: str) -> bool:
        """Whether the key is there (published, not only staged)."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes of a published object; None when the key isn't there."""
        ...

    def list(self, prefix: str) -> Listing:
        """The objects whose key starts with `prefix`, by key; what is staged or temporary is left out."""
        ...

    def folders(self, prefix: str) -> Sequence[str]:
        """The prefixes one step below `prefix`, which ends in a slash, as they do, in order.

        One without objects may be among them.
        """
        ...

    def delete(self, key: str) -> None:
        """Delete an object; one that isn't there is fine."""
        ...

    def stage(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Write a file that becomes `key` when it is published; on an exception nothing stays.

        A key that is already staged is a `StateError`: names are never used twice.
        """
        ...

    def publish(self, keys: Iterable[str]) -> None:
        """Move staged files to their keys. One that is already there is fine; one in neither place: StateError."""
        ...

    def staged(self) -> Listing:
        """What waits in staging, under the keys that it will have, by key."""
        ...

    def discard_staged(self, key: str) -> None:
        """Delete a staged file; one that isn't there is fine."""
        ...

    def find(self, key: str) -> str:
        """Path or URI where a live part can be read now: published, else staged.

        Raises:
            ObjectMissingError: it is in neither place.
        """
        ...

    def path(self, key: str) -> str:
        """Path or URI of the published object, whether it is there or not."""
        ...

    def open_input(self, key: str) -> Any:
        """A live part where it can be read now (as `find`), opened for random reading: pyarrow's NativeFile.

        Raises:
            ObjectMissingError: it is in neither place.
            OSError: as pyarrow says it.
        """
        ...

    def read_problem(self, error: Exception, key: str) -> StateError | None:
        """What an error of reading through `open_input` says of the store; None when it is about what was read."""
        ...

    def duckdb_filesystem(self) -> Any:
        """The fsspec file system that DuckDB has to be given to read `path` and `find`; None: it needs none."""
        ...
