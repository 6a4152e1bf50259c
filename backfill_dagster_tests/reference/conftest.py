"""The reference servers, once for all tests of a process: they take seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backfill_dagster_tests.reference.servers import ReferenceServers, need_reference_pds, running_servers


@pytest.fixture(scope="session")
def servers() -> Iterator[ReferenceServers]:
    """A PLC directory and a PDS, so each account's name is used once; skips where they aren't wanted or installed."""
    need_reference_pds()
    with running_servers() as running:
        yield running
