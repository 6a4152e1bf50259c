"""Conditional writes that meet another one on the same key: S3 says 409 and wants to be asked again, a little later.

Mostly the other one is one's own: a try whose reply got lost, still under way.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

T = TypeVar("T")

CONFLICTS = ("ConditionalRequestConflict", "OperationAborted")

WAITS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, *(4.0,) * 6)
"""Seconds between the tries: half a minute, which is more than a lost request takes to end."""


def patiently(
    request: Callable[[], T], sleep: Callable[[float], object], *, again_on: Collection[str] = CONFLICTS
) -> T:
    """What `request` returns, which is called again after each error that passes.

    Args:
        request: starts from the beginning every time.
        sleep: waits between two tries.
        again_on: the service's names of the errors that pass.

    Raises:
        botocore.exceptions.ClientError: another one, or the last of too many. Its `RetryAttempts` count the tries made
            here too: an answer to the last try says nothing of the ones before.
    """
    from botocore.exceptions import ClientError

    for tries, wait in enumerate((*WAITS, None)):
        try:
            return request()
        except ClientError as error:
            if wait is None or error.response["Error"]["Code"] not in again_on:
                told = error.response.setdefault("ResponseMetadata", {})
                told["RetryAttempts"] = told.get("RetryAttempts", 0) + tries
                raise
        sleep(wait)
    raise AssertionError("unreachable")
