"""Which parts are made one: neighbours, by size and number; and what fits an entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill_dagster.records import compact as compact_module
from backfill_dagster.records.entry import ENTRY_MAX_BYTES, Part, entry_bytes
from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.store import LocalStore


def test_groups_keep_the_order_and_are_cut_by_size_and_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def live(name: str, size: int) -> LivePart:
        return LivePart(Part(name, "post", 1, size, ""), 1)

    parts = [live("a", 40), live("b", 40), live("c", 40), live("d", 10), live("e", 30)]
    names = [[one.part.path for one in group] for group in compact_module._cut(parts, 100)]
    assert names == [["a", "b"], ["c", "d", "e"]]
    monkeypatch.setattr(compact_module, "PARTS_PER_ENTRY", 2)
    assert [[one.part.path for one in group] for group in compact_module._cut(parts[2:], 100)] == [["c", "d"]]
    assert list(compact_module._cut(parts[:1], 100)) == []


def test_an_entry_holds_the_longest_names_of_parts() -> None:
    shard = f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}_65535~99999999"
    record_type = f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 63}.{'e' * 61}"
    path = f"records/record_type={record_type}/{shard}-99999999-9999999999-{'f' * 32}.parquet"
    parts = [Part(path, record_type, 10**12, 10**12, "0" * 64)] * compact_module.PARTS_PER_ENTRY
    assert entry_bytes(adds=parts, removes=[path] * compact_module.PARTS_PER_ENTRY) < ENTRY_MAX_BYTES


def test_a_fold_without_parts_has_nothing_to_merge(tmp_path: Path) -> None:
    assert list(compact_module.small_groups(LocalStore(tmp_path), Fold())) == []
