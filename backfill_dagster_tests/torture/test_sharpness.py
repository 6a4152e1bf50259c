"""The tests of crash points are sharp enough: on stores that break one rule each they find what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from backfill_dagster_tests.torture.fate import Blow, Call
from backfill_dagster_tests.torture.fated import FatedDisk, PromisingStore
from backfill_dagster_tests.torture.life import Life
from backfill_dagster_tests.torture.scenes import Scene, unbroken
from backfill_dagster_tests.torture.trial import trials


class ForgetsFolders(FatedDisk):
    """Never flushes a folder."""

    def sync_folder(self, path: Path) -> None:
        self._fate.meet("sync_folder", path)


class ForgetsFiles(FatedDisk):
    """Never flushes a file."""

    def sync_file(self, file: BinaryIO) -> None:
        file.flush()
        self._fate.meet("sync_file", file.name)


class WritesInPlace(PromisingStore):
    """Creates an object under its own name, as a plain `open(..., "xb")` does."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self._at(key)
        self._folders.ensure(path.parent)
        try:
            with self._disk.create(path) as file:
                file.write(data)
                self._disk.sync_file(file)
        except FileExistsError:
            return False
        self._disk.sync_folder(path.parent)
        return True


class PublishesAtOnce(PromisingStore):
    """Has no staging: parts are where readers look before any entry names them."""

    @contextmanager
    def stage(self, key: str) -> Iterator[BinaryIO]:
        with super().stage(key) as file:
            yield file
        super().publish([key])


def life_with(*, disk: type[FatedDisk] = FatedDisk, store: type[PromisingStore] = PromisingStore) -> type[Life]:
    return type("WorseLife", (Life,), {"disk": disk, "store": store})


def last(calls: Sequence[Call], kind: str, where: str) -> int:
    return max(n for n, call in enumerate(calls, 1) if call.kind == kind and where in call.where)


@pytest.mark.parametrize(
    ("life", "blow", "kind", "after", "finding"),
    [
        (life_with(disk=ForgetsFolders), Blow.POWER_CUT, "link", 1, "promised, and gone"),
        (life_with(disk=ForgetsFiles), Blow.POWER_CUT_NAMES_KEPT, "link", 1, "promised, and gone"),
        (life_with(store=WritesInPlace), Blow.TORN_WRITE, "write", 0, "can't be read"),
        (life_with(store=PublishesAtOnce), Blow.DEATH, "link", 0, "published, and in no entry"),
    ],
    ids=["forgets folders", "forgets files", "writes in place", "publishes at once"],
)
def test_a_broken_rule_is_found(
    scenes: Mapping[str, Scene],
    tmp_path: Path,
    life: type[Life],
    blow: Blow,
    kind: str,
    after: int,
    finding: str,
) -> None:
    first = scenes["first_run"]
    scene = unbroken(first.base, first.commands, tmp_path / "unbroken", life)
    number = last(scene.calls, kind, "/log/localhost") + after
    [found] = trials(scene, blow, [number], tmp_path, life).values()
    assert finding in found
