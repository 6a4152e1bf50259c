"""What every ledger has to do. A test module subclasses this and gives `make_ledger`, which opens a backfill's ledger.

`ComparingContract` is for those that compare before they write.
Ledgers made in one test lie over the same storage, as those of several processes do.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backfill_dagster.errors import StateError
from backfill_dagster.ledger import LeaseRecord, Ledger, Settled, ShardSummary, outcome_counts
from backfill_dagster.model import LedgerItem, Outcome, RepoOutcome, Wanted

MakeLedger: TypeAlias = Callable[[str], Ledger]

SHARD = "pds.example~0000"
OTHER = "pds.example~0001"

FULL = RepoOutcome(
    did="did:plc:full",
    outcome=Outcome.HTTP_ERROR,
    scope="0123456789abcdef",
    refresh=2,
    pds_endpoint="https://pds.example",
    handle="alice.example",
    rev="3k2a",
    commit_cid="bafyreia",
    last_complete_rev="3k29",
    signature_checked=True,
    repo_bytes=2**40,
    records_by_type={"post": 3, "like": 4},
    rows_scope="fedcba9876543210",
    records_seen_by_collection={"app.bsky.feed.post": 3},
    undated=1,
    quarantined=2,
    attempts=4,
    http_status=503,
    error_code="UpstreamFailure",
    error_detail='it\'s "down" — ünïcode',
    error_headers={"retry-after": "30"},
    error_body_sha256="ab" * 32,
    fetched_at="2026-11-23T19:00:00.000Z",
    finished_at="2026-11-23T19:00:01.500Z",
    run_id="run1",
    config_hash="cafe",
    code_version="0.1.0",
)


def item(did: str, seq: int, outcome: Outcome = Outcome.COMPLETE, shard: str = SHARD, **more: Any) -> LedgerItem:
    return LedgerItem(backfill="study", shard=shard, seq=seq, result=RepoOutcome(did=did, outcome=outcome, **more))


def lease(beat: int = 0, **changes: Any) -> LeaseRecord:
    fields: dict[str, Any] = {
        "name": f"study/{SHARD}",
        "epoch": 1,
        "owner_text": "run r, pid 1 on h",
        "run_id": "r",
        "token": "t",
        "beat": beat,
        "lease_seconds": 60.5,
        "pid": 1,
        "boot_id": "b",
        "pid_namespace": "pid:[1]",
        "pid_started": 7,
    }
    return LeaseRecord(**(fields | changes))


class LedgerContract:
    """The contract of `Ledger`."""

    @pytest.fixture
    def ledger(self, make_ledger: MakeLedger) -> Ledger:
        return make_ledger("study")

    def test_an_empty_ledger_has_nothing(self, ledger: Ledger) -> None:
        assert list(ledger.items(SHARD)) == []
        assert ledger.item(SHARD, "did:plc:a") is None
        assert ledger.find("did:plc:a") == []
        assert ledger.seqs(SHARD) == {}
        assert ledger.summaries() == {}
        assert ledger.attention(Outcome.HTTP_ERROR, 10) == []
        assert ledger.retry_marks(SHARD) == {}
        assert ledger.state_id() is None
        assert ledger.leases.read("study/x") is None

    def test_an_item_comes_back_whole(self, ledger: Ledger) -> None:
        full = LedgerItem(backfill="study", shard=SHARD, seq=7, result=FULL)
        bare = item("did:plc:bare", 8, Outcome.PENDING)
        ledger.put([full, bare])
        assert ledger.item(SHARD, "did:plc:full") == full
        assert ledger.item(SHARD, "did:plc:bare") == bare

    def test_a_later_item_replaces_an_earlier_one(self, ledger: Ledger) -> None:
        ledger.put([item("did:plc:a", 5, rev="five", http_status=500), item("did:plc:b", 4)])
        ledger.put([item("did:plc:a", 6, rev="six")])
        assert ledger.seqs(SHARD) == {"did:plc:a": 6, "did:plc:b": 4}
        assert list(ledger.items(SHARD)) == [item("did:plc:a", 6, rev="six"), item("did:plc:b", 4)]

    def test_over_the_item_that_is_named_and_no_other(self, ledger: Ledger) -> None:
        ledger.put([item("did:plc:a", 5, rev="wrong"), item("did:plc:b", 5, rev="wrong")])
        mended = [item("did:plc:a", 3, rev="right"), item("did:plc:b", 3), item("did:plc:c", 3, rev="new")]
        ledger.put(mended, over={"did:plc:a": 5, "did:plc:b": 4})
        assert [(one.seq, one.result.rev) for one in ledger.items(SHARD)] == [(3, "right"), (5, "wrong"), (3, "new")]
        ledger.put([item("did:plc:c", 9)], over={})
        assert ledger.seqs(SHARD)["did:plc:c"] == 3, "where there is one and none was named"

    def test_an_item_of_common_size_is_kept_as_it_is(self, ledger: Ledger) -> None:
        full = LedgerItem(backfill="study", shard=SHARD, seq=7, result=FULL)
        assert ledger.as_kept(full) == full

    def test_of_one_batch_the_highest_seq_stays(self, ledger: Ledger) -> None:
        ledger.put([item("did:plc:a", 2), item("did:plc:a", 9), item("did:plc:a", 3)])
        assert ledger.seqs(SHARD) == {"did:plc:a": 9}

    def test_putting_nothing_is_fine(self, ledger: Ledger) -> None:
        ledger.put([])
        assert list(ledger.items(SHARD)) == []

    def test_another_backfills_item_is_refused(self, ledger: Ledger) -> None:
        stranger = LedgerItem(backfill="other", shard=SHARD, seq=1, result=FULL)
        with pytest.raises(ValueError, match=r"items of \['other'\] for the ledger of study"):
            ledger.put([stranger])
        assert ledger.seqs(SHARD) == {}

    def test_items_of_a_shard_come_by_did_over_many_pages(self, ledger: Ledger) -> None:
        dids = [f"did:plc:{number:05d}" for number in range(2500)]
        ledger.put([item(did, 1) for did in reversed(dids)])
        ledger.put([item("did:plc:elsewhere", 1, shard=OTHER)])
        assert [one.result.did for one in ledger.items(SHARD)] == dids
        assert ledger.seqs(SHARD) == dict.fromkeys(dids, 1)

    def test_a_reader_does_not_hold_up_a_writer(self, make_ledger: MakeLedger) -> None:
        reader, writer = make_ledger("study"), make_ledger("study")
        writer.put([item(f"did:plc:{number:05d}", 1) for number in range(1500)])
        reading = reader.items(SHARD)
        first = next(reading)
        writer.put([item("did:plc:01499", 2)])
        assert (first.result.did, [one.seq for one in reading][-1]) == ("did:plc:00000", 2)

    @pytest.mark.parametrize("did", ["", "not a did", "did:plc:" + "x" * 3000, "did:ü", "a'b\"c%_", "a\x00b"])
    def test_odd_dids_are_items_too(self, ledger: Ledger, did: str) -> None:
        odd = item(did, 1, Outcome.INVALID_DID)
        ledger.put([odd])
        assert ledger.item(SHARD, did) == odd
        assert list(ledger.items(SHARD)) == [odd]
        assert ledger.find(did) == [odd]

    def test_find_names_every_shard_that_a_did_was_in(self, ledger: Ledger) -> None:
        there, here = item("did:plc:a", 3, Outcome.MOVED, shard=OTHER), item("did:plc:a", 1)
        ledger.put([there, here, item("did:plc:b", 1)])
        assert ledger.find("did:plc:a") == [here, there]

    def test_summaries(self, ledger: Ledger) -> None:
        first = ShardSummary(outcomes={"complete": 3, "http_error": 1}, rows={"post": 10}, seq=4)
        ledger.put_summary(SHARD, first)
        ledger.put_summary(OTHER, ShardSummary(seq=1))
        assert ledger.summaries() == {SHARD: first, OTHER: ShardSummary(seq=1)}
        ledger.put_summary(SHARD, ShardSummary(outcomes={"complete": 9}, seq=3))
        assert ledger.summaries()[SHARD] == first
        same_seq = ShardSummary(outcomes={"complete": 4}, rows={"post": 10}, seq=4)
        ledger.put_summary(SHARD, same_seq)
        assert ledger.summaries()[SHARD] == same_seq

    def test_a_summary_says_what_is_settled(self, ledger: Ledger) -> None:
        settled = ShardSummary(seq=4, settled=Settled(Wanted("scope", 2), 7))
        ledger.put_summary(SHARD, settled)
        ledger.put_summary(OTHER, ShardSummary(seq=4))
        assert ledger.summaries() == {SHARD: settled, OTHER: ShardSummary(seq=4)}
        ledger.put_summary(SHARD, ShardSummary(seq=3, settled=Settled(Wanted("older", 1), 6)))
        assert ledger.summaries()[SHARD] == settled
        ledger.put_summary(SHARD, ShardSummary(seq=4))
        assert ledger.summaries()[SHARD].settled is None
        ledger.put_summary(SHARD, settled)
        ledger.put_summary(SHARD, ShardSummary(seq=9))
        assert ledger.summaries()[SHARD] == ShardSummary(seq=9)

    def test_attention_by_outcome(self, ledger: Ledger) -> None:
        ledger.put([item(f"did:plc:{n}", 1, Outcome.HTTP_ERROR) for n in (3, 1, 2)])
        ledger.put([item("did:plc:0", 1, Outcome.TOO_LARGE), item("did:plc:9", 1)])
        ledger.put([item("did:plc:2", 2, Outcome.COMPLETE)])
        assert [one.result.did for one in ledger.attention(Outcome.HTTP_ERROR, 10)] == ["did:plc:1", "did:plc:3"]
        assert [one.result.did for one in ledger.attention(Outcome.HTTP_ERROR, 1)] == ["did:plc:1"]
        assert ledger.attention(Outcome.NOT_FOUND, 10) == []
        for outcome in (Outcome.COMPLETE, Outcome.UNCHANGED):
            with pytest.raises(ValueError, match=f"{outcome.value} needs no attention"):
                ledger.attention(outcome, 10)

    def test_retry_marks_change_no_item(self, ledger: Ledger) -> None:
        ledger.put([item("did:plc:a", 3, Outcome.HTTP_ERROR), item("did:plc:b", 4)])
        ledger.mark_for_retry(SHARD, {})
        ledger.mark_for_retry(SHARD, {"did:plc:a": 3, "did:plc:b": 4})
        assert ledger.retry_marks(SHARD) == {"did:plc:a": 3, "did:plc:b": 4}
        assert ledger.retry_marks(OTHER) == {}
        assert ledger.seqs(SHARD) == {"did:plc:a": 3, "did:plc:b": 4}
        ledger.mark_for_retry(SHARD, {"did:plc:a": 2, "did:plc:b": 5})
        assert ledger.retry_marks(SHARD) == {"did:plc:a": 3, "did:plc:b": 5}

    def test_which_shards_have_marks(self, make_ledger: MakeLedger) -> None:
        ledger, other = make_ledger("study"), make_ledger("other")
        assert ledger.marked_shards() == set()
        ledger.put([item("did:plc:a", 3, Outcome.HTTP_ERROR)])
        ledger.mark_for_retry(SHARD, {"did:plc:a": 3})
        other.mark_for_retry(OTHER, {"did:plc:a": 1})
        assert ledger.marked_shards() == {SHARD}
        ledger.put([item("did:plc:a", 4)])
        ledger.clear_marks(SHARD, ["did:plc:a"])
        assert ledger.marked_shards() == set()

    def test_only_answered_marks_are_cleared(self, ledger: Ledger) -> None:
        dids = ["did:plc:a", "did:plc:b", "did:plc:c", "did:plc:d"]
        ledger.put([item(did, 3, Outcome.HTTP_ERROR) for did in dids])
        ledger.mark_for_retry(SHARD, dict.fromkeys(dids, 3))
        ledger.put([item(did, 4) for did in dids[:3]])
        ledger.mark_for_retry(SHARD, {"did:plc:b": 4})  # marked again before the run had cleared the old mark
        ledger.clear_marks(SHARD, ["did:plc:a", "did:plc:b", "did:plc:d", "did:plc:unmarked"])
        assert ledger.retry_marks(SHARD) == {"did:plc:b": 4, "did:plc:c": 3, "did:plc:d": 3}
        ledger.clear_marks(SHARD, [])
        ledger.clear_marks(OTHER, dids)
        assert ledger.retry_marks(SHARD) == {"did:plc:b": 4, "did:plc:c": 3, "did:plc:d": 3}

    def test_a_ledger_is_bound_to_one_state(self, make_ledger: MakeLedger) -> None:
        ledger = make_ledger("study")
        ledger.bind_state("id1")
        ledger.bind_state("id1")
        assert ledger.state_id() == make_ledger("study").state_id() == "id1"
        with pytest.raises(StateError, match="belongs to the state id1 of study, not to id2; bring that state folder"):
            make_ledger("study").bind_state("id2")
        assert ledger.state_id() == "id1"

    def test_a_ledger_with_items_of_an_unknown_state_is_refused(self, ledger: Ledger) -> None:
        ledger.put([item("did:plc:a", 1)])
        with pytest.raises(StateError, match="belongs to the state of an unknown id of study, not to id1"):
            ledger.bind_state("id1")
        assert ledger.state_id() is None

    def test_backfills_in_one_storage_keep_apart(self, make_ledger: MakeLedger) -> None:
        study, other = make_ledger("study"), make_ledger("other")
        study.put([item("did:plc:a", 1, Outcome.HTTP_ERROR)])
        study.put_summary(SHARD, ShardSummary(seq=1))
        study.mark_for_retry(SHARD, {"did:plc:a": 1})
        other.bind_state("theirs")
        assert (list(other.items(SHARD)), other.find("did:plc:a"), other.seqs(SHARD)) == ([], [], {})
        assert (other.summaries(), other.retry_marks(SHARD)) == ({}, {})
        assert other.attention(Outcome.HTTP_ERROR, 9) == []
        assert study.state_id() is None

    def test_what_another_opens_is_there(self, make_ledger: MakeLedger) -> None:
        ledger = make_ledger("study")
        ledger.put([item("did:plc:a", 1)])
        ledger.close()
        assert make_ledger("study").seqs(SHARD) == {"did:plc:a": 1}

    def test_lease_records_come_back_whole(self, ledger: Ledger) -> None:
        assert ledger.leases.compare_and_set(lease().name, None, lease()) is True
        assert ledger.leases.read(lease().name) == lease()
        assert ledger.leases.read("study/other") is None

    @pytest.mark.parametrize(
        "expected", [None, lease(1), lease(token="x"), lease(epoch=2), lease(released=True)], ids=lambda _: ""
    )
    def test_compare_and_set_wants_the_exact_record(self, ledger: Ledger, expected: LeaseRecord | None) -> None:
        ledger.leases.compare_and_set(lease().name, None, lease())
        assert ledger.leases.compare_and_set(lease().name, expected, lease(9)) is False
        assert ledger.leases.read(lease().name) == lease()
        assert ledger.leases.compare_and_set(lease().name, lease(), lease(1)) is True
        assert ledger.leases.read(lease().name) == lease(1)

    def test_a_record_lies_under_its_own_name(self, ledger: Ledger) -> None:
        with pytest.raises(ValueError, match=r"a record of study/pds\.example~0000 under the name study/other"):
            ledger.leases.compare_and_set("study/other", None, lease())
        assert ledger.leases.read("study/other") is None

    def test_compare_and_set_of_a_record_that_is_not_there(self, ledger: Ledger) -> None:
        assert ledger.leases.compare_and_set(lease().name, lease(), lease(1)) is False
        assert ledger.leases.read(lease().name) is None

    def test_who_holds_leases(self, make_ledger: MakeLedger) -> None:
        ledger, other = make_ledger("study"), make_ledger("other")
        assert ledger.leases.holders() == []
        held, free = lease(), lease(name="study/b", released=True)
        for one in (lease(name="study/c"), held, free):
            ledger.leases.compare_and_set(one.name, None, one)
        other.leases.compare_and_set("other/a", None, lease(name="other/a"))
        assert ledger.leases.holders() == [lease(name="study/c"), held]
        assert other.leases.holders() == [lease(name="other/a")]

    def test_a_did_in_all_backfills(self, make_ledger: MakeLedger) -> None:
        study, other = make_ledger("study"), make_ledger("other")
        assert study.find_in_all("did:plc:a") == []
        there = [item("did:plc:a", 3, shard=OTHER), item("did:plc:a", 1)]
        theirs = replace(item("did:plc:a", 7), backfill="other")
        study.put([*there, item("did:plc:b", 1)])
        other.put([theirs])
        assert study.find_in_all("did:plc:a") == other.find_in_all("did:plc:a") == [theirs, *reversed(there)]
        assert (study.find("did:plc:a"), other.find("did:plc:a")) == ([*reversed(there)], [theirs])

    def test_outcomes_over_all_shards(self, ledger: Ledger) -> None:
        assert outcome_counts(ledger) == {}
        ledger.put_summary(SHARD, ShardSummary(outcomes={"complete": 3, "http_error": 1}, seq=4))
        ledger.put_summary(OTHER, ShardSummary(outcomes={"complete": 2}, seq=1))
        assert outcome_counts(ledger) == {"complete": 5, "http_error": 1}


class ComparingContract:
    """Of a ledger that writes an item only over a lower seq, over all calls."""

    @pytest.fixture
    def ledger(self, make_ledger: MakeLedger) -> Ledger:
        return make_ledger("study")

    def test_an_item_is_written_only_over_a_lower_seq(self, ledger: Ledger) -> None:
        ledger.put([item("did:plc:a", 5, rev="five")])
        ledger.put([item("did:plc:a", 4, rev="four"), item("did:plc:b", 4)])
        ledger.put([item("did:plc:a", 5, rev="another five")])
        assert ledger.seqs(SHARD) == {"did:plc:a": 5, "did:plc:b": 4}
        assert [one.result.rev for one in ledger.items(SHARD)] == ["five", None]
        ledger.put([item("did:plc:a", 6, rev="six")])
        assert [one.result.rev for one in ledger.items(SHARD)] == ["six", None]

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        puts=st.lists(
            st.lists(
                st.tuples(st.sampled_from("abc"), st.integers(1, 6), st.sampled_from(Outcome)), min_size=1, max_size=4
            ),
            max_size=5,
        ),
    )
    def test_any_order_of_puts_ends_at_the_highest_seq(
        self, make_ledger: MakeLedger, puts: list[list[tuple[str, int, Outcome]]]
    ) -> None:
        ledger, shard = make_ledger("study"), f"{uuid.uuid4()}~0000"
        model: dict[str, tuple[int, Outcome]] = {}
        for batch in puts:
            ledger.put([item(did, seq, outcome, shard) for did, seq, outcome in batch])
            for did, seq, outcome in batch:
                if seq > model.get(did, (0, outcome))[0]:
                    model[did] = (seq, outcome)
        assert {one.result.did: (one.seq, one.result.outcome) for one in ledger.items(shard)} == model
        assert ledger.seqs(shard) == {did: seq for did, (seq, _) in model.items()}
