"""Which column is meant, and what is said when it isn't there."""

from __future__ import annotations

import pytest

from backfill_dagster.errors import SourceError
from backfill_dagster.sources.columns import Columns, find_columns, name_list


def find(found: list[str], column: str | None = None, keep: tuple[str, ...] = ()) -> Columns:
    return find_columns(
        found, column=column, default="did", keep_columns=keep, where="a.csv", remedy="set source.column"
    )


def test_the_expected_name_is_found_among_several() -> None:
    assert find(["a", "did", "b"], keep=("b", "a")) == Columns(1, (2, 0))


def test_the_only_column_is_taken_when_none_is_named() -> None:
    assert find(["user"]) == Columns(0, ())


def test_a_named_column_has_to_be_there_even_if_there_is_only_one() -> None:
    with pytest.raises(SourceError) as caught:
        find(["user"], column="did")
    assert str(caught.value) == "a.csv has no column 'did'; columns found: user; set source.column"


def test_a_name_that_is_there_twice_is_ambiguous() -> None:
    with pytest.raises(SourceError) as caught:
        find(["did", "did"])
    assert str(caught.value) == "a.csv has 2 columns 'did'; columns found: did, did; set source.column"


def test_a_missing_kept_column_names_the_key_to_correct() -> None:
    with pytest.raises(SourceError) as caught:
        find(["did", "age"], keep=("cohort",))
    assert str(caught.value) == "a.csv has no column 'cohort'; columns found: did, age; correct source.keep_columns"


def test_lists_of_names_are_bounded() -> None:
    assert name_list([]) == "none"
    listed = name_list([f"c{number}" for number in range(5000)])
    assert listed.endswith("c19 and 4980 more")
    assert name_list(["x\ny" + "z" * 500]) == "x y" + "z" * 57 + "…"
