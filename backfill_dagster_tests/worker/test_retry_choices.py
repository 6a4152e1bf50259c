"""Who fits what `backfill retry` is asked for: by outcome, host, error and age, each alone and together."""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.localnet import Fault
from backfill_dagster.model import Outcome, RepoOutcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.purges import PurgeLog
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.retry import Choice, mark_for_retry
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.worker.refreshes import run
from backfill_dagster_tests.worker.telling import heard, marks, state_at
from backfill_dagster_tests.worker.tiny import tiny

HOUR = 3600

PEOPLE = ["unknown", "gone", "old a", "old b", "deleted", "broken", "deactivated"]
PEOPLE += ["taken down", "tombstoned", "error", "young", "purged", "no did"]
"""Who is who in the network of the table below, in its order; the even ones live on host a, the odd ones on b."""

UNRELIABLE = {"max_retries": 0, "batch_size": 20}
A, B = "a", "b"

OLD = timedelta(hours=6)

Choices = dict[str, Any]

CHOICES: list[tuple[Choices, set[str], int | None]] = [
    # what is asked for; who is marked; requests to hosts that the next run makes, "error" anyway (None: not run)
    ({}, {"unknown", "deleted", "broken", "deactivated", "taken down", "tombstoned", "error", "no did"}, 5),
    ({"outcomes": {Outcome.COMPLETE}}, {"old a", "old b", "young"}, 4),
    ({"outcomes": {Outcome.HTTP_ERROR}}, {"error"}, None),
    ({"outcomes": {Outcome.NOT_FOUND, Outcome.UNRESOLVABLE}}, {"deleted", "unknown", "tombstoned"}, None),
    ({"hosts": {A}}, {"deleted", "deactivated"}, None),
    ({"hosts": {B}, "outcomes": {Outcome.COMPLETE}}, {"old b"}, None),
    ({"hosts": {A, B}}, {"deleted", "broken", "deactivated", "taken down", "error"}, None),
    ({"errors": {"RepoDeactivated"}}, {"deactivated"}, None),
    ({"errors": {"DidNotFound", "ServerFault", "RepoNotFound"}}, {"unknown", "error", "deleted"}, None),
    ({"min_age": OLD}, {"unknown", "deleted", "broken", "deactivated", "taken down", "tombstoned", "no did"}, None),
    ({"min_age": OLD, "outcomes": {Outcome.COMPLETE}}, {"old a", "old b"}, None),
    ({"min_age": OLD, "outcomes": {Outcome.COMPLETE}, "hosts": {A}}, {"old a"}, None),
    ({"min_age": OLD, "errors": {"ServerFault", "RepoTakendown"}, "hosts": {B}}, {"taken down"}, 2),
    ({"outcomes": set(Outcome)}, set(PEOPLE) - {"gone", "purged"}, 8),
]

NOBODYS: list[Choices] = [
    {"outcomes": {Outcome.PURGED}},
    {"outcomes": {Outcome.PENDING, Outcome.MOVED, Outcome.TOO_LARGE}},
    {"errors": {"RepoDeactivated"}, "outcomes": {Outcome.COMPLETE, Outcome.NOT_FOUND}},
    {"errors": {"DidNotFound"}, "hosts": {A, B}},
    {"min_age": timedelta(days=1)},
    {"min_age": timedelta.max},
]


async def test_who_fits_each_choice_and_what_the_next_run_makes_of_it(folder: Path) -> None:
    """One state that has everything, copied for each row of the table."""
    states = {"deactivated": 1, "takendown": 1, "deleted": 1, "tombstoned": 1, "unknown": 1, "not_a_did": 1}
    async with tiny(repos=12, hosts=2, states=states) as network:
        dids = dict(zip(PEOPLE, network.dids, strict=True))
        names = {did: name for name, did in dids.items()}
        host = {
            name: f"localhost_{info.url.rpartition(':')[2]}" for name, info in zip("ab", network.hosts, strict=True)
        }
        broken = [Fault(kind="truncate_body", did=dids["broken"]), Fault(kind="status", did=dids["error"])]
        await network.set_faults(broken)
        time = InstantTime()
        before_young = [did for did in network.dids if did != dids["young"]]
        with state_at(folder, network, time, before_young, processing=UNRELIABLE) as state:
            await run(state)
        time.now += 10 * HOUR
        without_gone = [did for did in network.dids if did != dids["gone"]]
        with state_at(folder, network, time, without_gone, processing=UNRELIABLE) as state:
            PurgeLog(state.store).append([dids["purged"]], [], at="", by="", reason="")
            await run(state)
        time.now += 2 * HOUR

        def mark(state: BackfillState, asked: Choices) -> set[str]:
            hosts = {host[name] for name in asked.get("hosts", ())}
            counts = mark_for_retry(state, PlanStore(state.store).read(), **{**asked, "hosts": hosts})
            marked = marks(state, names)
            assert counts == Counter(Outcome(heard(state)[dids[name]][-1].outcome) for name in marked)
            assert all(seq >= heard(state)[dids[name]][-1].seq for name, seq in marked.items())
            return set(marked)

        found = []
        for number, (asked, _, is_run) in enumerate(CHOICES):
            copy = folder / f"copy{number}"
            shutil.copytree(folder / "data", copy / "data")
            with state_at(copy, network, time, without_gone, processing=UNRELIABLE) as state:
                before, marked, requests = heard(state), mark(state, asked), network.pds_requests()
                found.append((asked, marked, None))
                if is_run:
                    await run(state)
                    after = heard(state)
                    assert {name for name, did in dids.items() if after[did] != before[did]} == marked | {"error"}
                    assert set(marks(state, names)) <= {"error"}, "nobody has answered that one yet"
                    found[-1] = (asked, marked, network.pds_requests() - requests)
        assert found == CHOICES
        with state_at(folder, network, time, without_gone, processing=UNRELIABLE) as state:
            assert [(asked, mark(state, asked)) for asked in NOBODYS] == [(asked, set()) for asked in NOBODYS]


@pytest.mark.parametrize(
    ("finished_at", "min_age", "fits"),
    [
        ("2027-01-15T08:00:00.000Z", timedelta(hours=12), True),
        ("2027-01-15T08:00:00.001Z", timedelta(hours=12), False),
        ("2027-01-15T20:00:00.000Z", timedelta(0), True),
        ("2027-01-15T20:00:00.001Z", timedelta(0), False),  # a clock that was set back since
        ("2027-01-15T20:00:00.001Z", None, True),
        (None, timedelta(0), False),
        (None, None, True),
        ("0001-01-01T00:00:00.000Z", timedelta.max, False),
    ],
)
def test_how_old_an_attempt_is(finished_at: str | None, min_age: timedelta | None, fits: bool) -> None:
    now = datetime(2027, 1, 15, 20, tzinfo=UTC)
    result = RepoOutcome(did="did:plc:x", outcome=Outcome.HTTP_ERROR, finished_at=finished_at)
    assert Choice(min_age=min_age).has(result, now) is fits
