"""Opens what plan and shard runs talk through: sessions, the host's client and limiters, the identity directory."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from backfill_dagster.identity import Directory, open_resolver
from backfill_dagster.ledger import lock_folder
from backfill_dagster.net import HostLimiter, Timeouts, TotalLimiter, check_endpoint, open_session
from backfill_dagster.pds import PdsClient
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.brake import Brake
from backfill_dagster.worker.repo import RepoFetcher
from backfill_dagster.worker.result import RunNumbers

IDENTITY_CACHE = "identity.sqlite"
TOTAL_RATE_FILE = "requests.clock"


def open_directory(state: BackfillState) -> AbstractAsyncContextManager[Directory]:
    """What knows DIDs and handles, with the documents cached on this machine."""
    config = state.config
    return open_resolver(
        plc_url=config.identity.plc_url,
        requests_per_second=config.identity.requests_per_second,
        cache_path=_identity_cache(state),
        cache_days=config.identity.cache_days,
        handle_resolver=config.identity.handle_resolver,
        allow_private_hosts=config.processing.allow_private_hosts,
        contact=config.processing.user_agent_contact,
        max_retries=config.processing.max_retries,
        effects=state.effects,
    )


@asynccontextmanager
async def open_fetcher(
    state: BackfillState, pds_endpoint: str, brake: Brake, numbers: RunNumbers
) -> AsyncIterator[RepoFetcher]:
    """A fetcher for one host; connections are closed at the end.

    Raises:
        RefusedHostError: the endpoint is one that this project doesn't talk to.
    """
    processing = state.config.processing
    origin = check_endpoint(pds_endpoint, processing.allow_private_hosts)
    async with (
        open_session(
            contact=processing.user_agent_contact,
            allow_private_hosts=processing.allow_private_hosts,
            timeouts=Timeouts(**processing.timeouts.model_dump()),
        ) as session,
        open_directory(state) as directory,
    ):
        client = PdsClient(
            session, origin, max_repo_bytes=processing.max_repo_mib * 1024 * 1024, clock=state.effects.clock
        )
        yield RepoFetcher(
            state.config,
            client,
            HostLimiter(processing.requests_per_second, state.effects),
            _total_limiter(state),
            directory.resolver,
            state.effects,
            numbers,
            brake,
        )


def _identity_cache(state: BackfillState) -> Path:
    """In the state folder; where the state is on S3, one for each backfill beside this machine's host leases."""
    if isinstance(state.config.state_path, Path):
        return state.config.state_path / IDENTITY_CACHE
    return lock_folder(os.environ) / f"{state.config.name}.{IDENTITY_CACHE}"


def _total_limiter(state: BackfillState) -> TotalLimiter:
    """One pace for all runs of the machine, kept in a file beside the host leases."""
    rate = state.config.processing.total_requests_per_second
    shared = lock_folder(os.environ) / TOTAL_RATE_FILE if rate else None
    return TotalLimiter(rate, state.effects, shared)
