"""When only what is newer than the last fetch is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.config import BackfillConfig, load_config
from backfill_dagster.model import Outcome, RepoOutcome, Wanted
from backfill_dagster.records.fold import Fold
from backfill_dagster.worker.delta import delta_base
from backfill_dagster_tests.atproto.build_repo import DID
from backfill_dagster_tests.records.fake_repo import REV
from backfill_dagster_tests.road import write_config

SCOPE = "0123456789abcdef"
WANTED = Wanted(SCOPE, 3)
COMPLETE = RepoOutcome(
    did=DID,
    outcome=Outcome.COMPLETE,
    scope=SCOPE,
    rows_scope=SCOPE,
    rev=REV,
    last_complete_rev=REV,
    commit_cid="bafyreia",
    signature_checked=True,
)


def config_of(folder: Path, **processing: Any) -> BackfillConfig:
    return load_config(write_config(folder, "http://127.0.0.1:1", [DID], processing=processing))


def base_of(folder: Path, result: RepoOutcome, **processing: Any) -> RepoOutcome | None:
    fold = Fold(dids={result.did: (result, 1)})
    return delta_base(config_of(folder, **processing), fold, DID, WANTED)


@pytest.mark.parametrize(
    "result",
    [
        COMPLETE,
        replace(COMPLETE, outcome=Outcome.UNCHANGED, refresh=2),
        replace(COMPLETE, outcome=Outcome.HTTP_ERROR, error_code="x", rev=None),
        replace(COMPLETE, outcome=Outcome.DEACTIVATED, rev=None),
    ],
)
def test_rows_of_a_complete_fetch_are_a_base(folder: Path, result: RepoOutcome) -> None:
    assert base_of(folder, result) == result


@pytest.mark.parametrize(
    "changes",
    [
        {"scope": "fedcba9876543210"},
        {"rows_scope": "fedcba9876543210"},
        {"rows_scope": ""},
        {"last_complete_rev": None},
        {"last_complete_rev": ""},
        {"last_complete_rev": "not a TID"},
        {"commit_cid": None},
        {"signature_checked": False},
        {"signature_checked": False, "outcome": Outcome.HTTP_ERROR},
        {"did": "did:plc:another"},
    ],
)
def test_what_is_no_base(folder: Path, changes: dict[str, Any]) -> None:
    assert base_of(folder, replace(COMPLETE, **changes)) is None


def test_whole_repos_if_the_config_says_so(folder: Path) -> None:
    assert base_of(folder, COMPLETE, fetch="full") is None


@pytest.mark.parametrize("verify", ["structure", "off"])
def test_signatures_matter_only_where_they_are_checked(folder: Path, verify: str) -> None:
    unchecked = replace(COMPLETE, signature_checked=False)
    assert base_of(folder, unchecked, verify=verify) == unchecked
