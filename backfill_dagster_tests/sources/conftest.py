"""Lists on S3 for a test, and the service behind a proxy that makes trouble."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backfill_dagster_tests.aws.proxy import Proxy, proxied
from backfill_dagster_tests.sources.s3_place import Lists


@pytest.fixture
def lists(moto: str, bucket: str) -> Lists:
    return Lists(bucket, moto)


@pytest.fixture
def proxy(moto: str) -> Iterator[Proxy]:
    with proxied(moto) as made:
        yield made
