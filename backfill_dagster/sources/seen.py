"""Which texts have come before. The newest are kept as they are, of older ones two hashes: 16 bytes each.

The hashes are Python's keyed SipHash of the text, and of the text with a word behind it. Two texts are taken for one
when both agree, all 128 bits: of ten million texts that happens in one source of 10**24.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from operator import and_

import pyarrow as pa
import pyarrow.compute as pc

NEWEST_MAX = 1024 * 1024
"""A DID takes about 115 bytes there. Sorting them away takes the longer the more have been sorted before."""

NEWEST_CHARS_MAX = 64 * 1024 * 1024

_WORD = " again"
_EMPTY = pa.table({"first": pa.array([], pa.int64()), "second": pa.array([], pa.int64())})


class SeenTexts:
    """The texts so far.

    Args:
        newest_max: how many are kept as they are.
        newest_chars_max: how many characters they may have together, about.
    """

    def __init__(self, newest_max: int = NEWEST_MAX, newest_chars_max: int = NEWEST_CHARS_MAX) -> None:
        self._newest_max = newest_max
        self._newest_chars_max = newest_chars_max
        self._newest: set[str] = set()
        self._newest_chars = 0
        # Of the older ones the first hash, in order, and the second beside it.
        self._run = _EMPTY

    def add(self, texts: Sequence[str]) -> list[bool]:
        """Whether each of the texts is new; then none of them is any more."""
        new = self._add_to_newest(texts)
        if len(self._run):
            self._look_into_run(texts, new)
        self._newest_chars += sum(map(len, texts))
        if len(self._newest) >= self._newest_max or self._newest_chars >= self._newest_chars_max:
            self._sort_away()
        return new

    def _add_to_newest(self, texts: Sequence[str]) -> list[bool]:
        different = set(texts)
        if len(different) == len(texts) and self._newest.isdisjoint(different):
            self._newest |= different
            return [True] * len(texts)
        new = []
        for text in texts:
            count = len(self._newest)
            self._newest.add(text)
            new.append(len(self._newest) > count)
        return new

    def _look_into_run(self, texts: Sequence[str], new: list[bool]) -> None:
        """Take back what is among the older ones."""
        firsts = self._run.column("first").chunk(0)
        wanted = pa.array(map(hash, texts), pa.int64())
        places = pc.search_sorted(firsts, wanted)
        there = firsts.take(pc.min_element_wise(places, pa.scalar(len(firsts) - 1, pa.uint64())))
        is_there = pc.equal(there, wanted)
        if not pc.any(is_there).as_py():
            return
        for index in compress(range(len(texts)), map(and_, is_there.to_pylist(), new)):
            if self._is_in_run(texts[index], places[index].as_py()):
                new[index] = False
                self._newest.remove(texts[index])

    def _is_in_run(self, text: str, place: int) -> bool:
        """Whether it is there, from the first place on that has its first hash."""
        firsts, seconds = (self._run.column(name).chunk(0) for name in ("first", "second"))
        first, second = hash(text), _second(text)
        while place < len(firsts) and firsts[place].as_py() == first:
            if seconds[place].as_py() == second:
                return True
            place += 1
        return False

    def _sort_away(self) -> None:
        newest = {
            "first": pa.array(map(hash, self._newest), pa.int64()),
            "second": pa.array(map(_second, self._newest), pa.int64()),
        }
        self._newest = set()
        self._newest_chars = 0
        everything = pa.concat_tables([self._run, pa.table(newest)])
        self._run = _EMPTY  # as few copies at a time as can be
        ordered = everything.sort_by("first")
        del everything
        self._run = ordered.combine_chunks()


def _second(text: str) -> int:
    return hash(text + _WORD)
