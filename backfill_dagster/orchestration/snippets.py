"""DuckDB's SQL to read each asset, as the catalog shows it: paste it into `duckdb` or `backfill query`.

Text only, from the config: nothing is opened. A test runs each of them.
"""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from backfill_dagster.config import BackfillConfig, FileSource, InlineSource, S3Source, SqliteSource
from backfill_dagster.records.schema import SHORT_NAMES, collection_of
from backfill_dagster.store.duckdb_paths import literal_path

SNIPPET = "duckdb"
"""Metadata key that holds it."""


def markdown(sql: str) -> dg.MetadataValue:
    """A snippet as metadata."""
    return dg.MetadataValue.md(f"```sql\n{sql}\n```")


def did_list_sql(config: BackfillConfig) -> str:
    """The rows of the source; of a list that stands in the YAML, as it was planned."""
    source = config.source
    match source:
        case SqliteSource():
            where = quoted(config.resolve(source.path))
            return f"ATTACH {where} AS source (TYPE sqlite, READ_ONLY); USE source;\n{source.query}"
        case FileSource():
            return _file_sql(source, quoted(literal_path(str(config.resolve(source.path)))))
        case InlineSource():
            return f"SELECT did FROM (\n{plan_sql(config)}\n)"
        case _:
            files = _s3_sql(source)
            return f"WITH source AS ({files})\n{source.query}" if source.query else files


def plan_sql(config: BackfillConfig) -> str:
    """The current row of each DID."""
    return (
        f"SELECT * EXCLUDE filename FROM read_parquet({_under(config, 'plan/*.parquet')}, filename = true)\n"
        "QUALIFY row_number() OVER (PARTITION BY did ORDER BY filename DESC) = 1"
    )


def network_sql(config: BackfillConfig) -> str:
    """The repos of one PDS host, by its own word."""
    del config  # the hosts are in the plan
    return (
        "SELECT unnest(repos, recursive := true)\n"
        "FROM read_json('https://<host>/xrpc/com.atproto.sync.listRepos?limit=1000')  -- hosts: see shard_plan"
    )


def records_sql(config: BackfillConfig, entry: str) -> str:
    """The live rows of an entry of `record_types`."""
    everything = (
        f"FROM read_parquet({_under(config, 'records/*/*.parquet')}, union_by_name = true, hive_partitioning = true)\n"
    )
    if entry.endswith(".*"):
        return f"{everything}WHERE collection LIKE {quoted(entry[:-1] + '%')}"
    types = [name for name in _RECORD_TYPES if collection_of(name) == entry] or [entry]
    if len(types) > 1:  # a folder of them may not be there, and a reader of two paths wants both
        return f"{everything}WHERE record_type IN ({', '.join(map(quoted, types))})"
    return f"FROM read_parquet({_under(config, f'records/record_type={types[0]}/*.parquet')})"


def outcomes_sql(config: BackfillConfig) -> str:
    """The outcome of each DID in each shard it has been in, from the logs that the ledger is made of."""
    return (
        "SELECT parse_path(filename)[-2] AS shard, one.key AS did, one.value->>'outcome' AS outcome,\n"
        "       one.value->>'error_code' AS error_code, (one.value->>'attempts')::INT AS attempts\n"
        "FROM (SELECT filename, seq, unnest(map_entries(dids)) AS one FROM read_json(\n"
        f"  {_under(config, 'log/*/*.json')}, filename = true,\n"
        "  columns = {seq: 'BIGINT', dids: 'MAP(VARCHAR, JSON)'}))\n"
        "QUALIFY row_number() OVER (PARTITION BY shard, did ORDER BY seq DESC) = 1"
    )


def coverage_sql(config: BackfillConfig) -> str:
    """DIDs by host and outcome, from the newest report."""
    return (
        "SELECT host.key AS host, outcome.key AS outcome, outcome.value AS dids\n"
        "FROM (SELECT host, unnest(map_entries(host.value)) AS outcome\n"
        "FROM (SELECT unnest(map_entries(hosts)) AS host FROM read_json(\n"
        f"  {_under(config, 'reports/coverage.json')}, columns = {{hosts: 'MAP(VARCHAR, MAP(VARCHAR, BIGINT))'}})))"
    )


def _file_sql(source: FileSource, path: str) -> str:
    """As the source's own reader names the columns: text has none, CSV without a header `column0`, `column1`, ..."""
    match source.file_format:
        case "parquet":
            return f"FROM read_parquet({path})"
        case "text":
            return f"FROM read_csv({path}, header = false, columns = {{did: 'VARCHAR'}})"
        case _:
            return f"FROM read_csv({path}, header = {str(source.header).lower()})"


def _s3_sql(source: S3Source) -> str:
    """By httpfs, which DuckDB's own program fetches by itself."""
    path = quoted(source.path + "**" if source.path.endswith("/") else source.path)
    if source.format == "parquet":
        return f"FROM read_parquet({path})"
    if source.format == "csv" or not source.header:
        return f"FROM read_csv({path}, header = {str(source.header).lower()}, all_varchar = true)"
    return f"FROM {path}"


_RECORD_TYPES = (*SHORT_NAMES.values(), "reply")


def quoted(value: str | Path) -> str:
    """A SQL string."""
    return "'" + str(value).replace("'", "''") + "'"


def _under(config: BackfillConfig, key: str) -> str:
    return quoted(f"{literal_path(str(config.state_path))}/{key}")
