"""A bucket that tests put lists into, and sources that read them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backfill_dagster.aws import AwsPlace, aws_client
from backfill_dagster.errors import SourceError
from backfill_dagster.sources.s3 import S3Source


@dataclass
class Lists:
    """A bucket behind an address."""

    bucket: str
    url: str

    def put(self, objects: Mapping[str, bytes | str]) -> None:
        client = aws_client("s3", AwsPlace("us-east-1", self.url))
        for key, body in objects.items():
            data = body.encode() if isinstance(body, str) else body
            client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def source(self, key: str, *, url: str | None = None, **options: Any) -> S3Source:
        return S3Source(self.uri(key), AwsPlace("us-east-1", url or self.url), **options)

    def texts(self, key: str, **options: Any) -> list[str]:
        return [row.text for row in self.source(key, **options).rows()]

    def error(self, key: str, **options: Any) -> str:
        return error_of(self.source(key, **options))


def error_of(source: S3Source) -> str:
    """The one line of what reading it comes to."""
    with pytest.raises(SourceError) as caught:
        list(source.rows())
    text = str(caught.value)
    assert "\n" not in text
    return text


def parquet(**columns: list[Any]) -> bytes:
    """A table in one row group."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()
