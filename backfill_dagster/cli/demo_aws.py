"""The demo's AWS: an S3 and a DynamoDB on loopback, found by the environment as the real ones would be."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_dagster.aws import AwsPlace, aws_client, aws_errors
from backfill_dagster.cli.aws_servers import CREDENTIALS, FOLDER, ministack_server, moto_server
from backfill_dagster.cli.demo_network import DemoNetwork
from backfill_dagster.ledger.open import LOCK_FOLDER_VARIABLE

BUCKET = "backfill-demo"
TABLE = "backfill_results"
_LIST_KEY = "lists/dids.parquet"

ROOT = Path(__file__).parents[2]


@contextmanager
def demo_aws(folder: Path, network: DemoNetwork) -> Iterator[Mapping[str, Any]]:
    """Start the servers for the block and put the list of DIDs into a bucket; this process's environment names them.

    What a backfill on S3 keeps on its machine goes into the folder: the user's own place for it outlives the demo.

    Yields:
        The config's blocks `source`, `state` and `storage`. They say nothing of endpoints.

    Raises:
        UsageError: the servers are not installed.
        BackfillError: one doesn't start.
    """
    with moto_server(ROOT / FOLDER) as s3, ministack_server(ROOT / FOLDER) as dynamodb:
        own = {
            **CREDENTIALS,
            "AWS_ENDPOINT_URL_S3": s3,
            "AWS_ENDPOINT_URL_DYNAMODB": dynamodb,
            LOCK_FOLDER_VARIABLE: str(folder / "locks"),
        }
        with _environment(own):
            _put_list(network.dids_sqlite)
            yield {
                "source": {"type": "s3", "path": f"s3://{BUCKET}/{_LIST_KEY}"},
                "state": {"path": f"s3://{BUCKET}/demo"},
                "storage": {"type": "dynamodb", "table_name": TABLE, "create_table": True},
            }


def _put_list(dids_sqlite: Path) -> None:
    """The same DIDs as in the SQLite file, as Parquet in a new bucket."""
    with closing(sqlite3.connect(dids_sqlite)) as database:
        dids = [did for (did,) in database.execute("SELECT did FROM dids ORDER BY rowid")]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"did": dids}), sink)
    client = aws_client("s3", AwsPlace())
    with aws_errors(f"put the list of DIDs into s3://{BUCKET}"):
        client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key=_LIST_KEY, Body=sink.getvalue().to_pybytes())


@contextmanager
def _environment(own: Mapping[str, str]) -> Iterator[None]:
    """Variables for the block, also of the processes that it starts; what the user has set of AWS is put aside."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name in own}
    for name in before:
        del os.environ[name]
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)
        os.environ.update(before)
