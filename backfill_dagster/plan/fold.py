"""The fold of a plan's generations: DuckDB over their files, of each DID only the last row.

What a file looks like is in `generation`, who writes them and in which order in `storage`.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from backfill_dagster.errors import StateError
from backfill_dagster.model import PlannedDid
from backfill_dagster.plan.generation import SCHEMA, planned_dids
from backfill_dagster.store import ObjectStore
from backfill_dagster.store.duckdb_paths import literal_path

REMEDY = "bring it back from a backup of the state folder"

_BATCH_ROWS = 16_384


@dataclass(frozen=True)
class GenerationFiles:
    """The files of generations that follow each other; of a plan, or of its end.

    Attributes:
        store: where they are.
        keys: theirs, in order.
    """

    store: ObjectStore = field(compare=False)
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def after(self, count: int) -> GenerationFiles:
        """Those behind the first `count`."""
        return GenerationFiles(self.store, self.keys[count:])

    def with_next(self, key: str) -> GenerationFiles:
        """These and one more."""
        return GenerationFiles(self.store, (*self.keys, key))

    @property
    def paths(self) -> list[str]:
        """Paths or URIs."""
        return [self.store.path(key) for key in self.keys]


def current_rows(
    files: GenerationFiles | None, shards: Sequence[str] | None = None, *, by_shard: bool = False
) -> Iterator[PlannedDid]:
    """Current rows, of some shards or of all, in the order of the generations and of the rows in them; streamed.

    Args:
        files: of generations 1, 2, ...
        shards: partition keys, the reserved shard may be one; None: all.
        by_shard: one shard after the other.

    Raises:
        StateError: a file can't be read; names it.
    """
    if not files:
        return
    # One key as a plain comparison: the files are ordered by shard, and most row groups are not read then.
    several = "true" if shards is None else "shard IN (SELECT unnest($shards))"
    condition, given_shards = (
        ("shard = $shard", {"shard": shards[0]})
        if shards is not None and len(shards) == 1
        else (several, {} if shards is None else {"shards": list(shards)})
    )
    query = (
        f"SELECT {', '.join(SCHEMA.names)} FROM {_marked(len(files), condition)} "
        f"WHERE is_current ORDER BY {'shard, ' if by_shard else ''}generation, file_row_number"
    )
    parameters = _parameters(files) | given_shards
    with _reading(files) as connection:
        for batch in connection.sql(query, params=parameters).to_arrow_reader(_BATCH_ROWS):
            yield from planned_dids(batch)


def shard_sizes(files: GenerationFiles | None) -> dict[str, tuple[int, int]]:
    """Every shard that was ever named, the reserved one too -> (current, delisted) DIDs; by key.

    Raises:
        StateError: a file can't be read; names it.
    """
    if not files:
        return {}
    query = (
        "SELECT shard, count(*) FILTER (is_current AND NOT delisted), count(*) FILTER (is_current AND delisted) "
        f"FROM {_marked(len(files))} GROUP BY shard ORDER BY shard"
    )
    with _reading(files) as connection:
        rows = connection.execute(query, _parameters(files)).fetchall()
    return {shard: (current, delisted) for shard, current, delisted in rows}


def touched(files: GenerationFiles | None) -> dict[str, int]:
    """Shard -> the last generation that has put a DID there, changed one, or taken one away to another shard.

    Raises:
        StateError: a file can't be read; names it.
    """
    if not files:
        return {}
    named = f"SELECT shard, max(generation) AS last FROM {_rows_in('paths')} GROUP BY shard"
    if len(files) > 1:
        # Generations after the first are small, so this is a few rows against all.
        left = (
            f"SELECT old.shard, max(new.generation) AS last FROM {_rows_in('paths')} AS old "
            f"JOIN {_rows_in('later')} AS new ON old.did = new.did "
            "AND old.generation < new.generation AND old.shard <> new.shard GROUP BY old.shard"
        )
        named = f"SELECT shard, max(last) AS last FROM ({named} UNION ALL {left}) GROUP BY shard"
    with _reading(files) as connection:
        return dict(connection.execute(named, _parameters(files)).fetchall())


def given(files: GenerationFiles | None, dids: Sequence[str]) -> dict[tuple[str, str], tuple[int, int]]:
    """(DID, shard) -> the first and the last generation with a row of both, for some DIDs.

    Raises:
        StateError: a file can't be read; names it.
    """
    if not files or not dids:
        return {}
    columns = "did, shard, min(generation), max(generation)"
    query = f"SELECT {columns} FROM {_rows_in('paths')} WHERE did IN $dids GROUP BY did, shard"
    with _reading(files) as connection:
        rows = connection.execute(query, {"paths": [*map(literal_path, files.paths)], "dids": dids}).fetchall()
    return {(did, shard): (first, last) for did, shard, first, last in rows}


def unreadable(path: str, error: Exception) -> StateError:
    """The one line for a generation's file that can't be read."""
    return StateError(f"{path} can't be read as a generation of the plan ({_one_line(error)}): {REMEDY}")


def _rows_in(paths: str) -> str:
    return (
        "(SELECT *, CAST(regexp_extract(filename, '([0-9]+)[.]parquet$', 1) AS BIGINT) AS generation "
        f"FROM read_parquet(${paths}, filename = true, file_row_number = true, hive_partitioning = false))"
    )


def _marked(generations: int, condition: str = "true") -> str:
    """SQL of all rows that fulfil the condition, with `is_current`. A first generation has nothing before it.

    No CTE: DuckDB would materialise it, and read every column of every row to find one shard.
    """
    rows = f"(SELECT * FROM {_rows_in('paths')} WHERE {condition})"
    if generations == 1:
        return f"(SELECT *, true AS is_current FROM {rows})"
    dids = f"(SELECT did FROM {_rows_in('paths')} WHERE {condition})"
    newest = f"(SELECT did, max(generation) AS last FROM {_rows_in('later')} WHERE did IN {dids} GROUP BY did)"
    return (
        "(SELECT found.*, found.generation >= coalesce(newest.last, 1) AS is_current "
        f"FROM {rows} AS found LEFT JOIN {newest} AS newest ON found.did = newest.did)"
    )


def _parameters(files: GenerationFiles) -> dict[str, Any]:
    literals = [*map(literal_path, files.paths)]
    return {"paths": literals} | ({"later": literals[1:]} if len(literals) > 1 else {})


@contextmanager
def _reading(files: GenerationFiles) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection; whatever goes wrong with the files becomes one StateError that names the bad one."""
    with tempfile.TemporaryDirectory(prefix="backfill-plan-", ignore_cleanup_errors=True) as spill:
        connection = duckdb.connect(config={"temp_directory": spill, "autoinstall_known_extensions": "false"})
        connection.execute("SET enable_progress_bar = false")  # it goes to stdout, among a command's JSON
        try:
            if (filesystem := files.store.duckdb_filesystem()) is not None:
                connection.register_filesystem(filesystem)
            yield connection
        except (duckdb.Error, pa.ArrowException, ValueError, OSError) as error:
            key = _unsound(files)
            if key is not None:
                raise files.store.read_problem(error, key) or unreadable(files.store.path(key), error) from error
            folder = files.paths[0].rpartition("/")[0]
            raise StateError(
                f"can't read the plan in {folder} ({_one_line(error)}); each of its files is sound, so see that there "
                "is memory and room for temporary files, and try again"
            ) from error
        finally:
            connection.close()


def _unsound(files: GenerationFiles) -> str | None:
    """Key of the first generation that can't be read by itself."""
    for key in files.keys:
        try:
            with files.store.open_input(key) as source, pq.ParquetFile(source) as file:
                for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                    deque(planned_dids(batch), maxlen=0)
        except (pa.ArrowException, ValueError, OSError, StateError):
            return key
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
