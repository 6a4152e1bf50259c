"""Whether a store keeps the one promise that everything rests on: put-if-absent has exactly one winner."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from backfill_dagster.aws import AwsError
from backfill_dagster.errors import StateError
from backfill_dagster.store.base import ObjectStore

PROBE_PREFIX = "probe/"

_kept_their_word: set[str] = set()
"""Identities of the stores that this process has asked."""

_UNKNOWN_THERE = ("NotImplemented", "501")
"""What a service calls a header that it doesn't know; others say 400 and name it."""

_REMEDY = "use a local folder, or an S3 server that honours If-None-Match"


def check_once(store: ObjectStore, unique: Callable[[], str]) -> None:
    """As `check_put_if_absent`, unless this process has asked the store before."""
    if store.identity not in _kept_their_word:
        check_put_if_absent(store, unique)
        _kept_their_word.add(store.identity)


def check_put_if_absent(store: ObjectStore, unique: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
    """Create an object twice under a fresh key, look which one stayed, and delete it.

    Raises:
        StateError: the store can't create objects, refuses or ignores put-if-absent, or doesn't give back what was
            written.
    """
    key = f"{PROBE_PREFIX}{unique()}"
    _create(store, key, b"first")  # what it says may follow a lost reply; what stays tells
    try:
        second = _create(store, key, b"second")
        kept = store.get(key)
    finally:
        store.delete(key)
    if second or kept != b"first":
        raise StateError(
            f"{store.uri} ignores put-if-absent (an object was created {'twice' if second else 'and is another one'}), "
            f"so two runs could overwrite each other's log; {_REMEDY}"
        )


def _create(store: ObjectStore, key: str, data: bytes) -> bool:
    try:
        return store.put_if_absent(key, data)
    except AwsError as error:
        if error.code in _UNKNOWN_THERE or "if-none-match" in str(error).lower():
            raise StateError(
                f"{store.uri} knows no put-if-absent ({error.code}), so two runs could overwrite each other's log; "
                f"{_REMEDY}"
            ) from error
        raise
