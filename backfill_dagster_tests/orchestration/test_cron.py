"""Cron strings that a config takes are ones that Dagster takes: a file that `validate` praises must become jobs."""

from __future__ import annotations

from dagster._utils.schedules import is_valid_cron_schedule
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backfill_dagster.config.cron import Cron

DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


def fields(minimum: int, maximum: int, names: list[str] | None = None) -> st.SearchStrategy[str]:
    one = st.integers(minimum, maximum).map(str) | st.sampled_from(names or ["*"])
    span = st.tuples(one, one).map("-".join)
    steps = st.tuples(st.just("*") | span | one, st.integers(1, 40).map(str)).map("/".join)
    return st.lists(st.just("*") | one | span | steps, min_size=1, max_size=3).map(",".join)


CRONS = st.tuples(fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12, MONTHS), fields(0, 7, DAYS)).map(" ".join)


@example("0 0 30 2 1")
@example("0 0 31 4,2 mon")
@given(CRONS | st.sampled_from(["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"]))
@settings(max_examples=300, deadline=None)
def test_what_a_config_takes_dagster_takes(text: str) -> None:
    try:
        taken = Cron().read(text)
    except ValueError:
        return
    assert is_valid_cron_schedule(taken), taken
