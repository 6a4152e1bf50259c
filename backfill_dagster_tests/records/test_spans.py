"""Where wanted keys lie in a repo's order: spans, and what can lie between two keys."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.records.selection import Selection

POST, LIKE = "app.bsky.feed.post", "app.bsky.feed.like"

# Collections that are prefixes of each other; "-" and "." sort before "/", letters behind it.
_PARTS = st.lists(st.sampled_from(["a", "b", "b-b", "bb"]), min_size=2, max_size=4)
_NSIDS = _PARTS.map(".".join)
_SELECTIONS = st.lists(st.one_of(_NSIDS, _NSIDS.map(lambda nsid: f"{nsid}.*")), max_size=4).map(
    lambda names: Selection(tuple(names))
)
_KEYS = st.builds("{}/{}".format, _NSIDS, st.sampled_from(["-", "0", "m", "z", "~~~"]))

examples = settings(derandomize=True, database=None, deadline=None, max_examples=200)


def wants(selection: Selection, key: str) -> bool:
    return selection.wants_collection(key.partition("/")[0])


@pytest.mark.parametrize(
    ("record_types", "spans"),
    [
        ((), ()),
        ((POST, LIKE, POST), (f"{LIKE}/", f"{POST}/")),
        (("app.bsky.graph.*", POST), (f"{POST}/", "app.bsky.graph.")),
        (("app.bsky.*", POST, "app.bsky.feed.*", "app.bskyx.a"), ("app.bsky.", "app.bskyx.a/")),
        (("a.b", "a.b.*"), ("a.b.", "a.b/")),
    ],
)
def test_spans_are_what_wanted_keys_begin_with(record_types: tuple[str, ...], spans: tuple[str, ...]) -> None:
    assert Selection(record_types).spans == spans


def test_which_span_a_key_is_in() -> None:
    selection = Selection((POST, "app.bsky.graph.*"))
    assert selection.span_of(f"{POST}/3k2a") == f"{POST}/"
    assert selection.span_of("app.bsky.graph.list.item/a") == "app.bsky.graph."
    assert [selection.span_of(f"{one}/a") for one in (f"{POST}gate", "app.bsky.graph", "app.bsky.feed")] == [None] * 3
    assert selection.span_of("") is None


@examples
@given(_SELECTIONS, st.sets(_KEYS, max_size=12))
def test_a_key_is_in_a_span_if_it_is_wanted_and_so_is_all_between_two_of_one_span(
    selection: Selection, keys: set[str]
) -> None:
    for key in keys:
        span = selection.span_of(key)
        assert (span is not None) == wants(selection, key)
        assert [one for one in selection.spans if key.startswith(one)] == ([] if span is None else [span])
    for low, middle, high in combinations(sorted(keys), 3):
        if selection.span_of(low) is not None and selection.span_of(low) == selection.span_of(high):
            assert selection.span_of(middle) == selection.span_of(low)


@pytest.mark.parametrize(
    ("after", "before", "touches", "cuts"),
    [
        ("", None, True, True),
        ("", "app.bsky.feed.like/z", False, False),
        ("", f"{POST}/0", True, True),
        ("app.bsky.feed.like/z", f"{POST}/0", True, True),
        ("app.bsky.feed.like/z", f"{POST}gate/0", True, True),
        ("app.bsky.feed.like/z", "zz.z/0", True, True),
        (f"{POST}/0", f"{POST}/5", True, False),
        (f"{POST}/0", f"{POST}gate/0", True, True),
        (f"{POST}/0", None, True, True),
        (f"{POST}/~", None, True, True),
        (f"{POST}gate/0", None, False, False),
        (f"{POST}gate/0", f"{POST}gate/9", False, False),
        (f"{POST}-not/0", f"{POST}-not/9", False, False),
        (f"{POST}-not/0", f"{POST}/9", True, True),
    ],
)
def test_what_can_lie_between_two_keys(after: str, before: str | None, touches: bool, cuts: bool) -> None:
    selection = Selection((POST,))
    assert selection.touches(after, before) is touches
    assert selection.cuts(after, before) is cuts


def test_between_two_wildcards_and_within_one() -> None:
    selection = Selection(("app.bsky.feed.*", "app.bsky.graph.*"))
    assert not selection.cuts("app.bsky.feed.like/0", f"{POST}/0")
    assert selection.cuts(f"{POST}/0", "app.bsky.graph.follow/0")
    assert not selection.touches("app.bsky.graphs.a/0", None)
    assert not Selection(()).touches("", None)


@examples
@given(_SELECTIONS, st.sets(_KEYS, min_size=1, max_size=12))
def test_no_wanted_key_is_overlooked_and_no_other_either(selection: Selection, keys: set[str]) -> None:
    """`touches` and `cuts` may only err on the side of "could be"."""
    bounds: list[str | None] = ["", *sorted(keys), None]
    for low, high in combinations(range(len(bounds)), 2):
        after, before = bounds[low] or "", bounds[high]
        between = [wants(selection, key) for key in bounds[low + 1 : high] if key]
        assert selection.touches(after, before) or not any(between)
        assert selection.cuts(after, before) or not any(between) or all(between)
        assert selection.touches(after, before) or not selection.cuts(after, before)


@examples
@given(_SELECTIONS, _KEYS, _KEYS)
def test_what_could_be_is_said_of_no_more_than_there_is_room_for(selection: Selection, one: str, other: str) -> None:
    after, before = sorted((one, other))
    spans = [span for span in selection.spans if span < before and after < f"{span}~~~~"]
    assert selection.touches(after, before) == bool(spans)
    if wants(selection, after) and selection.span_of(after) == selection.span_of(before):
        assert not selection.cuts(after, before)
