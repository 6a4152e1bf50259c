"""One PDS host's read-only methods."""

from backfill_dagster.pds.client import LatestCommit, PdsClient, RepoStatus

__all__ = ["LatestCommit", "PdsClient", "RepoStatus"]
