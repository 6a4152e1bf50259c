"""What can be purged, and how much of it one entry holds."""

from __future__ import annotations

import pytest

from backfill_dagster.errors import UsageError
from backfill_dagster.worker import rewriting
from backfill_dagster.worker.purge import check_purge


def test_entries_are_cut_by_what_they_weigh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewriting, "OUTCOMES_BYTES", 10)
    assert list(rewriting.cut([3, 3, 3, 3, 12, 1], 99, int)) == [[3, 3, 3], [3], [12], [1]]
    assert list(rewriting.cut([1, 1, 1], 2, int)) == [[1, 1], [1]]
    assert list(rewriting.cut([], 2, int)) == []


@pytest.mark.parametrize(
    ("dids", "uris", "said"),
    [
        ([], [], "nothing to purge: name accounts with --did or records with --uri"),
        (["alice.example"], [], r"'alice.example' is not a DID \(did:plc:… or did:web:…\)"),
        (["did:plc:a", "at://did:plc:a"], [], "'at://did:plc:a' is not a DID"),
        ([""], [], "'' is not a DID"),
        ([" did:plc:a"], [], "' did:plc:a' is not a DID"),
        ([], ["did:plc:a"], "'did:plc:a' is not the AT URI of a record: at://<did>/<collection>/<rkey>"),
        ([], ["at://did:plc:a"], "'at://did:plc:a' is not the AT URI of a record"),
        ([], ["at://did:plc:a/app.bsky.feed.post"], "is not the AT URI of a record"),
        ([], ["at://did:plc:a/app.bsky.feed.post/"], "is not the AT URI of a record"),
        ([], ["at://did:plc:a//3k"], "is not the AT URI of a record"),
        ([], ["at://did:plc:a/app.bsky.feed.post/3k/x"], "is not the AT URI of a record"),
        ([], ["at://did:plc:a/app.bsky.feed.post/3k#text"], "is not the AT URI of a record"),
        ([], ["at://did:plc:a/app.bsky.feed.post/3k "], "is not the AT URI of a record"),
        ([], ["at://alice.example/app.bsky.feed.post/3k"], "is not the AT URI of a record"),
        ([], ["https://bsky.app/profile/alice.example/post/3k"], "is not the AT URI of a record"),
        (["did:plc:a"], ["at://did:plc:a/app.bsky.feed.post/3k", "x"], "'x' is not the AT URI of a record"),
    ],
)
def test_what_can_not_be_purged_is_refused_in_one_sentence(dids: list[str], uris: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        check_purge(dids, uris)
    assert "\n" not in str(caught.value)


def test_what_can_be_purged() -> None:
    check_purge(["did:plc:a", "did:web:a.example%3A443"], ["at://did:web:a.example/com.example.thing/self"])
    check_purge([], ["at://did:plc:a/odd/.."])
