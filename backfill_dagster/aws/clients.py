"""boto3 clients for S3 and DynamoDB, bounded in time and tries.

Credentials, region and endpoint are found as AWS' tools find them (environment, profile, role); the config's own region
and endpoint go first. boto3 is imported when the first client is made: it takes a third of a second, and most commands
need none.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal
from urllib.parse import urlsplit

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


@dataclass(frozen=True, slots=True)
class AwsBounds:
    """How long a client waits for an answer, and how often it asks.

    Attributes:
        connect_seconds: for a connection.
        read_seconds: for the next bytes of an answer.
        attempts_max: of one request, the first among them; waits between them grow to 20 s.
    """

    connect_seconds: float = CONNECT_SECONDS
    read_seconds: float = READ_SECONDS
    attempts_max: int = ATTEMPTS_MAX


def aws_client(service: AwsService, place: AwsPlace, bounds: AwsBounds | None = None) -> Any:
    """The process's client of a service in a place, within these bounds; for any thread. Asks no server yet.

    Raises:
        botocore.exceptions.BotoCoreError: no region, a profile that isn't there, an endpoint that is no address
            (`aws_errors` says it in one line).
    """
    with _making:  # making a client isn't safe in several threads at once, using it is
        environ = frozenset(one for one in os.environ.items() if one[0].startswith("AWS_"))
        return _client(service, place, bounds or AwsBounds(), environ)


@cache
def _session(environ: frozenset[tuple[str, str]]) -> Any:
    """One for all clients of an environment: a second client takes 7 ms, not 100, and credentials are found once."""
    import boto3

    return boto3.session.Session()


@cache
def _client(service: AwsService, place: AwsPlace, bounds: AwsBounds, environ: frozenset[tuple[str, str]]) -> Any:
    """One client for each environment that there has been: what boto3 makes of it is settled when a client is made."""
    from botocore.config import Config

    options: dict[str, Any] = {
        "connect_timeout": bounds.connect_seconds,
        "read_timeout": bounds.read_seconds,
        "retries": {"mode": "standard", "total_max_attempts": bounds.attempts_max},
        "max_pool_connections": CONNECTIONS_MAX,
        "user_agent_appid": "backfill-dagster",
    }
    if service == "dynamodb":
        # boto3's look at every attribute takes three quarters of what it spends on an item; the service looks too.
        options["parameter_validation"] = False
    session = _session(environ)
    # What Amazon's other tools read, and what its machines set, boto3 doesn't.
    region = place.region or session.region_name or os.environ.get("AWS_REGION")

    def make(**more: Any) -> Any:
        with _endpoint_named(service, place):
            made = session.client(
                service, region_name=region, endpoint_url=place.endpoint_url, config=Config(**options, **more)
            )
            _check_endpoint(service, made.meta.endpoint_url)
            return made

    client = make()
    if service == "s3" and "amazonaws.com" not in client.meta.endpoint_url:
        # Elsewhere a bucket has rarely a host name of its own.
        client.close()
        return make(s3={"addressing_style": "path"})
    return client


@contextmanager
def _endpoint_named(service: AwsService, place: AwsPlace) -> Iterator[None]:
    """A ValueError in the block, by which boto3 refuses an endpoint, becomes one that says where it is set.

    It says no more: there may be a password in what is set.
    """
    from botocore.exceptions import BotoCoreError, InvalidEndpointConfigurationError

    try:
        yield
    except BotoCoreError:
        raise  # some of them are ValueErrors too
    except ValueError:
        of_service = f"AWS_ENDPOINT_URL_{service.upper()}"
        in_environ = (name for name in (of_service, "AWS_ENDPOINT_URL") if os.environ.get(name))
        where = "endpoint_url" if place.endpoint_url else next(in_environ, "endpoint_url of the AWS profile")
        kind = f"without {'path, ' if service == 's3' else ''}user, query and fragment"
        raise InvalidEndpointConfigurationError(msg=f"{where} is no http:// or https:// URL {kind}") from None


def _check_endpoint(service: AwsService, url: str) -> None:
    """Refuse what boto3 takes all the same. A path would get lost on the way to pyarrow's client.

    A user with a password would stand in the name of every table and in errors, and no service of AWS asks for one.

    Raises:
        ValueError: it is no address, or has more in it than one.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.port == 0:  # no port at all is a ValueError by itself
        raise ValueError
    if re.search(r"[\s@?#\\]", url):
        raise ValueError
    if service == "s3" and parts.path.strip("/"):
        raise ValueError
