"""boto3 clients for S3 and DynamoDB, bounded in time and tries.

Credentials, region and endpoint are found as AWS' tools find them (environment, profile, role); the config's own region
and endpoint go first. boto3 is imported when the first client is made: it takes a third of a second, and most commands
need none.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

AwsService = Literal["s3", "dynamodb"]

CONNECT_SECONDS = 10
READ_SECONDS = 60
ATTEMPTS_MAX = 10
"""With three, one throttled request in three loses writes to an exception; with ten, none was seen to."""

CONNECTIONS_MAX = 32

_making = threading.Lock()


@dataclass(frozen=True, slots=True)
class AwsPlace:
    """Where a service is.

    Attributes:
        region: AWS region; None: from the AWS environment.
        endpoint_url: address of another service that speaks the same protocol; None: from the AWS environment.
    """

    region: str | None = None
    endpoint_url: str | None = None


def aws_client(service: AwsService, place: AwsPlace) -> Any:
    """The process's client of a service in a place; for any thread. Asks no server yet.

    Raises:
        botocore.exceptions.BotoCoreError: no region, a profile that isn't there (`aws_errors` says it in one line).
    """
    with _making:  # making a client isn't safe in several threads at once, using it is
        return _client(service, place, frozenset(one for one in os.environ.items() if one[0].startswith("AWS_")))


@cache
def _client(service: AwsService, place: AwsPlace, environ: frozenset[tuple[str, str]]) -> Any:
    """One client for each environment that there has been: what boto3 makes of it is settled when a client is made."""
    import boto3
    from botocore.config import Config

    options: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS_MAX},
        "max_pool_connections": CONNECTIONS_MAX,
        "user_agent_appid": "backfill-dagster",
    }
    session = boto3.session.Session()

    def make(**more: Any) -> Any:
        return session.client(
            service, region_name=place.region, endpoint_url=place.endpoint_url, config=Config(**options, **more)
        )

    client = make()
    if service == "s3" and "amazonaws.com" not in client.meta.endpoint_url:
        # Elsewhere a bucket has rarely a host name of its own.
        client.close()
        return make(s3={"addressing_style": "path"})
    return client
