"""Values of Arrow's columns: each kind as text, long ones cut, and memory that a small file can't make large."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backfill_dagster.sources.base import COLUMN_MAX_BYTES, TEXT_MAX_BYTES, SourceRow, clean_text
from backfill_dagster.sources.file import FileSource

ROWS = 20_000
WIDE = "é" * 10_000
PEAK_MAX = 128 * 1024 * 1024
"""All rows together would take 400 MB, a batch of what is handed on 330."""

_READ = """
import sys
from pathlib import Path
import pyarrow as pa
from backfill_dagster.sources.file import FileSource
column, *kept = sys.argv[2:]
print(len(list(FileSource(Path(sys.argv[1]), format="parquet", column=column, keep_columns=kept).rows())))
print(pa.default_memory_pool().max_memory())
"""


def read_elsewhere(path: Path, *columns: str) -> tuple[int, int]:
    """Rows, and the most that Arrow took for them."""
    command = [sys.executable, "-c", _READ, str(path), *columns]
    rows, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(rows), int(peak)


@pytest.mark.parametrize("says_dictionary", [True, False])
def test_one_long_value_in_every_row_takes_no_memory_for_each(tmp_path: Path, says_dictionary: bool) -> None:
    path = tmp_path / "a.parquet"
    wide = pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int32()), pa.array([WIDE]))
    dids = [f"did:plc:{number}" for number in range(ROWS)]
    pq.write_table(pa.table({"did": dids, "wide": wide}), path, store_schema=says_dictionary)
    for columns, rows in ((("did", "wide"), ROWS), (("wide", "did"), 1)):
        read, peak = read_elsewhere(path, *columns)
        assert read == rows
        assert peak < PEAK_MAX


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_long_values_are_cut_as_all_are(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "a.parquet"
    values = [" " + WIDE, None, "did:plc:a", WIDE + "1", WIDE + "2"]
    pq.write_table(pa.table({"did": pa.array(values).cast(kind)}), path)
    rows = list(FileSource(path, format="parquet", keep_columns=["did"]).rows())
    assert [row.text for row in rows] == [clean_text(value) for value in values]
    assert len({row.text for row in rows}) == len(values)
    assert max(len(row.text.encode()) for row in rows) <= TEXT_MAX_BYTES
    cut = (" " + WIDE).encode()[: COLUMN_MAX_BYTES - 3].decode() + "…"
    assert [row.columns["did"] for row in rows[:3]] == [cut, None, "did:plc:a"]


def test_words_of_a_dictionary_that_no_row_has_and_rows_that_have_none(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    words = pa.array(["did:plc:a", "unused", "did:plc:b", "\u00e9"])
    encoded = pa.DictionaryArray.from_arrays(pa.array([2, None, 0, 3, 2], pa.int8()), words)
    pq.write_table(pa.table({"did": encoded, "n": range(5)}), path)
    assert list(FileSource(path, format="parquet", keep_columns=["n"]).rows()) == [
        SourceRow("did:plc:b", {"n": "0"}),
        SourceRow("", {"n": "1"}),
        SourceRow("did:plc:a", {"n": "2"}),
        SourceRow("\u00e9", {"n": "3"}),
    ]
