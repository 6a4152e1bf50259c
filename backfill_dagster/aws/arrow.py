"""pyarrow's S3 client where boto3's would go: the same endpoint, region and credentials, whoever found them.

pyarrow reads Parquet from S3 several times as fast as Python could, and boto3 knows every way to credentials.
"""

from __future__ import annotations

import re
import threading
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from backfill_dagster.aws.clients import CONNECT_SECONDS, READ_SECONDS, AwsPlace, aws_client
from backfill_dagster.aws.named import NamedReads
from backfill_dagster.aws.problems import aws_errors

_ATTEMPTS_MAX = 10

_DEFAULT_HOST = re.compile(r"s3(?:\.[a-z0-9\-]+)?\.amazonaws\.com(?:\.cn)?(?::443)?")
"""Where pyarrow goes by itself, by the region. Not the hosts of FIPS, dual stack or a VPC: those it is told."""


class ArrowS3:
    """Makes pyarrow's file system anew whenever boto3's credentials have been renewed."""

    def __init__(self, place: AwsPlace) -> None:
        self._place = place
        self._made: tuple[Any, pafs.S3FileSystem] | None = None
        self._lock = threading.Lock()

    def filesystem(self) -> pafs.S3FileSystem:
        """The file system with credentials that are good now; paths are `bucket/key`.

        Raises:
            AwsError: no credentials, no region.
        """
        with self._lock, aws_errors("open S3"):
            client = aws_client("s3", self._place)
            credentials = client._request_signer._credentials
            frozen = None if credentials is None else credentials.get_frozen_credentials()
            if self._made is None or self._made[0] != frozen:
                self._made = frozen, _filesystem(client, frozen)
            return self._made[1]

    def named(self) -> NamedReads:
        """The same for DuckDB (`S3Files`): errors name the object that was read. AwsError as `filesystem`."""
        return NamedReads(self.filesystem())


def _filesystem(client: Any, credentials: Any) -> pafs.S3FileSystem:
    endpoint = urlsplit(client.meta.endpoint_url)
    options: dict[str, Any] = {
        "region": _region(client),
        "scheme": endpoint.scheme,
        "connect_timeout": CONNECT_SECONDS,
        "request_timeout": READ_SECONDS,
        "retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS_MAX),
    }
    if _DEFAULT_HOST.fullmatch(endpoint.netloc) is None:
        options["endpoint_override"] = endpoint.netloc
    if credentials is None:
        return pafs.S3FileSystem(anonymous=True, **options)
    return pafs.S3FileSystem(
        access_key=credentials.access_key,
        secret_key=credentials.secret_key,
        session_token=credentials.token,
        **options,
    )


def _region(client: Any) -> str:
    region: str = client.meta.region_name
    return "us-east-1" if region in (None, "aws-global") else region
