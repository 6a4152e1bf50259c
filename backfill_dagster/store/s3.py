"""The object store under a prefix of an S3 bucket: put-if-absent is a PUT with `If-None-Match: *`.

S3 has no rename, so a staged file is uploaded to its final key when it is written whole, and what lies in "staging" are
uploads in several pieces that nobody has finished. What makes a part live is the log, here as on a disk.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

from backfill_dagster.aws import AwsError, AwsPlace, aws_client, aws_errors, head_object, read_problem_text
from backfill_dagster.aws.arrow import ArrowS3
from backfill_dagster.errors import ObjectMissingError, StateError
from backfill_dagster.store.base import Listing, ObjectInfo
from backfill_dagster.store.keys import check_key, check_prefix
from backfill_dagster.store.problems import disk_problem, is_disk_problem
from backfill_dagster.store.s3_conflict import patiently
from backfill_dagster.store.s3_filesystem import S3Files
from backfill_dagster.store.s3_upload import PIECE_BYTES, TAKEN, upload

_BODY_TRIES_MAX = 5
"""boto3 tries requests again, not bodies that end early."""


class S3Store:
    """`ObjectStore` below `s3://bucket/prefix`."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        place: AwsPlace,
        *,
        sleep: Callable[[float], object] = time.sleep,
        unique: Callable[[], str] = lambda: uuid.uuid4().hex,
        piece_bytes: int = PIECE_BYTES,
        client: Callable[[], Any] | None = None,
    ) -> None:
        """Making one asks no server.

        Args:
            bucket: the bucket.
            prefix: without slashes at its ends; may be empty.
            place: where the service is.
            sleep: waits between two tries.
            unique: makes a text that never comes twice.
            piece_bytes: size of the pieces that larger files are uploaded in.
            client: boto3's for S3; default: the process's for the place.
        """
        self._bucket = bucket
        self._root = f"{prefix}/" if prefix else ""
        self._place = place
        self._sleep = sleep
        self._unique = unique
        self._piece_bytes = piece_bytes
        self._make_client = client or (lambda: aws_client("s3", place))
        self._arrow = ArrowS3(place)
        self._uploaded: set[str] = set()  # keys of this process that no `publish` has asked for yet

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self._bucket}/{self._root}".rstrip("/")

    @property
    def identity(self) -> str:
        """Endpoint and URI: one bucket's name can be two buckets, at two services."""
        with self._saying("look at", ""):
            return f"{self._client.meta.endpoint_url} {self.uri}"

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """One PUT with `If-None-Match: *`; False when the key is taken, perhaps by an earlier try of one's own."""
        at = self._at(key)

        def create() -> bool:
            try:
                self._client.put_object(Bucket=self._bucket, Key=at, Body=data, IfNoneMatch="*")
            except self._client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] not in TAKEN:
                    raise
                return False
            return True

        with self._saying("create", key):
            return patiently(create, self._sleep)

    def put(self, key: str, data: bytes) -> None:
        """One PUT."""
        at = self._at(key)
        with self._saying("write", key):
            self._client.put_object(Bucket=self._bucket, Key=at, Body=data)

    def get(self, key: str) -> bytes:
        """The object's bytes."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        at = self._at(key)
        with self._saying("read", key):
            for tries_left in reversed(range(_BODY_TRIES_MAX)):
                found = self._client.get_object(Bucket=self._bucket, Key=at)
                try:
                    with found["Body"] as body:
                        return cast(bytes, body.read())
                except (IncompleteReadError, HTTPClientError):
                    if not tries_left:
                        raise
        raise AssertionError("unreachable")

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        return self.size(key) is not None

    def size(self, key: str) -> int | None:
        """Bytes of the object."""
        found = self._head(key)
        return None if found is None else int(found["ContentLength"])

    def list(self, prefix: str) -> Listing:
        """The objects whose key starts with `prefix`, page after page; what is no key of a store is left out."""
        within = self._root + check_prefix(prefix)
        found = []
        with self._saying("list", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=within)
            for page in pages:
                for entry in page.get("Contents", []):
                    info = ObjectInfo(entry["Key"].removeprefix(self._root), int(entry["Size"]))
                    with suppress(ValueError):
                        check_key(info.key)
                        found.append(info)
        return sorted(found)

    def folders(self, prefix: str) -> Sequence[str]:
        """What a listing cuts at the next slash."""
        within = self._root + check_prefix(prefix)
        found = []
        with self._saying("list", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=within, Delimiter="/"
            )
            for page in pages:
                for entry in page.get("CommonPrefixes", []):
                    with suppress(ValueError):
                        found.append(check_prefix(entry["Prefix"].removeprefix(self._root)))
        return sorted(found)

    def delete(self, key: str) -> None:
        """Delete the object; one that isn't there is fine."""
        at = self._at(key)
        with self._saying("delete", key):
            self._client.delete_object(Bucket=self._bucket, Key=at)

    @contextmanager
    def stage(self, key: str) -> Iterator[BinaryIO]:
        """A temporary file that is uploaded to `key` at the end; from then on it is there for whoever lists."""
        at = self._at(key)
        try:
            with tempfile.SpooledTemporaryFile(max_size=self._piece_bytes) as file:
                yield cast(BinaryIO, file)
                with self._saying("write", key):
                    is_new = upload(
                        self._client,
                        self._bucket,
                        at,
                        file,
                        token=self._unique(),
                        sleep=self._sleep,
                        piece_bytes=self._piece_bytes,
                    )
        except OSError as error:
            if not is_disk_problem(error):
                raise
            raise StateError(f"{disk_problem(error, 'write', tempfile.gettempdir())} (TMPDIR says where)") from error
        if not is_new:
            raise StateError(f"can't write {self.path(key)}: it is there already, and no name is used twice")
        self._uploaded.add(key)

    def publish(self, keys: Iterable[str]) -> None:
        """Make sure that the parts are there: an upload that has ended is published already.

        Of one that is there, an unfinished upload is left over from a request that was made twice: it is aborted.
        """
        for key in keys:
            if key not in self._uploaded:
                if not self.exists(key):
                    raise StateError(
                        f"{self.path(key)} is not there; bring it back from a backup, `backfill verify` says what else "
                        "is missing"
                    )
                self._abort_uploads(key)
            self._uploaded.discard(key)

    def staged(self) -> Listing:
        """Uploads in pieces that were begun and not finished; they have no size yet."""
        found = set()
        with self._saying("list the unfinished uploads of", ""):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._root
            )
            for page in pages:
                for entry in page.get("Uploads", []):
                    key = entry["Key"].removeprefix(self._root)
                    with suppress(ValueError):
                        found.add(check_key(key))
        return [ObjectInfo(key, 0) for key in sorted(found)]

    def discard_staged(self, key: str) -> None:
        """Abort what is unfinished under the key; delete what this store has uploaded and nobody has published."""
        self._abort_uploads(key)
        if key in self._uploaded:
            self.delete(key)
            self._uploaded.discard(key)

    def find(self, key: str) -> str:
        """URI of the object."""
        if not self.exists(key):
            raise ObjectMissingError(f"{self.path(key)} is missing; `backfill verify` says what else is")
        return self.path(key)

    def path(self, key: str) -> str:
        """URI that the key has."""
        return f"s3://{self._bucket}/{self._at(key)}"

    def open_input(self, key: str) -> Any:
        """The object for random reading by pyarrow."""
        at = self._at(key)
        try:
            return self._arrow.filesystem().open_input_file(f"{self._bucket}/{at}")
        except FileNotFoundError as error:
            raise ObjectMissingError(f"{self.path(key)} is missing; `backfill verify` says what else is") from error
        except OSError as error:
            if "HeadObject" in str(error):
                self._head(key)  # pyarrow's has no words either; this one finds them
            raise self.read_problem(error, key) or error from error

    def read_problem(self, error: Exception, key: str) -> StateError | None:
        """What the service says, or that it can't be reached. It is asked once more where pyarrow has lost it."""
        said = read_problem_text(error, self.path(key), lambda: self._client)
        return None if said is None else AwsError(said)

    def duckdb_filesystem(self) -> S3Files:
        """What DuckDB reads `s3://` through."""
        return S3Files(self._arrow.named)

    @property
    def _client(self) -> Any:
        return self._make_client()

    def _at(self, key: str) -> str:
        return self._root + check_key(key)

    def _head(self, key: str) -> Any:
        at = self._at(key)
        with self._saying("look at", key):
            return head_object(self._client, self._bucket, at)

    def _abort_uploads(self, key: str) -> None:
        at = self._at(key)
        with self._saying("discard", key):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=at)
            for page in pages:
                for entry in page.get("Uploads", []):
                    if entry["Key"] == at:
                        self._abort(at, entry["UploadId"])

    def _abort(self, at: str, upload_id: str) -> None:
        with suppress(self._client.exceptions.NoSuchUpload):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=at, UploadId=upload_id)

    @contextmanager
    def _saying(self, doing: str, key: str) -> Iterator[None]:
        where = f"s3://{self._bucket}/{self._root}{key}"

        def becomes(text: str, code: str) -> StateError:
            return ObjectMissingError(text) if code == "NoSuchKey" else AwsError(text, code=code)

        with aws_errors(f"{doing} {where}", becomes):
            yield
