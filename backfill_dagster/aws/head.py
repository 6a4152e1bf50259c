"""A look at an object of S3. The answer to HEAD has no body, so whatever goes wrong, S3 can't say what it is."""

from __future__ import annotations

from typing import Any

_GONE = ("NoSuchKey", "404", "NotFound")


def head_object(client: Any, bucket: str, key: str) -> Any:
    """What S3 says of an object; None: it isn't there (or, without the right to list, its bucket isn't).

    An error that is no more than a number (400 for credentials that have expired, 403 for a wrong secret key) is asked
    about again by a listing of one key, whose answer has words.

    Args:
        client: boto3's for S3.
        bucket: the bucket.
        key: the whole key.

    Raises:
        botocore.exceptions.ClientError, BotoCoreError: as the service says.
    """
    try:
        return client.head_object(Bucket=bucket, Key=key)
    except client.exceptions.ClientError as error:
        code = error.response["Error"]["Code"]
        if code in _GONE:
            return None
        if code.isdecimal():
            client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        raise
