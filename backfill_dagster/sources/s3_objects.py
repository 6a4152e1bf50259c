"""Which objects an address on S3 names: one object, all below a prefix that ends in a slash, or what a glob matches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fsspec.utils import glob_translate

from backfill_dagster.aws import AwsPlace, aws_client, aws_errors, head_object
from backfill_dagster.errors import SourceError

S3Format = Literal["csv", "parquet"]

OBJECTS_MAX = 100_000
"""As many objects as one source can have."""

KEYS_MAX = 1_000_000
"""As many as are looked at for a glob: a thousand requests."""

_FORMATS: dict[str, S3Format] = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True, order=True)
class S3Object:
    """An object as a listing has it; `size` in bytes."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class S3Address:
    """Attributes: `bucket`; `key`, which may be a prefix that ends in a slash, or a glob."""

    bucket: str
    key: str

    @classmethod
    def of(cls, uri: str) -> S3Address:
        """Split `s3://bucket/key`.

        Raises:
            SourceError: it names a bucket only.
        """
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if not key:
            raise SourceError(f"{uri} names a whole bucket: add an object's key, a prefix/ or a glob to source.path")
        return cls(bucket, key)

    def __str__(self) -> str:
        return self.uri(self.key)

    def uri(self, key: str) -> str:
        """Address of an object in the bucket."""
        return f"s3://{self.bucket}/{key}"

    @property
    def listed(self) -> str | None:
        """The prefix that has to be listed, which is what stands before the first wildcard; None for one object."""
        wildcard = _WILDCARD.search(self.key)
        if wildcard is not None:
            return self.key[: wildcard.start()]
        return self.key if self.key.endswith("/") else None


def find_objects(address: S3Address, place: AwsPlace) -> list[S3Object]:
    """The objects, by key.

    In a glob, `*` and `?` stop at a slash, `**` between slashes doesn't. Of a prefix or glob, keys that end in a slash
    (the "folders" that consoles make) and names that begin with `_` or `.` (`_SUCCESS`) are passed over.

    Raises:
        SourceError: there is none, there are too many, or the service refuses or can't be reached.
    """
    with aws_errors(f"look at {address}", lambda text, code: SourceError(text)):
        client = aws_client("s3", place)
        prefix = address.listed
        return [_one(client, address)] if prefix is None else _several(client, address, prefix)


def format_of(objects: Sequence[S3Object], address: S3Address) -> S3Format:
    """What the objects hold, by their suffixes.

    Raises:
        SourceError: their suffixes say nothing, or different things.
    """
    by_format: dict[S3Format, S3Object] = {}
    for one in objects:
        by_format.setdefault(_format_by_suffix(one.key, address), one)
    if len(by_format) > 1:
        named = " and ".join(f"{format_} ({address.uri(one.key)})" for format_, one in sorted(by_format.items()))
        raise SourceError(f"{address} names objects of different formats, {named}: narrow it with a glob (*.parquet)")
    return next(iter(by_format))


def _format_by_suffix(key: str, address: S3Address) -> S3Format:
    name = key.lower().rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    is_packed = suffix == "gz"
    found = _FORMATS.get("." + stem.rpartition(".")[2] if is_packed else dot + suffix)
    if found is None or (is_packed and found != "csv"):
        raise SourceError(
            f"{address.uri(key)} has none of the suffixes .csv, .csv.gz, .tsv and .parquet: "
            "set source.format to csv or parquet, or narrow source.path with a glob (*.parquet)"
        )
    return found


def _one(client: Any, address: S3Address) -> S3Object:
    found = head_object(client, address.bucket, address.key)
    if found is None:
        # Without the bucket there is no object either: this says so.
        beside = client.list_objects_v2(Bucket=address.bucket, Prefix=address.key + "/", MaxKeys=1)
        remedy = "add a slash to source.path, there are objects below it" if beside.get("KeyCount") else ""
        raise SourceError(f"{address} is not there: {remedy or 'correct source.path, or put it there'}")
    return S3Object(address.key, int(found["ContentLength"]), str(found["ETag"]))


def _several(client: Any, address: S3Address, prefix: str) -> list[S3Object]:
    matches = _matcher(address, prefix)
    looked_at = 0
    found = []
    for entry in _entries(client, address.bucket, prefix):
        looked_at += 1
        if looked_at > KEYS_MAX:
            raise SourceError(
                f"{address}: there are over {KEYS_MAX} objects below {address.uri(prefix)}; "
                "write more of the key before the first wildcard"
            )
        if matches(entry["Key"]):
            found.append(S3Object(entry["Key"], int(entry["Size"]), str(entry["ETag"])))
        if len(found) > OBJECTS_MAX:
            raise SourceError(f"{address} names over {OBJECTS_MAX} objects: put the list into fewer, larger ones")
    if not found:
        raise SourceError(
            f"{address} matches none of the {looked_at} objects below {address.uri(prefix)}: correct source.path"
        )
    return sorted(found)


def _entries(client: Any, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from page.get("Contents", ())


def _matcher(address: S3Address, prefix: str) -> Callable[[str], bool]:
    """Whether a key below the prefix is meant."""
    is_meant: Callable[[str], object] = bool
    if prefix != address.key:
        try:
            is_meant = re.compile(glob_translate(address.key)).match
        except ValueError as error:
            raise SourceError(f"{address}: ** has to stand alone between slashes; correct source.path") from error
    # Only what the listing has added: `a/_part*` asks for such names itself.
    is_hidden = re.compile(r"(?:^|/)[_.]").search
    start = prefix.rfind("/") if prefix.endswith("/") else len(prefix)
    return lambda key: not key.endswith("/") and is_meant(key) is not None and not is_hidden(key, max(start, 0))
