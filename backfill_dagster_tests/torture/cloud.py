"""Lives whose state is on S3 and whose ledger is in DynamoDB: every request that changes something meets its fate.

A life begins in a copy of a base as on a disk: a prefix and a table of its own, with the same objects and items.
"""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from backfill_dagster.aws import AwsBounds, AwsPlace, aws_client
from backfill_dagster.config import BackfillConfig, DynamodbStorage, load_config
from backfill_dagster.errors import FencedError, StateError
from backfill_dagster.ledger import DynamodbLedger, LeaseTable, machine_lease_table
from backfill_dagster.ledger.dynamodb_leases import HOSTS_PK, DynamodbLeaseTable
from backfill_dagster.ledger.dynamodb_table import DynamodbTable
from backfill_dagster.records.part_file import part_key
from backfill_dagster.store.s3 import S3Store
from backfill_dagster_tests.torture.fate import Fate
from backfill_dagster_tests.torture.life import CONFIG, LOCKS, Life
from backfill_dagster_tests.worker.mortal import KilledError
from backfill_dagster_tests.worker.tiny import fold_of, only_shard

BUCKET = "torture"
REGION = "us-east-1"

DURABLE = {
    *("put_object", "delete_object", "create_multipart_upload", "upload_part", "complete_multipart_upload"),
    *("abort_multipart_upload", "put_item", "update_item", "delete_item", "batch_write_item", "create_table"),
}
"""Methods of boto3's clients that change something."""

LEASE_KEYS = ("#leases", HOSTS_PK)


class CloudBlow(StrEnum):
    """What happens at the chosen request."""

    DEATH = "death"
    """The process is gone before the request."""
    DEATH_AFTER = "death_after"
    """The request is carried out, and the process is gone before it hears so."""
    REFUSED = "refused"
    """The service refuses this request, in spite of all tries."""
    REFUSED_ON = "refused_on"
    """The service refuses from this request on."""
    LOST = "lost"
    """The request is carried out, and its reply never comes."""

    @property
    def kills(self) -> bool:
        return self in (CloudBlow.DEATH, CloudBlow.DEATH_AFTER)

    @property
    def stays(self) -> bool:
        return self is CloudBlow.REFUSED_ON


class CloudFate(Fate):
    """A fate whose calls are requests; `half` carries the request out."""

    blow: CloudBlow | None  # type: ignore[assignment]

    def __init__(self, blow: StrEnum | None = None, at: int = 0) -> None:
        super().__init__(None, at)
        self.blow = None if blow is None else CloudBlow(blow.value)

    def strike(self, blow: Any, half: Callable[[], object]) -> None:
        from botocore.exceptions import ClientError, ConnectionClosedError

        if blow in (CloudBlow.DEATH_AFTER, CloudBlow.LOST):
            half()
        if blow.kills:
            self.is_over = True
            raise KilledError
        if blow is CloudBlow.LOST:
            raise ConnectionClosedError(endpoint_url="http://service")
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "refused"}}, "Anything")


class FatedClient:
    """boto3's client; what changes something meets its fate first."""

    def __init__(self, client: Any, fate: Fate) -> None:
        self._client = client
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name not in DURABLE:
            return found

        def call(**parameters: Any) -> Any:
            self._fate.meet(_kind(name, parameters), _where(parameters), half=lambda: found(**parameters))
            if threading.current_thread().name.startswith("lease "):
                return found(**parameters)
            with self._fate.quiet:
                return found(**parameters)

        return call


class FatedTable(DynamodbTable):
    """A table all of whose clients meet their fate, those of leases among them."""

    def __init__(self, name: str, place: AwsPlace, fate: Fate, *, create: bool) -> None:
        super().__init__(name, place, create=create)
        self._fate = fate

    def client_within(self, bounds: AwsBounds | None) -> Any:
        return FatedClient(super().client_within(bounds), self._fate)


def _kind(name: str, parameters: Mapping[str, Any]) -> str:
    """The request, told apart by what it is about where one method serves many ends."""
    if name == "put_item":
        key = parameters["Item"]["pk"]["S"]
        return "lease" if key.endswith(LEASE_KEYS) else f"put_item {key.rpartition('#')[2]}"
    if name == "put_object":
        return "create" if "IfNoneMatch" in parameters else "put"
    return name


def _where(parameters: Mapping[str, Any]) -> str:
    return str(parameters.get("Key") or parameters.get("TableName") or parameters.get("RequestItems", "table"))[:200]


class CloudLife(Life):
    """A life on S3 and DynamoDB. The folder holds its config and the machine's leases."""

    fate_of = CloudFate

    @classmethod
    def begin(cls, base: Path, folder: Path) -> None:
        """Copy what there is at a base: the folder, the objects, the items."""
        shutil.copytree(base, folder)
        old = load(base)
        new = moved_config(folder)
        copy_objects(old, new)
        copy_items(old, new)

    def __init__(self, folder: Path, fate: Fate) -> None:
        super().__init__(folder, fate)
        assert isinstance(self.config.storage, DynamodbStorage)
        self.storage = self.config.storage
        self._s3 = FatedClient(s3_of(self.config), fate)

    def means(self) -> dict[str, Any]:
        def open_store(config: BackfillConfig) -> S3Store:
            return S3Store(BUCKET, prefix_of(config), s3_place(config), client=lambda: self._s3, sleep=lambda _: None)

        def open_ledger(config: BackfillConfig, *, read_only: bool = False) -> DynamodbLedger:
            return DynamodbLedger(self._table(), config.name)

        def host_leases(config: BackfillConfig, environ: Mapping[str, str]) -> tuple[LeaseTable, ...]:
            return machine_lease_table(environ), DynamodbLeaseTable(self._table(), HOSTS_PK)

        return {"open_store": open_store, "open_ledger": open_ledger, "host_lease_tables": host_leases}

    def _table(self) -> DynamodbTable:
        place = AwsPlace(self.storage.region, self.storage.endpoint_url)
        return FatedTable(self.storage.table_name, place, self.fate, create=self.storage.create_table)

    def plant(self) -> None:
        """A large part on its way up, which no entry names."""
        with self.opened() as state:
            shard = only_shard(state)
            key = part_key("like", shard=shard, seq=9, epoch=fold_of(state, shard).epoch - 1, unique="b0b0")
        s3_of(self.config).create_multipart_upload(Bucket=BUCKET, Key=f"{prefix_of(self.config)}/{key}")

    def _lease_files(self) -> Sequence[Path]:
        return [self.folder / LOCKS / "hosts.sqlite"]

    def strays(self) -> set[str]:
        """Without a rename a part is where readers look before its entry: the next run sweeps what has none."""
        return set()

    def _bury(self) -> None:
        super()._bury()
        client = dynamodb_of(self.config)
        for item in items_of(self.config):
            if not item["pk"]["S"].endswith(LEASE_KEYS):
                continue
            if item["pid"]["N"] == str(os.getpid()) and not item["released"]["BOOL"]:
                item["pid_started"]["N"] = str(int(item["pid_started"]["N"]) - 1)
                client.put_item(TableName=self.storage.table_name, Item=item)


def load(folder: Path) -> BackfillConfig:
    return load_config(folder / CONFIG)


def cloud_config(folder: Path, s3: str, dynamodb: str) -> None:
    """Move a folder's config to a prefix and a table of their own, which is created."""
    content = yaml.safe_load((folder / CONFIG).read_text())
    content["backfill"]["state"] = {"path": "", "region": REGION, "endpoint_url": s3}
    content["backfill"]["storage"] = {
        "type": "dynamodb",
        "table_name": "",
        "region": REGION,
        "endpoint_url": dynamodb,
        "create_table": True,
    }
    (folder / CONFIG).write_text(yaml.safe_dump(content))
    moved_config(folder)


def moved_config(folder: Path) -> BackfillConfig:
    """The folder's config with another prefix and another table; the table is created."""
    name = f"life-{uuid.uuid4().hex}"
    content = yaml.safe_load((folder / CONFIG).read_text())
    content["backfill"]["state"]["path"] = f"s3://{BUCKET}/{name}"
    content["backfill"]["storage"]["table_name"] = name
    (folder / CONFIG).write_text(yaml.safe_dump(content))
    config = load(folder)
    assert isinstance(config.storage, DynamodbStorage)
    DynamodbTable(name, AwsPlace(config.storage.region, config.storage.endpoint_url), create=True).create()
    return config


def s3_place(config: BackfillConfig) -> AwsPlace:
    return AwsPlace(config.state.region, config.state.endpoint_url)


def s3_of(config: BackfillConfig) -> Any:
    return aws_client("s3", s3_place(config))


def dynamodb_of(config: BackfillConfig) -> Any:
    assert isinstance(config.storage, DynamodbStorage)
    return aws_client("dynamodb", AwsPlace(config.storage.region, config.storage.endpoint_url))


def prefix_of(config: BackfillConfig) -> str:
    return str(config.state_path).removeprefix(f"s3://{BUCKET}/")


def copy_objects(old: BackfillConfig, new: BackfillConfig) -> None:
    client = s3_of(old)
    keys = [key for key, _ in objects_of(old)]

    def copy(key: str) -> None:
        target = key.replace(prefix_of(old), prefix_of(new), 1)
        client.copy_object(Bucket=BUCKET, Key=target, CopySource={"Bucket": BUCKET, "Key": key})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(copy, keys))
    for upload in client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix_of(old)).get("Uploads", ()):
        client.create_multipart_upload(Bucket=BUCKET, Key=upload["Key"].replace(prefix_of(old), prefix_of(new), 1))


def objects_of(config: BackfillConfig) -> Iterator[tuple[str, str]]:
    """Key and ETag of every object of a state."""
    pages = s3_of(config).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix_of(config)}/")
    for page in pages:
        yield from ((entry["Key"], entry["ETag"]) for entry in page.get("Contents", ()))


def items_of(config: BackfillConfig) -> list[dict[str, Any]]:
    """Every item of a life's table, whatever it is."""
    assert isinstance(config.storage, DynamodbStorage)
    pages = dynamodb_of(config).get_paginator("scan").paginate(TableName=config.storage.table_name)
    return [item for page in pages for item in page["Items"]]


def copy_items(old: BackfillConfig, new: BackfillConfig) -> None:
    assert isinstance(new.storage, DynamodbStorage)
    client, items = dynamodb_of(new), items_of(old)
    for start in range(0, len(items), 25):
        puts = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
        client.batch_write_item(RequestItems={new.storage.table_name: puts})


def assert_clear(why: object, config: BackfillConfig) -> None:
    """An error that a person can do something with: one line, the place, what to do."""
    assert isinstance(why, (StateError, FencedError)), repr(why)
    text = str(why)
    assert "\n" not in text, text
    assert isinstance(why, FencedError) or prefix_of(config) in text, text
    assert ";" in text, text
