"""Base URLs of services that the config names: the user's own choice, so they may be private, but must be origins."""

from __future__ import annotations

from backfill_dagster.errors import RefusedHostError, UsageError
from backfill_dagster.net import check_endpoint


def service_url(url: str, key: str) -> str:
    """The normalised URL without a trailing slash; UsageError that names the config's key when it is no origin."""
    try:
        return check_endpoint(url, allow_private=True).url
    except RefusedHostError as error:
        raise UsageError(f"{key}: {error}; use http(s)://host[:port]") from error
