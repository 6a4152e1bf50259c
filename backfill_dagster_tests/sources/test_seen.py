"""What has come before: exactly, whatever is kept as it is and whatever as hashes, and in few bytes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_dagster.sources import seen
from backfill_dagster.sources.seen import SeenTexts


@given(st.lists(st.lists(st.text("abc", max_size=2), max_size=9), max_size=12), st.integers(1, 8))
def test_a_text_is_new_once(batches: list[list[str]], newest_max: int) -> None:
    texts = SeenTexts(newest_max=newest_max)
    before: set[str] = set()
    for batch in batches:
        for text, is_new in zip(batch, texts.add(batch), strict=True):
            assert is_new == (text not in before)
            before.add(text)


def test_long_texts_are_sorted_away_early() -> None:
    texts = SeenTexts(newest_chars_max=100)
    assert texts.add(["x" * 60, "y" * 60]) == [True, True]
    assert len(texts._newest) == 0
    assert texts.add(["y" * 60, "z", "z"]) == [False, True, False]


def test_texts_with_the_same_first_hash_stay_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "hash", lambda text: len(text), raising=False)
    monkeypatch.setattr(seen, "_second", lambda text: int.from_bytes(text.encode()))
    texts = SeenTexts(newest_max=2)
    assert texts.add(["aa", "bb", "aa"]) == [True, True, False]
    assert texts.add(["bb", "cc", "c", "aa", "cc"]) == [False, True, True, False, False]
    assert texts.add(["cc", "dd", "c", "bb"]) == [False, True, False, False]


_MEASURE = """
import resource
from backfill_dagster.sources.base import RawBatch, clean_batches
from backfill_dagster.sources.seen import SeenTexts
import backfill_dagster.sources.base as base

base.SeenTexts = lambda: SeenTexts(newest_max=20_000)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
batches = lambda first, last: (
    RawBatch([f"did:plc:{number:024d}" for number in range(at, at + 10_000)]) for at in range(first, last, 10_000)
)
assert sum(1 for row in clean_batches(batches(0, 100_000), ())) == 100_000
before = peak()
assert sum(1 for row in clean_batches(batches(0, 600_000), ())) == 600_000
print((peak() - before) / 500_000)
"""


def test_an_older_text_takes_few_bytes() -> None:
    """16 of them stay; sorting takes as many again and more for a moment."""
    said = subprocess.run([sys.executable, "-c", _MEASURE], capture_output=True, text=True, check=True).stdout
    assert float(said) < 80
