"""Lists on S3 (moto, on loopback): CPU of the process that reads them, and the memory that ten million DIDs take."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from backfill_dagster.aws import AwsPlace, aws_client
from backfill_dagster.cli.aws_servers import CREDENTIALS, FOLDER, moto_server
from backfill_dagster.sources.base import RowCounts
from backfill_dagster.sources.s3 import S3Source
from benchmarks.measure import ROUNDS, Figure

ROWS = 1_000_000
MANY_ROWS = 10_000_000
BUCKET = "benchmark"

_GROUP_ROWS = 100_000
_ROOT = Path(__file__).parents[1]


def figures() -> Iterator[Figure]:
    """One million DIDs as Parquet, as CSV and by a query; ten million in a process of their own."""
    os.environ.update(CREDENTIALS)
    with moto_server(_ROOT / FOLDER) as url:
        client = aws_client("s3", AwsPlace("us-east-1", url))
        client.create_bucket(Bucket=BUCKET)
        for name, rows in (("dids", ROWS), ("many", MANY_ROWS)):
            client.put_object(Bucket=BUCKET, Key=f"{name}.parquet", Body=_parquet(rows))
        table = pq.read_table(io.BytesIO(client.get_object(Bucket=BUCKET, Key="dids.parquet")["Body"].read()))
        text = io.BytesIO()
        pc.write_csv(table, text)
        client.put_object(Bucket=BUCKET, Key="dids.csv", Body=text.getvalue())
        del table, text
        for key, query, asked in (
            ("dids.parquet", None, "1 s"),
            ("dids.csv", None, ""),
            ("dids.parquet", "SELECT did FROM source WHERE did > ''", ""),
        ):
            seconds = min(_cpu_seconds(url, key, query) for _ in range(ROUNDS))
            what = f"CPU of reading s3://…/{key}{' by a query' if query else ''}"
            yield Figure(what, ROWS, "rows", seconds, asked=asked)
        seconds, peak_mib = _in_own_process(url)
        yield Figure(
            f"CPU of reading s3://…/many.parquet, {peak_mib} MiB at most", MANY_ROWS, "rows", seconds, None, "1024 MiB"
        )


def _cpu_seconds(url: str, key: str, query: str | None = None) -> float:
    """Seconds of CPU, of all threads, from opening the source to its last row."""
    counts = RowCounts()
    source = S3Source(f"s3://{BUCKET}/{key}", AwsPlace("us-east-1", url), query=query)
    started = time.process_time()
    for _ in source.rows(counts):
        pass
    seconds = time.process_time() - started
    assert counts.rows in (ROWS, MANY_ROWS)
    assert counts.duplicates == 0
    return seconds


def _in_own_process(url: str) -> tuple[float, int]:
    """CPU seconds and peak RSS in MiB of reading the ten million."""
    command = [sys.executable, "-m", "benchmarks.sources", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(said[0]), int(said[1])


def _parquet(rows: int) -> Any:
    """DIDs in no order, in groups of rows, as a list that was exported is."""
    dice = Random(rows)
    schema = pa.schema({"did": pa.string()})
    file = io.BytesIO()
    with pq.ParquetWriter(file, schema) as writer:
        for _ in range(rows // _GROUP_ROWS):
            dids = [f"did:plc:{dice.getrandbits(96):024x}" for _ in range(_GROUP_ROWS)]
            writer.write_table(pa.table([dids], schema=schema))
    file.seek(0)
    return file


if __name__ == "__main__":
    print(_cpu_seconds(sys.argv[1], "many.parquet"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
