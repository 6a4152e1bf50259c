"""Rows of any source: trimmed, bounded, each once, counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backfill_dagster.atproto.did import is_did
from backfill_dagster.sources.base import RowCounts, SourceRow, clean_rows, clean_text


def texts(values: list[object]) -> list[str]:
    return [row.text for row in clean_rows(((value, ()) for value in values), ())]


def test_rows_are_trimmed_and_given_once_in_order() -> None:
    assert texts(["did:plc:b", " did:plc:a\t", "did:plc:b\r\n", "did:plc:a"]) == ["did:plc:b", "did:plc:a"]


def test_null_and_blank_values_come_out_once_and_are_counted() -> None:
    counts = RowCounts()
    raw: list[tuple[object, tuple[object, ...]]] = [(None, ()), ("x", ()), ("  ", ()), ("", ()), ("x", ())]
    assert [row.text for row in clean_rows(raw, (), counts)] == ["", "x"]
    assert counts == RowCounts(rows=5, duplicates=3, empty=3)


def test_the_first_row_of_a_text_wins_with_its_columns() -> None:
    raw = [("a", ("x", None)), ("a", ("y", 1)), ("b", (2.5, b"\xffz"))]
    assert list(clean_rows(raw, ("cohort", "note"))) == [
        SourceRow("a", {"cohort": "x", "note": None}),
        SourceRow("b", {"cohort": "2.5", "note": "\ufffdz"}),
    ]


def test_values_of_other_types_become_text() -> None:
    assert texts([7, 1.5, b"did:plc:a", b"\xff"]) == ["7", "1.5", "did:plc:a", "\ufffd"]


def test_a_text_at_the_bound_is_kept_whole() -> None:
    longest = "did:web:" + "a" * 2040
    assert texts([longest]) == [longest]


def test_texts_over_the_bound_are_cut_stay_different_and_are_no_did() -> None:
    one, other = texts(["did:web:" + "a" * 2041, "did:web:" + "a" * 5000])
    assert one != other
    assert one.startswith("did:web:aaa")
    assert "…sha256:" in one
    assert len(one.encode()) <= 2048
    assert not is_did(one)


def test_a_kept_column_is_cut_at_one_kib() -> None:
    (row,) = clean_rows([("a", ("é" * 1000,))], ("note",))
    value = row.columns["note"]
    assert value is not None
    assert value.endswith("é…")
    assert 1020 <= len(value.encode()) <= 1024


def test_lone_surrogates_become_a_question_mark() -> None:
    assert texts(["a\ud800"]) == ["a?"]
    (row,) = clean_rows([("a", ("\udfff",))], ("note",))
    assert row.columns == {"note": "?"}


@given(st.text(st.characters(), max_size=3000))
def test_cleaning_is_bounded_idempotent_and_valid_unicode(text: str) -> None:
    once = clean_text(text)
    assert len(once.encode()) <= 2048
    assert clean_text(once) == once


@given(st.lists(st.text(max_size=4)))
def test_every_text_comes_out_exactly_once(values: list[str]) -> None:
    assert texts(list(values)) == list(dict.fromkeys(value.strip() for value in values))
