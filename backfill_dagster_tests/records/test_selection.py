"""Which records are wanted, and the scope that names the choice."""

from __future__ import annotations

import pytest

from backfill_dagster.records import selection as selection_module
from backfill_dagster.records.selection import RecordFilter, Selection

POST = "app.bsky.feed.post"


@pytest.mark.parametrize(
    ("nsid", "wanted"),
    [
        (POST, True),
        ("app.bsky.feed.postgate", False),
        ("app.bsky.graph.follow", True),
        ("app.bsky.graph.list.item", True),
        ("app.bsky.graph", False),
        ("app.bsky.graphs.follow", False),
        ("APP.bsky.graph.follow", False),
        ("", False),
    ],
)
def test_a_wildcard_takes_what_is_below_it_and_a_name_only_itself(nsid: str, wanted: bool) -> None:
    assert Selection((POST, "app.bsky.graph.*")).wants_collection(nsid) is wanted


def test_no_record_types_want_nothing() -> None:
    assert not Selection(()).wants_collection(POST)


@pytest.mark.parametrize(
    ("start", "end", "micros", "wanted"),
    [
        (None, None, -5, True),
        (10, 20, 10, True),
        (10, 20, 20, True),
        (10, 20, 9, False),
        (10, 20, 21, False),
        (10, None, 10**18, True),
        (None, 20, -(10**15), True),
        (0, None, -1, False),
    ],
)
def test_both_ends_are_inclusive_and_may_be_open(start: int | None, end: int | None, micros: int, wanted: bool) -> None:
    assert Selection((POST,), start, end).wants_instant(micros) is wanted


def test_a_time_range_is_one_as_soon_as_one_end_is_given() -> None:
    assert not Selection((POST,)).has_time_range
    assert Selection((POST,), start_us=0).has_time_range
    assert Selection((POST,), end_us=0).has_time_range


def test_filters_belong_to_one_collection() -> None:
    mine = RecordFilter(POST, "uri", frozenset({"at://a"}))
    other = RecordFilter("app.bsky.feed.like", "subject_uri", frozenset({"at://a"}))
    assert Selection((POST,), filters=(mine, other)).filters_on(POST) == (mine,)


def test_an_empty_list_is_refused_because_it_would_drop_everything() -> None:
    with pytest.raises(ValueError, match="empty list; leave it out"):
        RecordFilter(POST, "uri", frozenset())


def test_the_scope_is_16_hex_digits_and_knows_no_order() -> None:
    one = RecordFilter(POST, "uri", frozenset({"at://a", "at://b"}))
    two = RecordFilter(POST, "root_uri", frozenset({"at://c"}))
    forth = Selection((POST, "x.y.*"), 1, 2, (one, two))
    back = Selection(("x.y.*", POST, POST), 1, 2, (two, RecordFilter(POST, "uri", frozenset({"at://b", "at://a"}))))
    assert forth.scope == back.scope
    assert len(forth.scope) == 16
    assert int(forth.scope, 16) >= 0


def test_everything_that_decides_changes_the_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    uris = frozenset({"at://a"})
    choices = [
        Selection((POST,)),
        Selection((POST, "x.y.z")),
        Selection((POST,), start_us=1),
        Selection((POST,), end_us=1),
        Selection((POST,), filters=(RecordFilter(POST, "uri", uris),)),
        Selection((POST,), filters=(RecordFilter(POST, "root_uri", uris),)),
        Selection((POST,), filters=(RecordFilter(POST, "uri", uris | {"at://b"}),)),
        Selection((POST,), filters=(RecordFilter("x.y.z", "uri", uris),)),
    ]
    scopes = {one.scope for one in choices}
    monkeypatch.setattr(selection_module, "SCHEMA_VERSION", 2)
    scopes.add(Selection((POST,)).scope)
    assert len(scopes) == len(choices) + 1
