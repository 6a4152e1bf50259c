"""DuckDB over pyarrow's S3 client, with several threads on one object."""

from __future__ import annotations

import io
import threading
from random import Random

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from backfill_dagster.aws import AwsPlace, aws_client
from backfill_dagster.aws.arrow import ArrowS3
from backfill_dagster.store.s3_filesystem import S3Files


def test_threads_do_not_disturb_each_others_places(moto: str, bucket: str) -> None:
    place = AwsPlace("us-east-1", moto)
    dice = Random(1)
    texts = [f"{dice.getrandbits(96):024x}" for _ in range(400_000)]
    file = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), file, row_group_size=10_000)
    aws_client("s3", place).put_object(Bucket=bucket, Key="a.parquet", Body=file.getvalue())
    with duckdb.connect(config={"threads": 8}) as database:
        database.register_filesystem(S3Files(ArrowS3(place).filesystem))
        for _ in range(3):
            some = database.sql(f"SELECT text FROM 's3://{bucket}/a.parquet' WHERE text > ''").to_arrow_reader(10_000)
            assert sorted(some.read_all().column("text").to_pylist()) == sorted(texts)


def test_a_thread_reads_where_it_has_gone(moto: str, bucket: str) -> None:
    place = AwsPlace("us-east-1", moto)
    aws_client("s3", place).put_object(Bucket=bucket, Key="a", Body=b"0123456789")
    with S3Files(ArrowS3(place).filesystem).open(f"s3://{bucket}/a") as file:
        file.seek(2)
        other = threading.Thread(target=lambda: file.seek(7))
        other.start()
        other.join()
        assert file.read(2) == b"23"
        assert file.tell() == 4
        assert file.read() == b"456789"
        assert file.seek(-1, 2) == 9
        assert file.read(5) == b"9"
