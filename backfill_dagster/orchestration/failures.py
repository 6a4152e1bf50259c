"""From this project's errors to what a person sees on a failed run: one text, no traceback, no blind retries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from backfill_dagster.errors import BackfillError


@contextmanager
def clear_failures() -> Iterator[None]:
    """Turn a `BackfillError` into a Dagster failure with its text.

    Everything else passes: defects keep their traceback, and a termination (a BaseException) has to reach Dagster.

    Raises:
        dagster.Failure: the block raised a BackfillError.
    """
    try:
        yield
    except BackfillError as error:
        raise dg.Failure(
            description=str(error), metadata={"error": type(error).__name__}, allow_retries=False
        ) from None
