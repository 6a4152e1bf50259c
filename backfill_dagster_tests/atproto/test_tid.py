"""TIDs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_dagster.atproto.tid import CLOCK_ID_MAX, MICROS_MAX, is_tid, micros_of_tid, tid_from_micros


@pytest.mark.parametrize(
    "text",
    [
        "",
        "222",
        "3jzfcijpj2z2",
        "3jzfcijpj2z2aa",
        "3jzfcijpj2z21",
        "3JZFCIJPJ2Z2A",
        "zzzzzzzzzzzzz",
        "kjzfcijpj2z2a",
        "3jzf-cij-pj2z-2a",
        "3jzfcijpj2z2a\n",
    ],
)
def test_not_tids(text: str) -> None:
    assert not is_tid(text)
    with pytest.raises(ValueError, match="is not a TID"):
        micros_of_tid(text)


def test_known_times() -> None:
    assert tid_from_micros(0) == "2222222222222"
    assert tid_from_micros(MICROS_MAX, CLOCK_ID_MAX) == "bzzzzzzzzzzzz"
    assert micros_of_tid("3jzfcijpj2z2a") == 1_688_137_381_887_007


@pytest.mark.parametrize(("micros", "clock_id"), [(-1, 0), (MICROS_MAX + 1, 0), (0, -1), (0, CLOCK_ID_MAX + 1)])
def test_times_that_no_tid_can_say(micros: int, clock_id: int) -> None:
    with pytest.raises(ValueError, match="no TID can say"):
        tid_from_micros(micros, clock_id)


@given(st.integers(0, MICROS_MAX), st.integers(0, CLOCK_ID_MAX), st.integers(0, MICROS_MAX))
def test_tids_keep_their_time_and_sort_by_it(micros: int, clock_id: int, other: int) -> None:
    tid = tid_from_micros(micros, clock_id)
    assert is_tid(tid)
    assert micros_of_tid(tid) == micros
    if other > micros:
        assert tid_from_micros(other) > tid
