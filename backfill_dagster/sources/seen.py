"""Which texts have come before: all those of a source, in about 26 bytes each, so that ten million fit beside the rest.

A text is known by two hashes of 64 bits, of itself and of itself with a word behind it, by Python's keyed SipHash: two
texts are taken for one when both agree, which of ten million happens once in 10**24 sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from operator import is_, not_

import pyarrow as pa
import pyarrow.compute as pc

RECENT_MAX = 1_000_000
"""About 110 bytes each. Then they are sorted into the run, at 16 bytes; that takes longer the longer the run is."""

_WORD = " again"


class SeenTexts:
    """The texts so far.

    Args:
        recent_max: how many are kept in a dict before they are sorted away.
    """

    def __init__(self, recent_max: int = RECENT_MAX) -> None:
        self._recent_max = recent_max
        self._recent: dict[int, int] = {}  # first hash to second
        self._run = pa.table({"first": pa.array([], pa.int64()), "second": pa.array([], pa.int64())})  # by first
        self._odd: set[tuple[int, int]] = set()  # whose first hash is another text's too

    def add(self, texts: Sequence[str]) -> list[bool]:
        """Whether each of the texts is new; then none of them is any more."""
        firsts = list(map(hash, texts))
        seconds = [hash(text + _WORD) for text in texts]
        # What `setdefault` gives back is this row's own object exactly when no row before had the hash.
        before = list(map(self._recent.setdefault, firsts, seconds))
        new = list(map(is_, before, seconds))
        if not all(new):
            for index in compress(range(len(new)), map(not_, new)):
                new[index] = before[index] != seconds[index] and self._is_odd(firsts[index], seconds[index])
        self._look_into_run(firsts, seconds, new)
        if len(self._recent) >= self._recent_max:
            self._fold()
        return new

    def _look_into_run(self, firsts: list[int], seconds: list[int], new: list[bool]) -> None:
        """Take back what is new among the recent ones but stands in the run."""
        if not len(self._run):
            return
        wanted = pa.array(firsts, pa.int64())
        run = self._run.column("first").chunk(0)
        places = pc.min_element_wise(pc.search_sorted(run, wanted), pa.scalar(len(run) - 1, pa.uint64()))
        is_there = pc.equal(run.take(places), wanted)
        if not pc.any(is_there).as_py():
            return
        known = self._run.column("second").chunk(0).take(places)
        for index in compress(range(len(new)), map(bool.__and__, is_there.to_pylist(), new)):
            first, second = firsts[index], seconds[index]
            self._recent.pop(first, None)
            new[index] = known[index].as_py() != second and self._is_odd(first, second)

    def _is_odd(self, first: int, second: int) -> bool:
        """Whether it is new among those that share a first hash with another text."""
        count = len(self._odd)
        self._odd.add((first, second))
        return len(self._odd) > count

    def _fold(self) -> None:
        recent = pa.table(
            {"first": pa.array(self._recent.keys(), pa.int64()), "second": pa.array(self._recent.values(), pa.int64())}
        )
        self._recent = {}
        self._run = pa.concat_tables([self._run, recent]).sort_by("first").combine_chunks()
