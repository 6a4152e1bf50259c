"""Where a test's backfill is on AWS: a bucket with its list and its state, a table; with copies of both."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from backfill_dagster.aws import AwsPlace, aws_client
from backfill_dagster.ledger.dynamodb_table import DynamodbTable

REGION = "us-east-1"
LIST_KEY = "lists/dids.csv"


@dataclass(frozen=True)
class Place:
    """Attributes: addresses of S3 and DynamoDB; the bucket of list and state; the state's prefix; the table."""

    s3: str
    dynamodb: str
    bucket: str
    prefix: str
    table: str

    def blocks(self, **storage: Any) -> dict[str, Any]:
        """The config's `source`, `state` and `storage`, which `storage` is added to."""
        s3 = {"region": REGION, "endpoint_url": self.s3}
        dynamodb = {"type": "dynamodb", "table_name": self.table, "region": REGION, "endpoint_url": self.dynamodb}
        return {
            "source": {"type": "s3", "path": f"s3://{self.bucket}/{LIST_KEY}", **s3},
            "state": {"path": f"s3://{self.bucket}/{self.prefix}", **s3},
            "storage": dynamodb | storage,
        }

    @property
    def s3_client(self) -> Any:
        return aws_client("s3", AwsPlace(REGION, self.s3))

    @property
    def dynamodb_client(self) -> Any:
        return aws_client("dynamodb", AwsPlace(REGION, self.dynamodb))

    def put_list(self, dids: Sequence[str], key: str = LIST_KEY) -> None:
        self.s3_client.put_object(Bucket=self.bucket, Key=key, Body="\n".join(["did", *dids]).encode())

    def objects(self, below: str = "") -> list[str]:
        """Keys of the state that begin so, without its prefix."""
        root = f"{self.prefix}/"
        pages = self.s3_client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=root + below)
        return [one["Key"].removeprefix(root) for page in pages for one in page.get("Contents", ())]

    def get(self, key: str) -> bytes:
        content: bytes = self.s3_client.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{key}")["Body"].read()
        return content

    def delete(self, key: str) -> None:
        self.s3_client.delete_object(Bucket=self.bucket, Key=f"{self.prefix}/{key}")

    def uploads(self) -> list[str]:
        """Keys of the state's unfinished uploads."""
        root = f"{self.prefix}/"
        found = self.s3_client.list_multipart_uploads(Bucket=self.bucket, Prefix=root).get("Uploads", ())
        return [one["Key"].removeprefix(root) for one in found]

    def begin_upload(self, key: str) -> None:
        """What a run leaves that died in the middle of a large part."""
        named = {"Bucket": self.bucket, "Key": f"{self.prefix}/{key}"}
        begun = self.s3_client.create_multipart_upload(**named)
        self.s3_client.upload_part(**named, UploadId=begun["UploadId"], PartNumber=1, Body=b"a piece")

    def items(self) -> list[dict[str, Any]]:
        """All of the table, as it is on the wire."""
        pages = self.dynamodb_client.get_paginator("scan").paginate(TableName=self.table, ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]

    def create_table(self) -> None:
        DynamodbTable(self.table, AwsPlace(REGION, self.dynamodb)).create()

    def empty_table(self) -> None:
        for item in self.items():
            key = {name: item[name] for name in ("pk", "did")}
            self.dynamodb_client.delete_item(TableName=self.table, Key=key)

    def copy(self) -> Place:
        """The same state and the same items, under another prefix and in another table."""
        name = uuid.uuid4().hex[:12]
        new = replace(self, prefix=f"states/{name}", table=f"ledger-{name}")
        for key in self.objects():
            source = {"Bucket": self.bucket, "Key": f"{self.prefix}/{key}"}
            self.s3_client.copy_object(Bucket=self.bucket, Key=f"{new.prefix}/{key}", CopySource=source)
        new.create_table()
        items = self.items()
        for start in range(0, len(items), 25):
            puts = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
            self.dynamodb_client.batch_write_item(RequestItems={new.table: puts})
        return new


def new_place(s3: str, dynamodb: str) -> Place:
    """One with a bucket of its own; nothing is in it, and there is no table."""
    name = uuid.uuid4().hex[:12]
    made = Place(s3, dynamodb, f"bucket-{name}", f"states/{name}", f"ledger-{name}")
    made.s3_client.create_bucket(Bucket=made.bucket)
    return made
